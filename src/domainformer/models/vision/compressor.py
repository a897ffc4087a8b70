"""``RelevanceCompressor``: the learned choice of image tokens, from what is known to what stays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from domainformer.errors import VisionError
from domainformer.models.vision.allocator import kept_tokens
from domainformer.models.vision.balancer import TensionBalancer
from domainformer.models.vision.compressor_config import CompressorConfig
from domainformer.models.vision.coupling import CouplingScorer
from domainformer.models.vision.layout import TokenLayout, pad
from domainformer.models.vision.merging import merge_dropped
from domainformer.models.vision.reading import read_together
from domainformer.models.vision.request import CompressionRequest, Selection
from domainformer.models.vision.scorers import InformationScorer, SalienceScorer, Scorer


@dataclass(frozen=True)
class Scored:
    """Differentiable scores of a batch, and how they were mixed.

    Args:
        scores: one ``[K_i]`` float32 per image; above 0: relevant by itself.
        weights: ``[N, S]``, the weight of each scorer per image.
        scorers: the scorers' names, in the order of ``weights``.
    """

    scores: tuple[Tensor, ...]
    weights: Tensor
    scorers: tuple[str, ...]

    @property
    def mixing(self) -> tuple[dict[str, float], ...]:
        """The weights by name, per image."""
        rows = self.weights.detach().tolist()
        return tuple(dict(zip(self.scorers, row, strict=True)) for row in rows)


class RelevanceCompressor(nn.Module):
    """Scores an image's tokens for a question, and keeps the best: the learned ``TokenSelector``.

    ::

        features, question ─▶ information, salience, coupling ─▶ balance ─▶ scores
                                                       budget ─▶ allocate ─▶ kept indices

    :meth:`score` is differentiable and is trained through a gate
    (:func:`~domainformer.models.vision.gates.threshold_gate`); :meth:`select` is hard. An image's
    scores depend on its own tokens and question alone, whatever else is in the batch.

    Args:
        config: what it is built from.

    Example:
        >>> from domainformer.models.vision import ImageTokens
        >>> compressor = RelevanceCompressor(CompressorConfig(feature_size=16, width=16))
        >>> images = ImageTokens((torch.randn(12, 16),), grids=((3, 4),), rows=(0,))
        >>> request = CompressionRequest(images, queries=(torch.randn(5, 16),), budgets=(4,))
        >>> compressor.select(request).counts
        (4,)
    """

    def __init__(self, config: CompressorConfig) -> None:
        super().__init__()
        self.config = config
        size, query_size = config.feature_size, config.query_size or config.feature_size
        self.query_size = query_size
        build: dict[str, Callable[[], Scorer]] = {
            "information": lambda: InformationScorer(size),
            "salience": lambda: SalienceScorer(size),
            "coupling": lambda: CouplingScorer(
                size, query_size, config.width, config.heads, use_query=config.use_query
            ),
        }
        self.scorers = nn.ModuleDict({name: build[name]() for name in config.scorers})
        self.balancer = TensionBalancer(query_size, config.scorers, use_query=config.use_query)

    def score(self, request: CompressionRequest) -> Scored:
        """Scores of every token, differentiable in the compressor's parameters.

        Raises:
            VisionError: a request that contradicts itself or this compressor, or a question
                without a word.
        """
        self._check(request)
        parameter = self.balancer.mixing.weight
        device, dtype = parameter.device, parameter.dtype
        features, _ = pad([each.to(device, dtype) for each in request.images.features])
        queries, padding = pad([each.to(device, dtype) for each in request.queries])
        query_mask = None if len({len(each) for each in request.queries}) == 1 else padding
        layout = TokenLayout.of_grids(tuple(request.images.grids), device)
        known = self._known(features, queries, query_mask, layout)
        balanced = self.balancer(
            torch.stack(known, dim=1), queries, mask=layout.padding_mask, query_mask=query_mask
        )
        counts = request.images.counts
        scores = tuple(row[:count] for row, count in zip(balanced.scores, counts, strict=True))
        return Scored(scores, balanced.weights, self.config.scorers)

    @torch.no_grad()
    def select(self, request: CompressionRequest) -> Selection:
        """Keep as many tokens as ``request.budgets`` says, or as relevance asks.

        A given budget is obeyed as far as the image has tokens; a dynamic one stays within
        ``min_tokens`` and ``max_tokens``.

        Raises:
            VisionError: as :meth:`score`, or scores that are not finite.
        """
        scored = self.score(request)
        if not bool(torch.isfinite(torch.cat(scored.scores)).all()):
            raise VisionError(
                "the scores of image tokens are not finite numbers",
                why="the tower's features, the text embeddings or the weights hold NaN or infinity",
                next_step="look at the features first; a half-precision tower may overflow",
            )
        if request.budgets is not None:
            kept = tuple(
                kept_tokens(score, budget, self.config.context)
                for score, budget in zip(scored.scores, request.budgets, strict=True)
            )
        else:
            padded, mask = pad(scored.scores)
            budgets = self.config.calculator(padded, mask).tolist()
            kept = self.config.allocator(scored.scores, budgets)
        features, deepstack = self._merged(request, kept) if self.config.merge else (None, None)
        return Selection(kept, features, deepstack, scored.scores, scored.mixing)

    def _known(
        self, features: Tensor, queries: Tensor, query_mask: Tensor | None, layout: TokenLayout
    ) -> list[Tensor]:
        """What each scorer says, ``[N, K]``; without gradient they read in one product."""
        scorers = self._scorers()
        reads = [each.reads() for each in scorers]
        read = read_together(features, [one for each in reads for one in each])
        if read is None:
            return [each.score(features, queries, query_mask, layout).float() for each in scorers]
        parts = iter(read)
        return [
            scorer.judge([next(parts) for _ in each], queries, query_mask, layout)
            for scorer, each in zip(scorers, reads, strict=True)
        ]

    def _scorers(self) -> list[Scorer]:
        return [scorer for scorer in self.scorers.values() if isinstance(scorer, Scorer)]

    def _merged(
        self, request: CompressionRequest, kept: tuple[Tensor, ...]
    ) -> tuple[tuple[Tensor, ...], tuple[tuple[Tensor, ...], ...] | None]:
        """The kept features with the dropped ones averaged in, and the deepstack by layer."""
        images = request.images
        merged = [
            merge_dropped(
                feature,
                index.to(feature.device),
                deepstack=[layer[image] for layer in images.deepstack],
            )
            for image, (feature, index) in enumerate(zip(images.features, kept, strict=True))
        ]
        features = tuple(each.features for each in merged)
        layers = range(len(images.deepstack))
        deepstack = tuple(tuple(each.deepstack[layer] for each in merged) for layer in layers)
        return features, deepstack or None

    def _check(self, request: CompressionRequest) -> None:
        images, queries = request.images, request.queries
        count = len(images.features)
        budgets = count if request.budgets is None else len(request.budgets)
        if not count or not count == len(images.grids) == len(queries) == budgets:
            raise VisionError(
                "a compression request needs one grid, question and budget per image",
                why=f"{count} images, {len(images.grids)} grids, {len(queries)} questions, "
                f"{budgets} budgets",
            )
        for index, (feature, grid, query) in enumerate(
            zip(images.features, images.grids, queries, strict=True)
        ):
            self._check_image(f"image {index}", feature, grid, query)

    def _check_image(
        self, where: str, feature: Tensor, grid: tuple[int, int], query: Tensor
    ) -> None:
        rows, columns = grid
        if tuple(feature.shape) != (rows * columns, self.config.feature_size) or not len(feature):
            raise VisionError(
                "the image's features do not fit its grid or this compressor",
                where=where,
                why=f"features {tuple(feature.shape)}, grid {rows} × {columns}, "
                f"feature_size {self.config.feature_size}",
            )
        if query.dim() != 2 or query.shape[-1] != self.query_size:
            raise VisionError(
                "the question's embeddings do not fit this compressor",
                where=where,
                why=f"they are {tuple(query.shape)}; it wants [words, {self.query_size}]",
            )
        if not len(query) and self.config.use_query:
            raise VisionError(
                "the question has no word to choose image tokens for",
                where=where,
                next_step="ask a question, or use a selector that reads none",
            )
