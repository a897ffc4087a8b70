"""Between the ways of knowing: how much each counts for this question, and where zero lies.

Shape legend: N images, S scorers, K tokens, Q words, E query features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from domainformer.errors import ConfigError, VisionError
from domainformer.models.vision.coupling import importance_pool
from domainformer.models.vision.layout import standardise

SHIFT: Final = 16.0
"""How much faster the shift of all scores learns than their ranking: a budget has to be found
without forgetting what is relevant."""


@dataclass(frozen=True)
class Balanced:
    """Mixed scores, and the weights that mixed them.

    Args:
        scores: ``[..., K]``; a token is relevant by itself where its score is above 0.
        weights: ``[..., S]``, summing to 1.
    """

    scores: Tensor
    weights: Tensor


class TensionBalancer(nn.Module):
    """Mixes the scorers' standardised scores as the question asks.

    ::

        s_k = exp(tanh a(q)) Σ_i w_i(q) z_ik + 16 b(q)      w = softmax, z standardised per image

    The scale stays between 1/e and e: an unbounded one could shrink as a gate's temperature falls,
    and keep for ever soft what the schedule is meant to harden. The weights start in favour of
    ``coupling`` (0.8 of three); a and b start near 0, so that a score has a spread of about 1 and
    about half of the tokens lie above 0.

    Args:
        query_size: E.
        scorers: their names, in the order of the scores.
        width: of the question's summary.
        use_query: False: the question is replaced by one learned vector.

    Raises:
        ConfigError: no scorers.

    Example:
        >>> balancer = TensionBalancer(8, ("information", "coupling"))
        >>> balanced = balancer(torch.randn(2, 6), torch.randn(3, 8))
        >>> balanced.scores.shape, balanced.weights.shape
        (torch.Size([6]), torch.Size([2]))
    """

    def __init__(
        self, query_size: int, scorers: Sequence[str], width: int = 32, *, use_query: bool = True
    ) -> None:
        super().__init__()
        if not scorers:
            raise ConfigError("there is nothing to balance without a scorer")
        self.scorers = tuple(scorers)
        self.constant = None if use_query else nn.Parameter(torch.randn(1, query_size))
        self.words = nn.Sequential(
            nn.LayerNorm(query_size), nn.Linear(query_size, width), nn.GELU()
        )
        self.importance = nn.Linear(width, 1, bias=False)
        self.mixing = nn.Linear(width, len(self.scorers))
        self.scale_and_bias = nn.Linear(width, 2)
        with torch.no_grad():
            others = max(len(self.scorers) - 1, 1)
            self.mixing.weight.mul_(0.1)
            self.mixing.bias.zero_()
            if "coupling" in self.scorers:
                self.mixing.bias[self.scorers.index("coupling")] = math.log(4 * others)
            self.scale_and_bias.weight.mul_(0.1)
            self.scale_and_bias.bias.zero_()

    def forward(
        self,
        scores: Tensor,
        query: Tensor,
        *,
        mask: Tensor | None = None,
        query_mask: Tensor | None = None,
    ) -> Balanced:
        """Mix ``[..., S, K]`` into ``[..., K]``.

        Args:
            scores: ``[..., S, K]`` of the scorers, in any units.
            query: ``[..., Q, E]``.
            mask: ``[..., K]`` bool, False on padding (whose score is 0).
            query_mask: ``[..., Q]`` bool, False on padding.

        Raises:
            VisionError: another number of scorers.
        """
        if scores.dim() < 2 or scores.shape[-2] != len(self.scorers):
            raise VisionError(
                f"{len(self.scorers)} scorers are balanced: {', '.join(self.scorers)}",
                why=f"the scores have the shape {tuple(scores.shape)}",
                next_step="give [..., scorers, tokens]",
            )
        leading, tokens = scores.shape[:-2], scores.shape[-1]
        asked = self._summary(query, query_mask).expand(*leading, -1)
        weights = self.mixing(asked).float().softmax(-1)
        scale, bias = self.scale_and_bias(asked).float().split(1, dim=-1)
        known = standardise(scores.float(), None if mask is None else mask.unsqueeze(-2))
        mixed = (weights.unsqueeze(-2) @ known).squeeze(-2)
        balanced = scale.tanh().exp() * mixed + SHIFT * bias
        if mask is not None:
            balanced = balanced.masked_fill(~mask, 0.0)
        return Balanced(balanced.reshape(*leading, tokens), weights)

    def _summary(self, query: Tensor, query_mask: Tensor | None) -> Tensor:
        """One vector of the question, ``[..., width]``."""
        if self.constant is not None:
            query, query_mask = self.constant.expand(*query.shape[:-2], 1, -1), None
        words = self.words(query).reshape(-1, query.shape[-2], self.importance.in_features)
        query_mask = None if query_mask is None else query_mask.reshape(words.shape[:2])
        pooled = importance_pool(words, self.importance(words), query_mask)
        return pooled.reshape(*query.shape[:-2], -1)
