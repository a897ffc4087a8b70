"""The hard selection: which tokens stay, in raster order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class TokenAllocator:
    """Hard top-k per image, with a number of tokens that the model's owner bounds.

    An image with fewer than ``min_tokens`` tokens is kept whole.

    Args:
        min_tokens: the fewest to keep, at least 1.
        max_tokens: the most to keep.

    Raises:
        ConfigError: bounds that leave nothing between them.

    Example:
        >>> import torch
        >>> allocator = TokenAllocator(min_tokens=2, max_tokens=3)
        >>> kept = allocator([torch.arange(6.0), torch.ones(1)], [5, 1])
        >>> [k.tolist() for k in kept]
        [[3, 4, 5], [0]]
    """

    min_tokens: int = 64
    max_tokens: int = 400

    def __post_init__(self) -> None:
        if not 1 <= self.min_tokens <= self.max_tokens:
            raise ConfigError(
                "the bounds of a token budget must hold 1 ≤ min_tokens ≤ max_tokens",
                why=f"min_tokens={self.min_tokens}, max_tokens={self.max_tokens}",
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
            top_tokens(score, self.bounded(budget, len(score)))
            for score, budget in zip(scores, budgets, strict=True)
        )
