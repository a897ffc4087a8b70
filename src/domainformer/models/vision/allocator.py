"""The hard selection: which tokens stay, in raster order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from domainformer.errors import ConfigError, VisionError


def top_tokens(scores: Tensor, count: int) -> Tensor:
    """The ``count`` highest scores of one image as ascending indices, ties to the lower index.

    Args:
        scores: ``[K]``.
        count: at least 1; more than K means all.

    Example:
        >>> import torch
        >>> top_tokens(torch.tensor([1.0, 5.0, 5.0, 0.0, 5.0]), 2).tolist()
        [1, 2]
    """
    if count < 1:
        raise VisionError(
            "a budget of no tokens leaves the model without its image",
            why=f"the budget is {count}",
            next_step="keep at least one token per image",
        )
    ranked = scores.detach().sort(stable=True, descending=True).indices
    return ranked[:count].sort().values


def kept_tokens(scores: Tensor, count: int, context: float = 0.0) -> Tensor:
    """What one image's question asks for, and the budget's rest as context: ascending indices.

    ::

        odds     1 .9 .8 .3 .2 .2 .1 .1 0 0        exp(score − best score); count 5, context 0.5
        kept     ■  ■  ■                ■ ■        3 were asked for, 2 are context

    Next to the token that a question means, the next best ones are those that it is confused with,
    and a model that reads few tokens confuses them more than one that reads all. So a token that
    is far less relevant than the best gives its place to one that is clearly not meant
    (docs/vision.md has the figures).

    Args:
        scores: ``[K]``, logarithms of odds.
        count: at least 1; more than K means all.
        context: least odds, as a share of the best token's, to be kept by rank; the rest of the
            count goes to the lowest scores. 0: all by rank.

    Example:
        >>> import torch
        >>> odds = torch.tensor([1, 0.9, 0.8, 0.3, 0.2, 0.2, 0.1, 0.1, 0.02, 0.01])
        >>> kept_tokens(odds.log(), 5, context=0.5).tolist()
        [0, 1, 2, 8, 9]

    Source: the cut relative to the best is that of min-p sampling (Nguyen et al., ICLR 2025).
    """
    if context <= 0 or not 1 <= count < len(scores):
        return top_tokens(scores, count)
    values, ranked = scores.detach().float().sort(stable=True, descending=True)
    asked = min(count, int((values >= values[0] + math.log(context)).sum()))
    lowest = ranked[len(ranked) - (count - asked) :]
    return torch.cat([ranked[:asked], lowest]).sort().values


@dataclass(frozen=True)
class TokenAllocator:
    """Hard selection per image, with a number of tokens that the model's owner bounds.

    An image with fewer than ``min_tokens`` tokens is kept whole.

    Args:
        min_tokens: the fewest to keep, at least 1.
        max_tokens: the most to keep.
        context: least odds of a token beside the best one's, see :func:`kept_tokens`.

    Raises:
        ConfigError: bounds that leave nothing between them, or a context outside 0 ≤ c ≤ 1.

    Example:
        >>> import torch
        >>> allocator = TokenAllocator(min_tokens=2, max_tokens=3)
        >>> kept = allocator([torch.arange(6.0), torch.ones(1)], [5, 1])
        >>> [k.tolist() for k in kept]
        [[3, 4, 5], [0]]
    """

    min_tokens: int = 64
    max_tokens: int = 400
    context: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.min_tokens <= self.max_tokens:
            raise ConfigError(
                "the bounds of a token budget must hold 1 ≤ min_tokens ≤ max_tokens",
                why=f"min_tokens={self.min_tokens}, max_tokens={self.max_tokens}",
            )

        if not 0 <= self.context <= 1:
            raise ConfigError(
                "context is a share of the best token's odds, from 0 to 1",
                why=f"context={self.context}",
            )

    def bounded(self, budget: int, tokens: int) -> int:
        """The budget within the bounds and within what the image has."""
        return min(max(budget, self.min_tokens), self.max_tokens, tokens)

    def __call__(self, scores: Sequence[Tensor], budgets: Sequence[int]) -> tuple[Tensor, ...]:
        """Indices per image, ascending int64, for scores ``[K_i]`` and wished budgets."""
        if len(scores) != len(budgets):
            raise VisionError(
                "there must be one budget per image",
                why=f"{len(budgets)} budgets for {len(scores)} images",
            )
        return tuple(
            kept_tokens(score, self.bounded(budget, len(score)), self.context)
            for score, budget in zip(scores, budgets, strict=True)
        )
