"""Selectors that look at neither the image nor the question, and the two ends of the scale.

Random and evenly spaced tokens are the first thing that a published method must beat, and most do
so narrowly. The oracle and the full model bound what any method can reach.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from domainformer.errors import VisionError
from domainformer.models.vision.baselines.selector import (
    Baseline,
    Ranker,
    evenly_spaced,
    token_budgets,
)
from domainformer.models.vision.request import CompressionRequest, Selection


class RandomTokens(Ranker):
    """Tokens drawn without replacement, every subset equally likely.

    Args:
        seed: where the draw starts if the request brings no generator; every call then draws alike.

    Example:
        >>> from domainformer.models.vision.request import ImageTokens
        >>> images = ImageTokens((torch.zeros(4, 2),), ((2, 2),), (0,))
        >>> RandomTokens().select(CompressionRequest(images, (), budgets=(2,))).counts
        (2,)
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def scores(self, request: CompressionRequest) -> tuple[Tensor, ...]:
        """A uniform number for every token."""
        generator = request.generator or torch.Generator().manual_seed(self.seed)
        return tuple(
            torch.rand(len(tokens), generator=generator, device=generator.device).to(tokens.device)
            for tokens in request.images.features
        )


class StrideTokens(Baseline):
    """Every n-th token of the raster, beginning half a stride in.

    Example:
        >>> from domainformer.models.vision.request import ImageTokens
        >>> images = ImageTokens((torch.zeros(9, 2),), ((3, 3),), (0,))
        >>> StrideTokens().select(CompressionRequest(images, (), budgets=(3,))).kept
        (tensor([1, 4, 7]),)
    """

    def select(self, request: CompressionRequest) -> Selection:
        """Keep tokens at equal distances along the raster."""
        budgets = token_budgets(request, type(self).__name__)
        return Selection(
            kept=tuple(
                evenly_spaced(len(tokens), k).to(tokens.device)
                for tokens, k in zip(request.images.features, budgets, strict=True)
            )
        )


class AllTokens(Baseline):
    """No compression: the full model in the interface of a selector. A budget is ignored."""

    needs_budget: ClassVar[bool] = False

    def select(self, request: CompressionRequest) -> Selection:
        """Keep everything."""
        return Selection(
            kept=tuple(
                torch.arange(len(tokens), device=tokens.device)
                for tokens in request.images.features
            )
        )


class OracleTokens(Baseline):
    """The tokens that the data says the answer needs: what a perfect selector could reach.

    With a larger budget the rest is filled up at equal distances along the raster; with a smaller
    one the relevant tokens are thinned out evenly. Without a budget exactly the relevant tokens
    stay (one, where none matters).

    Example:
        >>> from domainformer.models.vision.request import ImageTokens
        >>> images = ImageTokens((torch.zeros(9, 2),), ((3, 3),), (0,))
        >>> request = CompressionRequest(images, (), relevant=(torch.tensor([7, 2]),))
        >>> OracleTokens().select(request).kept
        (tensor([2, 7]),)
    """

    needs_budget: ClassVar[bool] = False

    def select(self, request: CompressionRequest) -> Selection:
        """Keep the relevant tokens first.

        Raises:
            VisionError: the request does not say what is relevant, or names tokens that an image
                does not have.
        """
        counts = request.images.counts
        relevant = request.relevant
        if relevant is None or len(relevant) != len(counts):
            raise VisionError(
                "the oracle was not told which tokens matter",
                where="CompressionRequest.relevant",
                why=f"{len(counts)} images, {len(relevant or ())} sets of relevant tokens",
                next_step="give `relevant` in the questions, or leave the oracle out",
            )
        budgets: tuple[int | None, ...] = (None,) * len(counts)
        if request.budgets is not None:
            budgets = token_budgets(request, type(self).__name__)
        return Selection(
            kept=tuple(
                _known(indices, len(tokens), k).to(tokens.device)
                for indices, tokens, k in zip(
                    relevant, request.images.features, budgets, strict=True
                )
            )
        )


def _known(indices: Tensor, count: int, k: int | None) -> Tensor:
    needed = indices.detach().cpu().long().unique()
    if len(needed) and (needed[0] < 0 or needed[-1] >= count):
        raise VisionError(
            f"token {int(needed[-1])} is called relevant in an image of {count} tokens",
            where="CompressionRequest.relevant",
            next_step="count tokens in raster order after the tower has merged its patches",
        )
    k = max(1, len(needed)) if k is None else k
    if k <= len(needed):
        return needed[evenly_spaced(len(needed), k)]
    others = torch.ones(count, dtype=torch.bool)
    others[needed] = False
    rest = others.nonzero().squeeze(1)
    return torch.cat([needed, rest[evenly_spaced(len(rest), k - len(needed))]]).sort().values
