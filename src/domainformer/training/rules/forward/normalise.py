"""Norms without weights, at any site."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field

from domainformer.training.rules.base import LearningRule, Moment, Site, State


class ActivationNorm(LearningRule):
    """Norm a value over its last axis, without weights of its own.

    ``rms``: ``y = g·x/√(mean(x²) + ε)``; ``layer``: the same after the mean is taken off. At the
    outputs of branches it makes a sandwich norm: each branch then adds the same amount to the
    stream, whatever its weights.

    Source: arXiv 1910.07467 (RMSNorm), section 3; sandwich: arXiv 2105.13290 (CogView), section
    2.4; both norms around a branch: arXiv 2408.00118 (Gemma 2), section 2.

    Args:
        kind: Which norm.
        gain: g.
        epsilon: ε.

    Example:
        >>> site = Site("mlp", torch.nn.Identity(), 0)
        >>> y, _ = ActivationNorm().forward(torch.tensor([3.0, -3.0]), site, {}, None)
        >>> [round(float(number), 3) for number in y]
        [1.0, -1.0]
    """

    name: ClassVar[str] = "activation_norm"
    changes_function: ClassVar[bool] = True
    exact_gradient: ClassVar[bool] = True
    compiles: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*.attention", "blocks.*.mlp")
    kind: Literal["rms", "layer"] = "rms"
    gain: float = Field(default=1.0, gt=0)
    epsilon: float = Field(default=1e-6, gt=0)

    def forward(
        self, value: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """Norm."""
        if self.kind == "layer":
            value = value - value.mean(-1, keepdim=True)
        return self.gain * rms_norm(value, self.epsilon), state


def rms_norm(value: torch.Tensor, epsilon: float) -> torch.Tensor:
    """``x/√(mean(x²) + ε)`` over the last axis, worked out in at least float32.

    Example:
        >>> rms_norm(torch.tensor([2.0, -2.0]), 0.0).tolist()
        [1.0, -1.0]
    """
    exact = value.to(torch.promote_types(value.dtype, torch.float32))
    return (exact * (exact.square().mean(-1, keepdim=True) + epsilon).rsqrt()).to(value.dtype)
