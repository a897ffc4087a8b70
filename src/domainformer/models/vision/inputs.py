"""What a user gave, read and checked: budgets, grids, names of inputs, and no videos."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from domainformer.errors import VisionError, nearest
from domainformer.models.vision.request import ImageTokens

if TYPE_CHECKING:
    from domainformer.models.vision.capabilities import VisionBase

Budgets = int | float | Sequence[int | float] | None
"""Tokens (int) or a share of an image's tokens (float up to 1), for all images or each."""

_NAMES = (
    "input_ids",
    "attention_mask",
    "mm_token_type_ids",
    "position_ids",
    "labels",
    "pixel_values",
    "image_grid_thw",
    "images",
    "budgets",
    "query_mask",
    "relevant",
    "generator",
)
_VIDEO = ("pixel_values_videos", "video_grid_thw", "second_per_grid_ts")


def resolve_budgets(budgets: Budgets, counts: Sequence[int]) -> tuple[int, ...] | None:
    """Budgets as tokens per image, each at least 1 and at most what the image has.

    Args:
        budgets: tokens (int) or a share up to 1 (float), one for all images or one for each.
        counts: tokens per image.

    Raises:
        VisionError: another number of budgets than images, or one that is not above 0.

    Example:
        >>> resolve_budgets(0.25, (16, 64)), resolve_budgets([4, 900], (16, 64))
        ((4, 16), (4, 64))
    """
    if budgets is None:
        return None
    given: Any = budgets.tolist() if isinstance(budgets, Tensor) else budgets
    many = isinstance(given, Iterable) and not isinstance(given, str)
    each: list[Any] = list(given) if many else [given] * len(counts)
    if len(each) != len(counts):
        raise VisionError(
            f"there are {len(each)} budgets for {len(counts)} images",
            where="budgets",
            next_step="give one for all images, or one for each",
        )
    wrong = [item for item in each if not _is_budget(item)]
    if wrong:
        raise VisionError(
            f"{wrong[0]!r} is no budget",
            where="budgets",
            next_step="give a number of tokens from 1, or a share above 0 and up to 1.0",
        )
    pairs = zip(each, counts, strict=True)
    tokens = [(round(item * k) if _is_share(item) else int(item), k) for item, k in pairs]
    return tuple(min(max(item, 1), k) for item, k in tokens)


def _is_budget(item: Any) -> bool:
    """A number of tokens from 1, or a share above 0 and up to 1; NaN, texts and truths are not."""
    if isinstance(item, bool) or not isinstance(item, numbers.Real):
        return False
    value = float(item)
    return math.isfinite(value) and value > 0 and not (_is_share(item) and value > 1)


def _is_share(item: Any) -> bool:
    return not isinstance(item, numbers.Integral)


def patch_grids(base: VisionBase, images: ImageTokens, device: torch.device) -> Tensor:
    """``[N, 3]``: one frame, and the grid of each image in patches."""
    grids = [(1, rows * base.merge, columns * base.merge) for rows, columns in images.grids]
    return torch.tensor(grids, device=device).reshape(-1, 3)


def refuse_videos(base: VisionBase, inputs: Mapping[str, Any], input_ids: Tensor | None) -> None:
    """Say that videos are not compressed, where there are any.

    Raises:
        VisionError: inputs of a video, or its placeholders.
    """
    named = [name for name in _VIDEO if inputs.get(name) is not None]
    kinds = inputs.get("mm_token_type_ids")
    named += ["mm_token_type_ids"] * bool(kinds is not None and (kinds == 2).any())
    if input_ids is not None and base.video_token_id is not None:
        named += ["input_ids"] * bool((input_ids == base.video_token_id).any())
    if named:
        raise VisionError(
            "videos are not compressed",
            where=named[0],
            why="budgets and positions are those of single images",
            next_step="give frames as images, or call the model itself",
        )


def known_inputs(base: VisionBase) -> frozenset[str]:
    """Names that a request takes: its own, and those of the model's tower."""
    tower = inspect.signature(base.model.get_image_features).parameters
    return frozenset({*_NAMES, *_VIDEO, *tower}) - {"kwargs"}


def refuse_unknown(base: VisionBase, inputs: Mapping[str, Any]) -> None:
    """Refuse a name that would be passed over in silence.

    Raises:
        VisionError: it is neither an input nor one of the tower.
    """
    known = known_inputs(base)
    for name in inputs:
        if name not in known:
            raise VisionError(
                f"there is no input {name!r}",
                where=name,
                why="it would be passed over in silence",
                next_step=f"{nearest(name, known)} Arguments of the model's own forward go into "
                "options={}",
            )
