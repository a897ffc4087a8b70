"""Noise on a gradient that fades as training goes on."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from domainformer.training.rules.base import LearningRule, Moment, Site, State


class GradientNoise(LearningRule):
    r"""Gaussian noise on the gradient at a site, annealed over the steps.

    .. math:: g' = g + \sigma_t\,\varepsilon,\qquad \sigma_t^2 = \frac{\eta}{(1 + t)^\gamma}

    Helps very deep models off bad starts. Gradients at a site are as small as the batch is large,
    so that σ counts in units of their root mean square where ``relative``; the paper adds noise to
    the gradients of the weights, in absolute units.

    Args:
        sites: Where.
        eta: Variance at step 0; 0 adds nothing.
        gamma: How fast it fades.
        relative: Whether σ is multiplied by the root mean square of the gradient.

    Source: Neelakantan et al., Adding Gradient Noise Improves Learning for Very Deep Networks,
    2015, section 3 (η from {0.01, 0.3, 1.0}, γ = 0.55).

    Example:
        >>> rule = GradientNoise(eta=0.3)
        >>> [round(rule.deviation(step), 3) for step in (0, 100, 10_000)]
        [0.548, 0.154, 0.044]
    """

    name: ClassVar[str] = "gradient_noise"
    compiles: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*",)
    eta: float = Field(0.01, ge=0)
    gamma: float = Field(0.55, ge=0)
    relative: bool = True

    def deviation(self, step: int) -> float:
        """The standard deviation σ at a step."""
        return float((self.eta / (1 + step) ** self.gamma) ** 0.5)

    def backward(
        self, gradient: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """The gradient with noise."""
        if self.eta == 0:
            return gradient, state
        noise = torch.empty(gradient.shape, dtype=torch.float32, device=gradient.device)
        noise.normal_(generator=moment.generator(at, gradient.device))
        size: float | torch.Tensor = self.deviation(moment.step)
        if self.relative:
            size = size * gradient.float().square().mean().sqrt()
        return gradient + (size * noise).to(gradient.dtype), state
