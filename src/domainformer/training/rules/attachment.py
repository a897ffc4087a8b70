"""Attaching rules to a model for a while, and taking them off without residue.

::

    with attach(chain(...), model, seed=0) as attached:
        optimizer = attached.make_optimizer(learning_rate=1e-3, weight_decay=0.1) or mine
        attached.bind(optimizer)                     # gradients before, weights after each step
        loss = attached.add_auxiliary(loss, logits, targets, inputs)

At one site, ``forward`` steps act in the order of the rules, and so do ``backward`` steps on the
gradient that arrives there; ``replace`` wraps what earlier rules left.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from domainformer.errors import CheckpointError, RuleError
from domainformer.training.rules.base import (
    Clock,
    LearningRule,
    Moment,
    Seen,
    Site,
    Slot,
    State,
)
from domainformer.training.rules.chain import Chain, chain
from domainformer.training.rules.finite import all_finite, made_by

_CHAIN = "chain"


class Attached:
    """Rules on a model; made by :func:`attach`.

    Args:
        rule: A rule or a chain.
        model: The model.
        seed: Of everything that the rules draw.
    """

    def __init__(self, rule: LearningRule, model: nn.Module, *, seed: int = 0) -> None:
        self.rules: Chain = chain(rule)
        self.model = model
        self.clock = Clock(seed=seed)
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._sites = self.rules.sites_of(model)
        self._states: dict[str, State] = {_CHAIN: self.rules.init(model, ())}
        self._values: dict[str, dict[str, torch.Tensor]] = {}
        self._optimizer_hooks: list[Any] = []

    @property
    def state(self) -> State:
        """The states of all rules, by key."""
        return self._states[_CHAIN]

    @property
    def adds_loss(self) -> bool:
        """Whether a rule adds to the loss."""
        return "auxiliary_loss" in self.rules.steps

    # In the model

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Put everything in place; on leaving, the model is as it was."""
        slot = Slot(self._states, _CHAIN)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.rules.around(self.model, (), slot, Moment(self.clock)))
            for key, rule in self.rules.keyed:
                if "replace" in rule.steps:
                    self._replace(key, rule, stack)
                if "forward" in rule.steps:
                    self._hook(key, rule, stack, self._forward)
            # The tap that is put on last meets the gradient first.
            for key, rule in reversed(self.rules.keyed):
                if "backward" in rule.steps:
                    self._hook(key, rule, stack, self._backward)
            for key, rule in self.rules.keyed:
                if "auxiliary_loss" in rule.steps and rule.sites:
                    self._hook(key, rule, stack, self._keep)
            yield

    def _replace(self, key: str, rule: LearningRule, stack: contextlib.ExitStack) -> None:
        moment, state = Moment(self.clock, key), self.state[key]
        for site in self._sites[key]:
            own = site.module.__dict__.get("forward")
            site.module.forward = rule.replace(site, site.module.forward, state, moment)
            stack.callback(_restore, site.module, own)

    def _hook(
        self,
        key: str,
        rule: LearningRule,
        stack: contextlib.ExitStack,
        make: Callable[[str, LearningRule, Site], Callable[[torch.Tensor], torch.Tensor]],
    ) -> None:
        for site in self._sites[key]:
            change = make(key, rule, site)
            handle = (
                site.module.register_forward_hook(_on_output(change, rule, site))
                if rule.tap == "output"
                else site.module.register_forward_pre_hook(_on_input(change, rule, site))
            )
            stack.callback(handle.remove)

    def _forward(
        self, key: str, rule: LearningRule, site: Site
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        moment, slot = Moment(self.clock, key), Slot(self.state, key)

        def change(value: torch.Tensor) -> torch.Tensor:
            if not (site.module.training or rule.changes_function):
                return value
            slot.owner = self.state
            changed, slot.state = rule.forward(value, site, slot.state, moment)
            self._check(value, changed, rule, site, "value")
            return changed

        return _eager(change)

    def _backward(
        self, key: str, rule: LearningRule, site: Site
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        moment, slot = Moment(self.clock, key), Slot(self.state, key)

        def change(gradient: torch.Tensor) -> torch.Tensor:
            slot.owner = self.state
            changed, slot.state = rule.backward(gradient, site, slot.state, moment)
            self._check(gradient, changed, rule, site, "gradient")
            return changed

        return _eager(
            lambda value: GradientTap.apply(value, change) if value.requires_grad else value
        )

    def _keep(
        self, key: str, rule: LearningRule, site: Site
    ) -> Callable[[torch.Tensor], torch.Tensor]:
        def keep(value: torch.Tensor) -> torch.Tensor:
            if site.module.training:
                self._values.setdefault(key, {})[site.path] = value
            return value

        return _eager(keep)

    def _check(
        self, before: torch.Tensor, after: Any, rule: LearningRule, site: Site, what: str
    ) -> None:
        if not isinstance(after, torch.Tensor) or after.shape != before.shape:
            found = tuple(after.shape) if isinstance(after, torch.Tensor) else type(after).__name__
            raise RuleError(
                f"the rule {rule.name!r} changed the shape of a {what}",
                where=site.path,
                why=f"it was given {tuple(before.shape)} and gave back {found}",
                next_step="a rule gives back a tensor of the shape that it was given",
            )
        if self.clock.checking and not all_finite([after]) and all_finite([before]):
            raise made_by(rule, what, where=site.path, moment=Moment(self.clock))

    # Loss and weights

    def add_auxiliary(
        self,
        loss: torch.Tensor,
        logits: torch.Tensor | None,
        targets: torch.Tensor,
        inputs: Mapping[str, Any],
    ) -> torch.Tensor:
        """The loss with the terms of all rules.

        Args:
            loss: Of the model.
            logits: Scores [B, L, V]; a model that copies gives none while it trains.
            targets: What each position shall say, ids [B, L]; −100 is nothing.
            inputs: The batch.

        Raises:
            RuleError: A rule needs logits and there are none.
        """
        if not self.adds_loss:
            return loss
        if logits is None:
            raise RuleError(
                "rules that add to the loss need the model's logits",
                why="a model with copy heads gives none while it trains",
                next_step="train with copy_heads: 0, or without these rules",
            )
        seen = Seen(self.model, logits, targets, inputs, self._values)
        added, self._states[_CHAIN] = self.rules.auxiliary_loss(
            seen, self.state, Moment(self.clock)
        )
        self._values = {}
        return loss + added.to(loss.dtype)

    def make_optimizer(
        self, *, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer | None:
        """The optimizer that a rule brings, or None."""
        return self.rules.optimizer(
            self.model, learning_rate=learning_rate, weight_decay=weight_decay
        )

    def bind(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the rules see gradients before and weights after each step of an optimizer.

        Every step also moves the clock on.
        """
        if "update" in self.rules.steps:
            self._optimizer_hooks.append(optimizer.register_step_pre_hook(self._before_step))
        self._optimizer_hooks.append(optimizer.register_step_post_hook(self._after_step))

    def _before_step(self, *_: Any) -> None:
        given = {n: p.grad for n, p in self.parameters.items() if p.grad is not None}
        with torch.no_grad():
            changed, self._states[_CHAIN] = self.rules.update(
                dict(given), self.state, self.parameters, Moment(self.clock)
            )
        for name, gradient in given.items():
            new = changed.get(name)
            if new is None or new.shape != gradient.shape:
                raise RuleError(
                    "the rules lost or reshaped a gradient of the weights",
                    where=name,
                    next_step="update gives back every gradient that it was given, in its shape",
                )
            if new is not gradient:
                self.parameters[name].grad = new

    def _after_step(self, *_: Any) -> None:
        if "after_step" in self.rules.steps:
            with torch.no_grad():
                self._states[_CHAIN] = self.rules.after_step(
                    self.parameters, self.state, Moment(self.clock)
                )
        self.clock.step += 1
        self.clock.micro = 0
        self.clock.checking = False

    @contextlib.contextmanager
    def evaluating(self) -> Iterator[None]:
        """Inside, the model has the weights to evaluate with, where a rule keeps an average."""
        weights = self.rules.evaluation_weights(self.parameters, self.state)
        if weights is None:
            yield
            return
        trained = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._load(weights)
        try:
            yield
        finally:
            self._load(trained)

    def keep_evaluation_weights(self) -> None:
        """Give the model the weights to evaluate with for good, at the end of training."""
        weights = self.rules.evaluation_weights(self.parameters, self.state)
        if weights is not None:
            self._load(weights)

    def _load(self, weights: Mapping[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                self.parameters[name].copy_(value)

    # State

    def metrics(self) -> dict[str, float]:
        """Numbers of all rules, for the log."""
        return self.rules.metrics(self.state)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rules remember, for a checkpoint."""
        return {"step": self.clock.step, "seed": self.clock.seed, "rules": self.state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: It was written with other rules.
        """
        if list(state["rules"]) != list(self.state):
            raise CheckpointError(
                "the checkpoint was written with other learning rules",
                why=f"it has {', '.join(state['rules']) or 'none'}; "
                f"this run has {', '.join(self.state) or 'none'}",
                next_step="resume with the rules that the run was started with",
            )
        self.clock.step, self.clock.seed = int(state["step"]), int(state["seed"])
        self.clock.micro, self.clock.checking = 0, True
        # In place: operations that a rule replaced hold the dictionary of their state.
        for key, own in self.state.items():
            own.clear()
            own.update(copy.deepcopy(dict(state["rules"][key])))

    def __enter__(self) -> Attached:
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(self.installed())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for handle in self._optimizer_hooks:
            handle.remove()
        self._optimizer_hooks = []
        self._values = {}


def attach(rule: LearningRule, model: nn.Module, *, seed: int = 0) -> Attached:
    """Rules on a model, for the duration of a ``with`` block.

    Args:
        rule: A rule, or a :func:`~domainformer.training.rules.chain` of rules.
        model: Any module; sites are looked up in it.
        seed: Of everything that the rules draw.

    Raises:
        RuleError: A pattern of sites matches nothing.

    Example:
        >>> class Half(LearningRule):
        ...     sites: tuple[str, ...] = ("1",)
        ...     def forward(self, value, at, state, moment):
        ...         return value / 2, state
        >>> model = nn.Sequential(nn.Identity(), nn.Identity())
        >>> with attach(Half(), model):
        ...     model(torch.tensor([4.0]))
        tensor([2.])
        >>> model(torch.tensor([4.0]))
        tensor([4.])
    """
    return Attached(rule, model, seed=seed)


class GradientTap(torch.autograd.Function):
    """The identity, with a gradient that somebody may change on its way back."""

    @staticmethod
    def forward(
        ctx: Any, value: torch.Tensor, change: Callable[[torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        """Hand the value on."""
        ctx.change = change
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        """Hand the changed gradient on."""
        return ctx.change(gradients[0]), None


def _eager(
    change: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    # Compiled, draws and counts would be traced once and repeated; between two compiled graphs,
    # a rule does what it does without compilation.
    apart: Callable[[torch.Tensor], torch.Tensor] = torch.compiler.disable(change)
    return apart


def _on_output(
    change: Callable[[torch.Tensor], torch.Tensor], rule: LearningRule, site: Site
) -> Callable[..., Any]:
    def hook(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # attention gives its weights, too
            return (change(output[0]), *output[1:])
        if not isinstance(output, torch.Tensor):
            raise _no_tensor(rule, site, f"its output is a {type(output).__name__}")
        return change(output)

    return hook


def _on_input(
    change: Callable[[torch.Tensor], torch.Tensor], rule: LearningRule, site: Site
) -> Callable[..., Any]:
    def hook(module: nn.Module, args: tuple[Any, ...]) -> Any:
        if not args or not isinstance(args[0], torch.Tensor):
            raise _no_tensor(rule, site, "it is called with keywords, or with something else")
        return (change(args[0]), *args[1:])

    return hook


def _no_tensor(rule: LearningRule, site: Site, why: str) -> RuleError:
    return RuleError(
        f"the rule {rule.name!r} finds no tensor as the {rule.tap} of its site",
        where=site.path,
        why=why,
        next_step="choose a block, or a module inside one",
    )


def _restore(module: nn.Module, own: Callable[..., Any] | None) -> None:
    if own is None:
        del module.forward
    else:
        module.forward = own
