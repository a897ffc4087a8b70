"""Full inputs and a selection, to the inputs of the shortened sequence.

::

    full       B <i> <i> <i> <i> what is ?      kept = (0, 3)
    shortened  B <i>         <i> what is ?      features[[0, 3]], positions[:, :, columns]

Rows that keep different numbers are padded again, on the side of the full batch. Dropping a token
so is the same as masking it in the full sequence, up to rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from domainformer.errors import VisionError
from domainformer.models.vision.compressed import CompressedInputs
from domainformer.models.vision.positions import (
    Positions,
    check_policy,
    shorten_positions,
)
from domainformer.models.vision.queries import IGNORED_LABEL
from domainformer.models.vision.request import CompressionRequest, ImageTokens, Selection

if TYPE_CHECKING:
    from domainformer.models.vision.capabilities import VisionBase

Side = Literal["left", "right"]


def realize(
    base: VisionBase,
    request: CompressionRequest,
    selection: Selection,
    *,
    positions: Positions = "original",
    padding_side: Side | None = None,
) -> CompressedInputs:
    """The inputs that a selection leaves of a request's.

    Args:
        base: the opened model.
        request: with the full ``inputs``: ``input_ids``, ``position_ids`` as
            :meth:`VisionBase.rope_positions` gives them, perhaps ``attention_mask`` and ``labels``.
        selection: the tokens that stay, from any selector.
        positions: ``"original"`` keeps every token where it stood; ``"compact"`` counts anew.
        padding_side: of the shortened batch; that of the full batch by default.

    Raises:
        VisionError: the selection does not fit the images, or positions are missing.
    """
    check_policy(positions)
    check_selection(selection, request.images)
    ids = request.inputs["input_ids"]
    mask = _mask(request.inputs)
    full = request.inputs.get("position_ids")
    if full is None:
        raise VisionError(
            "the positions of the full sequence are missing",
            where="request.inputs['position_ids']",
            why="they cannot be told from a shortened one",
            next_step="compute them by VisionBase.rope_positions",
        )
    keep = _kept_columns(base, ids, mask, request.images, selection)
    columns, short = _pack(keep, padding_side or padding_side_of(mask))
    padding = short == 0
    labels = request.inputs.get("labels")
    input_ids = ids.gather(-1, columns).masked_fill(padding, base.pad_token_id)
    features, deepstack = _kept_features(request.images, selection)
    return CompressedInputs(
        input_ids=input_ids,
        attention_mask=short,
        position_ids=shorten_positions(full, columns, short, positions),
        mm_token_type_ids=(input_ids == base.image_token_id).long(),
        columns=columns.masked_fill(padding, -1),
        features=features,
        selection=selection,
        images=request.images,
        deepstack=deepstack,
        labels=None
        if labels is None
        else labels.gather(-1, columns).masked_fill(padding, IGNORED_LABEL),
    )


def full_inputs(base: VisionBase, request: CompressionRequest) -> CompressedInputs:
    """The same with every token kept, at its column of the full batch.

    Args:
        base: the opened model.
        request: as for :func:`realize`, of the realizer's ``request``.
    """
    ids, mask, images = request.inputs["input_ids"], _mask(request.inputs), request.images
    columns = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    every = (torch.arange(len(each), device=each.device) for each in images.features)
    return CompressedInputs(
        input_ids=ids,
        attention_mask=mask,
        position_ids=request.inputs["position_ids"],
        mm_token_type_ids=(ids == base.image_token_id).long(),
        columns=columns.masked_fill(mask == 0, -1),
        features=images.features,
        selection=Selection(tuple(every)),
        images=images,
        deepstack=images.deepstack,
        labels=request.inputs.get("labels"),
    )


def padding_side_of(attention_mask: Tensor) -> Side:
    """``"left"`` where a row begins with padding and none ends with it.

    Example:
        >>> padding_side_of(torch.tensor([[0, 1, 1], [1, 1, 1]]))
        'left'
    """
    starts, ends = bool((attention_mask[:, 0] == 0).any()), bool((attention_mask[:, -1] == 0).any())
    return "left" if starts and not ends else "right"


def check_selection(selection: Selection, images: ImageTokens) -> None:
    """Refuse a selection that is not ascending indices into each image's tokens.

    Raises:
        VisionError: the number of images, an index, the order or the number of features is wrong.
    """
    problem = None
    if len(selection.kept) != len(images.features):
        problem = f"it holds {len(selection.kept)} images of {len(images.features)}"
    for index, (kept, count) in enumerate(zip(selection.kept, images.counts, strict=False)):
        if kept.ndim != 1 or len(kept) == 0:
            problem = f"it keeps no token of image {index}"
        elif bool((kept.diff() <= 0).any()) or int(kept[0]) < 0 or int(kept[-1]) >= count:
            problem = f"image {index}: the indices do not ascend within 0 … {count - 1}"
        elif selection.features is not None and len(selection.features[index]) != len(kept):
            problem = f"image {index}: {len(selection.features[index])} features for {len(kept)}"
    if problem:
        raise VisionError(
            "the selection does not fit the images",
            where="Selection.kept",
            why=problem,
            next_step="return, per image, indices in raster order, at least one",
        )


def _mask(inputs: Mapping[str, Any]) -> Tensor:
    mask = inputs.get("attention_mask")
    return torch.ones_like(inputs["input_ids"]) if mask is None else mask


def _kept_columns(
    base: VisionBase, ids: Tensor, mask: Tensor, images: ImageTokens, selection: Selection
) -> Tensor:
    """``[B, S]`` bool: text that is no padding, and the kept image tokens."""
    flat = torch.zeros(sum(images.counts), dtype=torch.bool, device=ids.device)
    start = 0
    for kept, count in zip(selection.kept, images.counts, strict=True):
        flat[start + kept.to(ids.device)] = True
        start += count
    placeholder = ids == base.image_token_id
    return (mask.bool() & ~placeholder).masked_scatter(placeholder, flat)


def _pack(keep: Tensor, side: Side) -> tuple[Tensor, Tensor]:
    """Columns of the kept tokens ``[B, S']``, in order, and their mask; padding on one side."""
    longest = int(keep.sum(-1).max())
    order = keep.long().argsort(dim=-1, stable=True, descending=side == "right")
    columns = order[:, -longest:] if side == "left" else order[:, :longest]
    return columns, keep.long().gather(-1, columns)


def _kept_features(
    images: ImageTokens, selection: Selection
) -> tuple[tuple[Tensor, ...], tuple[tuple[Tensor, ...], ...]]:
    def gather(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        pairs = zip(parts, selection.kept, strict=True)
        return tuple(part[kept.to(part.device)] for part, kept in pairs)

    features = selection.features if selection.features is not None else gather(images.features)
    deepstack = selection.deepstack
    if deepstack is None:
        deepstack = tuple(gather(layer) for layer in images.deepstack)
    return features, deepstack
