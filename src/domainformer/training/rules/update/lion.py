"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from domainformer.training.rules.base import LearningRule
from domainformer.training.rules.update.groups import GroupSettings, make_groups
from domainformer.training.rules.update.standard import Beta


class Lion(LearningRule):
    """Every weight moves by the learning rate, in the direction of a momentum.

    ::

        w ← w − lr · λ w − lr · sign(β₁ m + (1 − β₁) g)
        m ← β₂ m + (1 − β₂) g

    Half the memory of AdamW. Its authors take a learning rate 3 to 10 times lower than AdamW's and
    a decay that is as many times higher.

    Args:
        betas: Weight of the momentum in the step, and its memory.
        learning_rate: Peak; None takes the run's.
        weight_decay: Of matrices; None takes the run's.
        groups: Parameters with settings of their own.

    Source: Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023, program 1.

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(model.weight)
        >>> optimizer = Lion().optimizer(model, learning_rate=0.25, weight_decay=0)
        >>> model.weight.grad = torch.full((1, 1), 1e-6)
        >>> optimizer.step()
        >>> model.weight.item()
        0.75
    """

    name: ClassVar[str] = "lion"
    compiles: ClassVar[bool] = True
    betas: tuple[Beta, Beta] = (0.9, 0.99)
    learning_rate: float | None = Field(default=None, ge=0)
    weight_decay: float | None = Field(default=None, ge=0)
    groups: tuple[GroupSettings, ...] = ()

    def optimizer(
        self, model: nn.Module, *, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """Lion over the groups."""
        groups = make_groups(
            model,
            self.groups,
            learning_rate=learning_rate if self.learning_rate is None else self.learning_rate,
            weight_decay=weight_decay if self.weight_decay is None else self.weight_decay,
            rule=self.name,
        )
        return LionOptimizer(groups, betas=self.betas)


class LionOptimizer(torch.optim.Optimizer):
    """Lion; see :class:`Lion`.

    Args:
        params: Groups, each with ``lr`` and ``weight_decay`` of its own.
        betas: Of groups that have none of their own.
    """

    def __init__(
        self, params: Iterable[dict[str, Any]], betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        super().__init__(params, {"lr": 1e-4, "weight_decay": 0.0, "betas": betas})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of all parameters that have gradients."""
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if not moved:
                continue
            gradients = [p.grad for p in moved]
            momenta = [momentum_of(self.state[p], p) for p in moved]
            beta1, beta2 = group["betas"]
            directions = torch._foreach_lerp(momenta, gradients, 1.0 - beta1)
            torch._foreach_sign_(directions)
            torch._foreach_lerp_(momenta, gradients, 1.0 - beta2)
            if group["weight_decay"]:
                torch._foreach_mul_(moved, 1.0 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(moved, directions, alpha=-group["lr"])


def momentum_of(state: dict[str, Any], parameter: torch.Tensor) -> torch.Tensor:
    """The momentum that an optimizer keeps for a parameter; zeros at the first step."""
    if "momentum" not in state:
        state["momentum"] = torch.zeros_like(parameter)
    momentum: torch.Tensor = state["momentum"]
    return momentum
