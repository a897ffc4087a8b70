"""What a way of choosing image tokens is asked, and what it answers.

Every selector, the learned one and each baseline, has one method::

    select(CompressionRequest) -> Selection

so that a comparison changes the selector and nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

Grid = tuple[int, int]
"""Rows and columns of one image's tokens, after the tower has merged its patches."""


@dataclass(frozen=True)
class ImageTokens:
    """The tower's answer for all images of a batch, each on its own.

    Args:
        features: one ``[K_i, D]`` per image, in raster order.
        grids: ``(rows, columns)`` per image, with ``rows * columns == K_i``.
        rows: the row of the batch in which each image stands.
        deepstack: one tuple per deepstack layer (Qwen3-VL), each with one ``[K_i, D]`` per
            image; empty for other families.
    """

    features: tuple[Tensor, ...]
    grids: tuple[Grid, ...]
    rows: tuple[int, ...]
    deepstack: tuple[tuple[Tensor, ...], ...] = ()

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens per image."""
        return tuple(len(feature) for feature in self.features)

    def like(self, tensor: Tensor) -> Self:
        """The same on the device of a tensor and in its precision."""
        deepstack = tuple(tuple(each.to(tensor) for each in layer) for layer in self.deepstack)
        features = tuple(each.to(tensor) for each in self.features)
        return replace(self, features=features, deepstack=deepstack)


@dataclass(frozen=True)
class CompressionRequest:
    """One batch of images with the question that each is read for.

    Args:
        images: what the tower made of the images.
        queries: one ``[Q_i, D]`` per image: the embeddings of the question's text alone, without
            image placeholders and without a token of the answer.
        budgets: tokens to keep per image; None leaves the number to the selector.
        base: the opened model (``VisionBase``), for selectors that look inside it.
        inputs: the full inputs of the model, for the same (``input_ids``, ``attention_mask``,
            ``position_ids``, ``pixel_values``, ``image_grid_thw``, ...).
        relevant: the indices that matter per image, where the data knows them (the oracle's).
        generator: the source of chance for selectors that draw.
    """

    images: ImageTokens
    queries: tuple[Tensor, ...]
    budgets: tuple[int, ...] | None = None
    base: Any = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    relevant: tuple[Tensor, ...] | None = None
    generator: torch.Generator | None = None


@dataclass(frozen=True)
class Selection:
    """The tokens that stay, per image.

    Args:
        kept: one ``[k_i]`` int64 tensor per image: indices into its tokens, ascending (raster
            order). A token keeps the position of its index.
        features: one ``[k_i, D]`` per image where the kept tokens were changed (pooled, merged);
            None: the tower's features are gathered.
        deepstack: as ``features``, for the deepstack layers; None: gathered.
        scores: one ``[K_i]`` per image, where the selector ranks.
        mixing: per image, the weight of each way of knowing, where the selector mixes.
    """

    kept: tuple[Tensor, ...]
    features: tuple[Tensor, ...] | None = None
    deepstack: tuple[tuple[Tensor, ...], ...] | None = None
    scores: tuple[Tensor, ...] | None = None
    mixing: tuple[dict[str, float], ...] | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens kept per image."""
        return tuple(len(kept) for kept in self.kept)


@runtime_checkable
class TokenSelector(Protocol):
    """Anything that chooses tokens: the learned compressor, a baseline, your own."""

    def select(self, request: CompressionRequest) -> Selection:
        """Choose the tokens of each image that the language model will see."""
        ...
