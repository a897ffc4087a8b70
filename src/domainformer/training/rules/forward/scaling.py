"""Constant factors on residual branches and norms, that may depend on depth."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field

from domainformer.training.rules.base import LearningRule, Moment, Site, State
from domainformer.training.rules.forward.depth import depth_of


class _DepthScaling(LearningRule):
    """``y = s·l^(−q)·x`` in block l, from 1."""

    changes_function: ClassVar[bool] = True
    exact_gradient: ClassVar[bool] = True
    compiles: ClassVar[bool] = True

    scale: float = Field(default=1.0, ge=-100, le=100)
    depth_power: float = Field(default=0.0, ge=0, le=4)

    def factor(self, at: Site) -> float:
        """s·l^(−q)."""
        if self.depth_power == 0:
            return self.scale
        return float(self.scale * depth_of(at, rule=self.name) ** -self.depth_power)

    def forward(
        self, value: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """Scale; a factor of 1 leaves the value itself."""
        factor = self.factor(at)
        return (value if factor == 1 else value * factor), state


class ResidualScaling(_DepthScaling):
    """Scale what a branch adds to the residual stream: ``x + s·l^(−q)·branch(x)`` in block l.

    A small constant starts every block near the identity, as ReZero's and LayerScale's factors do
    at their start (there they are learned; here the projections that follow learn around it). With
    ``depth_power: 0.5`` the sum of N branches keeps its variance from growing like N.

    Source: arXiv 2003.04887 (ReZero), section 3; arXiv 2103.17239 (LayerScale), section 2.

    Args:
        scale: s, 1 is none.
        depth_power: q, 0 is the same factor in all blocks.

    Example:
        >>> rule = ResidualScaling(scale=2.0, depth_power=0.5)
        >>> rule.factor(Site("model.layers.3.mlp", torch.nn.Identity(), 0))
        1.0
    """

    name: ClassVar[str] = "residual_scaling"
    sites: tuple[str, ...] = ("blocks.*.attention", "blocks.*.mlp")


class NormScaling(_DepthScaling):
    """Scale the output of each norm by ``s·l^(−q)``, by default 1/√l, in block l.

    In pre-norm models the variance of the stream grows with depth, until late blocks hardly
    change it; scaled norms hold that growth back.

    Source: arXiv 2502.05795 (LayerNorm scaling, "The curse of depth"), section 4.

    Args:
        scale: s.
        depth_power: q.

    Example:
        >>> NormScaling().factor(Site("model.layers.3.mlp_norm", torch.nn.Identity(), 0))
        0.5
    """

    name: ClassVar[str] = "norm_scaling"
    # …_norm, …layernorm (Llama, Qwen) and ln_1 (GPT-2), but neither attn nor attention.
    sites: tuple[str, ...] = ("blocks.*.*n[o_]*",)
    depth_power: float = Field(default=0.5, ge=0, le=4)
