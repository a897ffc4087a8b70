"""Gaussian noise on activations."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from domainformer.training.rules.base import Moment, Site, State
from domainformer.training.rules.forward.timing import TimedRule


class ActivationNoise(TimedRule):
    """Gaussian noise, added to a value while the model trains.

    ``y = x + σ·ε`` (absolute), or ``y = x + σ·rms(x)·ε`` (relative, rms over the last axis), with
    ``ε ~ N(0, 1)``. Noise makes the loss flat around the weights that are found: to first order it
    adds σ²/2 times the trace of the loss' curvature. Relative noise needs no tuning to the width
    of the stream.

    Source: C. M. Bishop, "Training with noise is equivalent to Tikhonov regularization", Neural
    Computation 7 (1995), section 2; on embeddings of language models: arXiv 2310.05914.

    Args:
        std: σ, 0 is none.
        relative: Whether σ counts in units of each token's own rms.

    Example:
        >>> from domainformer.training.rules.base import Clock
        >>> rule = ActivationNoise(std=0.5, relative=False)
        >>> site = Site("mlp", torch.nn.Identity(), 0)
        >>> noisy, _ = rule.forward(torch.zeros(1000), site, {}, Moment(Clock(seed=0)))
        >>> round(float(noisy.std()), 1)
        0.5
    """

    name: ClassVar[str] = "activation_noise"
    exact_gradient: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*.mlp",)
    std: float = Field(default=0.1, ge=0, le=100)
    relative: bool = True

    def forward(
        self, value: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """Add noise."""
        if self.std == 0 or not self.acts(moment):
            return value, state
        generator = moment.generator(at, value.device)
        noise = torch.randn(
            value.shape, generator=generator, device=value.device, dtype=value.dtype
        )
        if self.relative:
            # Within the root, so that a token of zeros has a gradient, too.
            tiny = torch.finfo(value.dtype).tiny
            noise = noise * (value.square().mean(-1, keepdim=True) + tiny).sqrt()
        return value + self.std * noise, state
