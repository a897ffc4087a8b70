"""Averages of the weights over the steps, which evaluation takes in place of the weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn

from domainformer.training.rules.base import LearningRule, Moment, Parameters, State


def trained_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of the trainable weights, by name."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


class EMAWeights(LearningRule):
    """An exponential average of the weights, for evaluation and for the finished model.

    ::

        a ← a + (w − a) · (1 − β) / (1 − βᵗ)        t counts the averaged steps

    The factor is that of an average from zero divided by its bias: the first average is the first
    weights, and until t is about 1 / (1 − β) it is nearly the plain mean. Training itself stays
    bit-identical. Does most where the learning rate does not go to zero.

    Args:
        decay: β; 0 is the weights themselves.
        start: Optimizer steps before the first average.
        every: Steps between averages; β counts averages.

    Source: Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992; the
    correction: Kingma and Ba, "Adam", ICLR 2015, section 3.

    Example:
        >>> from domainformer.training.rules import attach
        >>> model = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> _ = nn.init.zeros_(model.weight)
        >>> with attach(EMAWeights(decay=0.5), model) as attached:
        ...     attached.bind(optimizer)
        ...     for _ in range(2):
        ...         model.weight.grad = -torch.ones(1, 1)
        ...         optimizer.step()
        ...     with attached.evaluating():
        ...         print(round(model.weight.item(), 4))       # (1·0.25 + 2·0.5) / 0.75
        1.6667
    """

    name: ClassVar[str] = "ema_weights"
    compiles: ClassVar[bool] = True
    decay: float = Field(default=0.99, ge=0, lt=1)
    start: int = Field(default=0, ge=0)
    every: int = Field(default=1, ge=1)

    def init(self, model: nn.Module, sites: object) -> State:
        """No average yet."""
        return {"steps": 0, "count": 0, "average": {}}

    def after_step(self, parameters: Parameters, state: State, moment: Moment) -> State:
        """Move the average towards the weights."""
        steps, count, average = state["steps"] + 1, state["count"], state["average"]
        if steps > self.start and (steps - self.start - 1) % self.every == 0:
            count += 1
            if count == 1:
                average = {name: p.detach().clone() for name, p in parameters.items()}
            else:
                weight = (1.0 - self.decay) / (1.0 - self.decay**count)
                torch._foreach_lerp_(_beside(average, parameters), _data(parameters), weight)
        return {"steps": steps, "count": count, "average": average}

    def evaluation_weights(
        self, parameters: Parameters, state: State
    ) -> Mapping[str, torch.Tensor] | None:
        """The average, from the first one on."""
        return state["average"] or None


class Lookahead(LearningRule):
    """Every k steps the weights go back a part of the way that they came.

    ::

        every k steps:  slow ← slow + α (w − slow),   w ← slow

    Steadies an optimizer with a large learning rate; its state is kept. Evaluation takes the slow
    weights, as in the paper.

    Args:
        every: k.
        alpha: α; 1 leaves training as it is.

    Source: Zhang et al., "Lookahead optimizer: k steps forward, 1 step back", NeurIPS 2019,
    algorithm 1.

    Example:
        >>> from domainformer.training.rules import attach
        >>> model = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> _ = nn.init.zeros_(model.weight)
        >>> with attach(Lookahead(every=2, alpha=0.5), model) as attached:
        ...     attached.bind(optimizer)
        ...     for _ in range(2):
        ...         model.weight.grad = -torch.ones(1, 1)
        ...         optimizer.step()
        >>> model.weight.item()
        1.0
    """

    name: ClassVar[str] = "lookahead"
    compiles: ClassVar[bool] = True
    every: int = Field(default=5, ge=1)
    alpha: float = Field(default=0.5, gt=0, le=1)

    def init(self, model: nn.Module, sites: object) -> State:
        """The slow weights are those that training starts from."""
        return {"steps": 0, "slow": trained_weights(model)}

    def after_step(self, parameters: Parameters, state: State, moment: Moment) -> State:
        """Every k steps, move the slow weights and go there."""
        steps, slow = state["steps"] + 1, state["slow"]
        if steps % self.every == 0:
            kept, weights = _beside(slow, parameters), _data(parameters)
            torch._foreach_lerp_(kept, weights, self.alpha)
            torch._foreach_copy_(weights, kept)
        return {"steps": steps, "slow": slow}

    def evaluation_weights(
        self, parameters: Parameters, state: State
    ) -> Mapping[str, torch.Tensor] | None:
        """The slow weights."""
        slow: Mapping[str, torch.Tensor] = state["slow"]
        return slow


class ScheduleFree(LearningRule):
    """Averaging in place of a learning-rate schedule, around any optimizer.

    ::

        z ← z + Δ                    Δ: what the optimizer did to the weights y
        x ← x + c (z − x)            c = γₜ² tʳ / Σ γₛ² sʳ,   γₜ = min(1, t / warmup)
        y ← z + β (x − z)            gradients are taken at y, evaluation at x

    Use it with a constant learning rate (``warmup`` tells how it rises, for the weights of the
    average), and with an optimizer whose own momentum is off, such as
    ``adamw: {betas: [0.0, 0.95]}``: β takes its place.

    Args:
        beta: β; 0 is plain averaging, near one averages the gradients' places, too.
        power: r; larger forgets the start sooner.
        warmup: Steps in which the learning rate rises linearly.

    Source: Defazio et al., "The road less scheduled", NeurIPS 2024, equations 3 to 5 and
    section 4 (warm-up).

    Example:
        >>> from domainformer.training.rules import attach
        >>> model = nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> _ = nn.init.zeros_(model.weight)
        >>> with attach(ScheduleFree(beta=0.5), model) as attached:
        ...     attached.bind(optimizer)
        ...     for _ in range(2):
        ...         model.weight.grad = -torch.ones(1, 1)
        ...         optimizer.step()
        ...     with attached.evaluating():
        ...         print(model.weight.item())                         # the mean of z = 1, 2
        1.5
        >>> model.weight.item()
        1.75
    """

    name: ClassVar[str] = "schedule_free"
    compiles: ClassVar[bool] = True
    beta: float = Field(default=0.9, ge=0, lt=1)
    power: float = Field(default=0.0, ge=0)
    warmup: int = Field(default=0, ge=0)

    def init(self, model: nn.Module, sites: object) -> State:
        """Both are the weights that training starts from."""
        return {"steps": 0, "total": 0.0, "x": trained_weights(model), "z": trained_weights(model)}

    def after_step(self, parameters: Parameters, state: State, moment: Moment) -> State:
        """Give the optimizer's move to z, and go to the new y."""
        steps = state["steps"] + 1
        rise = min(1.0, steps / self.warmup) if self.warmup else 1.0
        weight = rise**2 * steps**self.power
        total = state["total"] + weight
        x, z = (_beside(state[which], parameters) for which in ("x", "z"))
        weights = _data(parameters)
        # The same operation on the same numbers as after the last step: the same y, bit for bit.
        moves = torch._foreach_sub(weights, torch._foreach_lerp(z, x, self.beta))
        torch._foreach_add_(z, moves)
        torch._foreach_lerp_(x, z, weight / total)
        torch._foreach_copy_(weights, torch._foreach_lerp(z, x, self.beta))
        return {**state, "steps": steps, "total": total}

    def evaluation_weights(
        self, parameters: Parameters, state: State
    ) -> Mapping[str, torch.Tensor] | None:
        """The average x."""
        average: Mapping[str, torch.Tensor] = state["x"]
        return average


def _data(parameters: Parameters) -> list[torch.Tensor]:
    return [p.data for p in parameters.values()]


def _beside(kept: dict[str, torch.Tensor], parameters: Parameters) -> list[torch.Tensor]:
    """Kept weights in the order of the parameters, and on their devices.

    A checkpoint is read onto the processor, wherever the model is.
    """
    for name, p in parameters.items():
        if kept[name].device != p.device:
            kept[name] = kept[name].to(p.device)
    return [kept[name] for name in parameters]
