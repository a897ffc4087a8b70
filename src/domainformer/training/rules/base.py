"""What a learning rule is: one change of how a model learns, as plain settings and pure steps.

A rule is a frozen configuration with a name. What it remembers lies apart, as plain data, so that
a checkpoint carries it. It overrides the steps that it has to do with, and no others::

    init(model, sites) ─▶ state

    forward          value at a site          (activation, norm, residual, queries)
    replace          the operation of a site  (a custom backward, a straight-through estimator)
    backward         gradient at a site       (sign, noise, clipping)
    update           gradients of the weights, before the optimizer sees them
    optimizer        the optimizer itself
    after_step       weights, after the optimizer moved them   (lookahead, averages)
    auxiliary_loss   a term that is added to the loss

Each step takes the rule's state and gives it back: ``(…, state) -> (…, state)``, the idea of optax
(github.com/google-deepmind/optax). Randomness comes from ``moment.generator`` alone, which depends
on seed, step, rule and site: a rule draws nothing from the global generators, so that it changes
nothing beside what it says, and a resumed run draws what an uninterrupted one would have drawn.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from domainformer.config import StrictConfig

State = dict[str, Any]
Gradients = dict[str, torch.Tensor]
Parameters = Mapping[str, nn.Parameter]
STEPS = ("forward", "replace", "backward", "update", "optimizer", "after_step", "auxiliary_loss")


@dataclass(frozen=True)
class Site:
    """A place in a model where a rule acts.

    Args:
        path: The module's path, such as ``model.layers.0.mlp``.
        module: The module.
        index: Its number among the sites of the rule.
    """

    path: str
    module: nn.Module
    index: int


@dataclass
class Clock:
    """Where the training stands; the trainer sets it, rules read it.

    Args:
        seed: Of all draws of all rules.
        step: Optimizer steps done.
        micro: Forward passes done in this step.
        checking: Whether every value and gradient is looked at for NaN (the first step, and where
            a loss or a gradient is not finite).
    """

    seed: int = 0
    step: int = 0
    micro: int = 0
    checking: bool = True


@dataclass(frozen=True)
class Moment:
    """The clock as one rule sees it.

    Args:
        clock: Shared by all rules of a model.
        key: The rule's own, unique in its chain.
    """

    clock: Clock
    key: str = "rule"

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.clock.step

    def generator(self, at: Site | str, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator for one draw: the same for the same seed, step, pass, rule and site.

        Example:
            >>> moment = Moment(Clock(seed=1, step=5))
            >>> a = torch.rand(2, generator=moment.generator("mlp"))
            >>> b = torch.rand(2, generator=moment.generator("mlp"))
            >>> bool((a == b).all())
            True
        """
        where = at if isinstance(at, str) else at.path
        clock = self.clock
        text = f"{clock.seed}/{clock.step}/{clock.micro}/{self.key}/{where}"
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
        return torch.Generator(device).manual_seed(seed)


@dataclass
class Slot:
    """A place that holds one rule's state, for steps that run inside the model.

    Args:
        owner: The states of a chain.
        key: Which of them.
    """

    owner: dict[str, Any]
    key: str

    @property
    def state(self) -> State:
        """The rule's state as it is now."""
        state: State = self.owner[self.key]
        return state

    @state.setter
    def state(self, value: State) -> None:
        self.owner[self.key] = value


@dataclass(frozen=True)
class Seen:
    """What an auxiliary loss may look at.

    Args:
        model: The model.
        logits: Scores [B, L, V] of every position, as the model gave them.
        targets: What each position shall say, ids [B, L]; −100 is nothing.
        inputs: The batch as the model took it.
        values: Values at the rule's own sites in this pass, by path.
    """

    model: nn.Module
    logits: torch.Tensor
    targets: torch.Tensor
    inputs: Mapping[str, Any]
    values: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def scored(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [N, V] and targets [N] of the positions that are scored."""
        kept = self.targets.ne(-100)
        if bool(kept.all()):  # nothing to pick: a view, whose gradient costs nothing
            return self.logits.flatten(0, -2), self.targets.flatten()
        return self.logits[kept], self.targets[kept]


class LearningRule(StrictConfig):
    """Base of all rules; a subclass names itself and overrides the steps that it has to do with.

    Class attributes:
        name: What the configuration calls it.
        tap: Whether ``forward`` and ``backward`` act on the output of a site or on its input.
        changes_function: Whether ``forward`` or ``replace`` change what the model computes in
            evaluation, too; such a rule belongs to the model and is attached wherever it is used.
        exact_gradient: Whether what it computes has its true gradient (tests hold it to that).
        compiles: Whether it works under ``torch.compile``.

    Args:
        sites: Patterns of the places where it acts (see :mod:`domainformer.training.rules.sites`);
            empty for rules of the update.

    Example:
        >>> class Half(LearningRule):
        ...     name: ClassVar[str] = "half"
        ...     sites: tuple[str, ...] = ("blocks.*.mlp",)
        ...     def forward(self, value, at, state, moment):
        ...         return value / 2, state
        >>> Half().steps
        ('forward',)
    """

    name: ClassVar[str] = ""
    tap: ClassVar[Literal["output", "input"]] = "output"
    changes_function: ClassVar[bool] = False
    exact_gradient: ClassVar[bool] = False
    compiles: ClassVar[bool] = False

    sites: tuple[str, ...] = ()

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps that this rule has to do with."""
        return tuple(
            step for step in STEPS if getattr(type(self), step) is not getattr(LearningRule, step)
        )

    def init(self, model: nn.Module, sites: Sequence[Site]) -> State:
        """What the rule remembers before the first step: tensors, numbers, texts, lists, dicts."""
        return {}

    def forward(
        self, value: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """Change a value at a site; the shape stays."""
        return value, state

    def replace(
        self, at: Site, original: Callable[..., Any], state: State, moment: Moment
    ) -> Callable[..., Any]:
        """What shall be called in place of the site's forward.

        ``state`` stays the same dictionary until the rule is detached; what is remembered is
        changed in place.
        """
        return original

    def backward(
        self, gradient: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """Change the gradient at a site; the shape stays."""
        return gradient, state

    def update(
        self, gradients: Gradients, state: State, parameters: Parameters, moment: Moment
    ) -> tuple[Gradients, State]:
        """Change the gradients of the weights, by name, before the optimizer sees them."""
        return gradients, state

    def optimizer(
        self, model: nn.Module, *, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer | None:
        """The optimizer, where the rule brings one; ``None`` leaves it to others."""
        return None

    def after_step(self, parameters: Parameters, state: State, moment: Moment) -> State:
        """Look at, or change in place, the weights after a step (gradients are off)."""
        return state

    def evaluation_weights(
        self, parameters: Parameters, state: State
    ) -> Mapping[str, torch.Tensor] | None:
        """Weights to evaluate and keep in place of the trained ones, such as an average."""
        return None

    def auxiliary_loss(
        self, seen: Seen, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """A scalar that is added to the loss (a mean over targets, like the loss)."""
        return seen.logits.new_zeros(()), state

    def metrics(self, state: State) -> dict[str, float]:
        """Numbers for the log."""
        return {}

    @contextlib.contextmanager
    def around(
        self, model: nn.Module, sites: Sequence[Site], slot: Slot, moment: Moment
    ) -> Iterator[None]:
        """For what hooks at sites cannot do: change the model, and undo it on leaving."""
        yield
