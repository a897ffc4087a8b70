"""What the baselines share: a budget that is checked once, and a rank that is cut at it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from domainformer.errors import VisionError
from domainformer.models.vision.allocator import top_tokens
from domainformer.models.vision.request import CompressionRequest, Selection


class Baseline(ABC):
    """A way of choosing image tokens that learns nothing.

    ``needs_budget`` is whether it must be told how many tokens to keep: a baseline has no opinion
    of its own, apart from the oracle and from keeping everything.
    """

    needs_budget: ClassVar[bool] = True

    @abstractmethod
    def select(self, request: CompressionRequest) -> Selection:
        """Choose the tokens of each image that the language model will see."""


class Ranker(Baseline):
    """A baseline that gives every token a score and keeps the highest ones.

    ``scores`` does not depend on the budget, so one call serves several: ``cut`` is the cheap part.
    """

    @abstractmethod
    def scores(self, request: CompressionRequest) -> tuple[Tensor, ...]:
        """One ``[K_i]`` per image; the higher, the longer a token stays."""

    def select(self, request: CompressionRequest) -> Selection:
        """Keep the tokens of the highest score, in raster order; ties go to the lower index."""
        return self.cut(request, self.scores(request))

    def cut(self, request: CompressionRequest, scores: tuple[Tensor, ...]) -> Selection:
        """Apply the request's budgets to scores that :meth:`scores` has given before."""
        budgets = token_budgets(request, type(self).__name__)
        kept = tuple(top_tokens(score, k) for score, k in zip(scores, budgets, strict=True))
        return Selection(kept=kept, scores=scores)


def token_budgets(request: CompressionRequest, who: str) -> tuple[int, ...]:
    """The tokens to keep per image, never more than the image has.

    Args:
        request: the request; its ``budgets`` must be there, one per image, each at least 1.
        who: the selector that asks, for the message.

    Raises:
        VisionError: no budgets, another number of them than images, or one below 1.
    """
    counts, budgets = request.images.counts, request.budgets
    if budgets is None:
        raise VisionError(
            f"{who} needs to be told how many tokens to keep",
            where="CompressionRequest.budgets",
            why="it ranks or pools tokens, and has no rule for their number",
            next_step="give budgets=, or use a selector with a dynamic budget",
        )
    if len(budgets) != len(counts) or any(budget < 1 for budget in budgets):
        raise VisionError(
            f"{len(counts)} images were given the budgets {tuple(budgets)}",
            where="CompressionRequest.budgets",
            why="every image needs one budget of at least one token",
            next_step="give one positive number per image",
        )
    return tuple(min(int(k), count) for k, count in zip(budgets, counts, strict=True))


def evenly_spaced(count: int, k: int) -> Tensor:
    """Indices at equal distances: of ``count``, the middles of k equal stretches.

    Example:
        >>> evenly_spaced(8, 4)
        tensor([1, 3, 5, 7])
        >>> evenly_spaced(5, 5)
        tensor([0, 1, 2, 3, 4])
    """
    return (torch.arange(k) * 2 + 1) * count // (2 * k)


def alike(request: CompressionRequest, budgets: tuple[int, ...]) -> Iterator[tuple[list[int], int]]:
    """Groups of images with as many tokens and the same budget: each is one stacked computation.

    Nothing is padded, so that an image's answer cannot depend on its batch mates.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for index, key in enumerate(zip(request.images.counts, budgets, strict=True)):
        groups.setdefault(key, []).append(index)
    for (_, k), members in groups.items():
        yield members, k
