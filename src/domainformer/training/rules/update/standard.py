"""AdamW and SGD: torch's own optimizers, with groups of parameters named by pattern."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import nn

from domainformer.training.rules.base import LearningRule
from domainformer.training.rules.update.groups import GroupSettings, make_groups

Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamW(LearningRule):
    """Adam with decoupled weight decay, in torch's fused kernel.

    ::

        m ← β₁ m + (1 − β₁) g        v ← β₂ v + (1 − β₂) g²
        w ← w − lr · λ w − lr · m̂ / (√v̂ + ε)        m̂ = m / (1 − β₁ᵗ), v̂ = v / (1 − β₂ᵗ)

    What the engine does without any rule, with other betas or with groups of its own.

    Args:
        betas: Memory of the mean and of the square.
        eps: Added to the root.
        learning_rate: Peak; None takes the run's.
        weight_decay: Of matrices; None takes the run's.
        groups: Parameters with settings of their own.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, algorithm 2.

    Example:
        >>> rule = AdamW(groups=({"parameters": ["0"], "learning_rate": 0.1},))
        >>> model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
        >>> optimizer = rule.optimizer(model, learning_rate=1e-3, weight_decay=0.1)
        >>> [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
        [(0.1, 0.0), (0.001, 0.1), (0.001, 0.0)]
    """

    name: ClassVar[str] = "adamw"
    compiles: ClassVar[bool] = True
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    learning_rate: float | None = Field(default=None, ge=0)
    weight_decay: float | None = Field(default=None, ge=0)
    groups: tuple[GroupSettings, ...] = ()

    def optimizer(
        self, model: nn.Module, *, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """Torch's AdamW over the groups."""
        groups = make_groups(
            model,
            self.groups,
            learning_rate=_own(self.learning_rate, learning_rate),
            weight_decay=_own(self.weight_decay, weight_decay),
            rule=self.name,
        )
        return torch.optim.AdamW(groups, betas=self.betas, eps=self.eps, fused=True)


class SGD(LearningRule):
    """Stochastic gradient descent with momentum and decoupled weight decay.

    ::

        m ← μ m + g
        w ← w − lr · λ w − lr · (g + μ m  if nesterov else  m)

    The baseline of all others; with ``sign_of_gradient`` before it, signSGD.

    Args:
        momentum: μ; 0 keeps no state.
        nesterov: Look ahead along the momentum.
        learning_rate: Peak; None takes the run's, which is often too low for SGD.
        weight_decay: Of matrices; None takes the run's.
        groups: Parameters with settings of their own.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep learning",
    ICML 2013, equations 3 and 4; the decay as in algorithm 1 of Loshchilov and Hutter, ICLR 2019.

    Example:
        >>> optimizer = SGD(momentum=0).optimizer(
        ...     nn.Linear(1, 1, bias=False), learning_rate=0.5, weight_decay=0)
        >>> weight = optimizer.param_groups[0]["params"][0]
        >>> _ = nn.init.ones_(weight)
        >>> weight.grad = torch.ones(1, 1)
        >>> _ = optimizer.step()
        >>> weight.item()
        0.5
    """

    name: ClassVar[str] = "sgd"
    compiles: ClassVar[bool] = True
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = True
    learning_rate: float | None = Field(default=None, ge=0)
    weight_decay: float | None = Field(default=None, ge=0)
    groups: tuple[GroupSettings, ...] = ()

    def optimizer(
        self, model: nn.Module, *, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """Momentum over the groups."""
        groups = make_groups(
            model,
            self.groups,
            learning_rate=_own(self.learning_rate, learning_rate),
            weight_decay=_own(self.weight_decay, weight_decay),
            rule=self.name,
        )
        return DecoupledSGD(
            groups, momentum=self.momentum, nesterov=self.nesterov and self.momentum > 0
        )


class DecoupledSGD(torch.optim.SGD):
    """Torch's SGD with a decay that does not go through the momentum."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Decay, then move along the momentum."""
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            if group["weight_decay"] and moved:
                torch._foreach_mul_(moved, 1.0 - group["lr"] * group["weight_decay"])
            group["weight_decay"] = 0.0
        try:
            super().step()
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay


def _own(value: float | None, of_run: float) -> float:
    return of_run if value is None else value
