"""Where the tokens of a sequence stand, before and after some of them are dropped.

::

    ids        B  <img> <img> <img> <img>  what  is      four image tokens, 2 × 2
    time       0    1     1     1     1      3    4
    row        0    1     1     2     2      3    4
    column     0    1     2     1     2      3    4
    kept       *          *     *            *    *
    original   0          1     1            3    4      the columns are gathered, never recomputed
    compact    0          1     2            3    4      1-D positions of the shortened sequence

An image token that keeps its row and column can be found by a question about place; compact
positions ruin that (grounding falls from 56 to 15 in a published comparison).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, get_args
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import functional

from domainformer.errors import VisionError
from domainformer.models.vision.layout import raster_positions
from domainformer.models.vision.request import Grid

if TYPE_CHECKING:
    from domainformer.models.vision.capabilities import VisionBase

Positions = Literal["original", "compact"]
"""The policy: gathered from the full sequence, or counted anew."""

_agreed: WeakKeyDictionary[Any, set[tuple[Grid, bool]]] = WeakKeyDictionary()
"""Per model, the grids (and whether beside padding) that it was seen to place as
:func:`grid_positions` does. What it places in another way, it is asked for each time."""


def check_policy(positions: str) -> None:
    """Refuse a policy that does not exist.

    Raises:
        VisionError: an unknown name.
    """
    if positions not in get_args(Positions):
        raise VisionError(
            f"there is no position policy {positions!r}",
            next_step=f"choose one of: {', '.join(get_args(Positions))}",
        )


def text_positions(attention_mask: Tensor) -> Tensor:
    """``[B, S]``: 0, 1, 2, … over the tokens that are no padding, 0 on padding.

    Example:
        >>> text_positions(torch.tensor([[0, 1, 1, 1]])).tolist()
        [[0, 0, 1, 2]]
    """
    return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)


def rope_positions(
    base: VisionBase,
    input_ids: Tensor,
    attention_mask: Tensor,
    image_grid_thw: Tensor | None,
) -> Tensor:
    """Positions of the full sequence, as :meth:`VisionBase.rope_positions` describes them."""
    text = text_positions(attention_mask)
    if not base.mrope:
        return text
    images = (input_ids == base.image_token_id).long()
    starts, ends = _runs(images)
    grids = _check_grids(base, attention_mask, images, ends - starts, image_grid_thw)
    padded = bool((attention_mask == 0).any())
    asked = {(grid, padded) for grid in grids}
    agreed = _agreed.setdefault(base.rope_owner, set())
    if asked and asked <= agreed:
        return torch.cat([text[None], grid_positions(attention_mask, images, ends, grids)])
    axes = _model_positions(base, input_ids, attention_mask, images, image_grid_thw)
    # What follows an image tells how far it moved on: one at the end would vouch for too much.
    followed = not bool(images.gather(-1, text.argmax(-1, keepdim=True)).any())
    if grids and followed and axes.dtype == torch.long:
        ours = grid_positions(attention_mask, images, ends, grids)
        agreed.update(asked if torch.equal(ours, axes) else ())
    return torch.cat([text[None].to(axes.dtype), axes])


def _model_positions(
    base: VisionBase,
    input_ids: Tensor,
    attention_mask: Tensor,
    images: Tensor,
    image_grid_thw: Tensor | None,
) -> Tensor:
    """``[3, B, S]`` by the model's own function."""
    function = base.rope_owner.get_rope_index
    given = {
        "input_ids": input_ids,
        "mm_token_type_ids": images,
        "image_grid_thw": image_grid_thw,
        "attention_mask": attention_mask,
    }
    known = inspect.signature(function).parameters
    # Pure arithmetic on the ids: model.rope_deltas, the state of an earlier call, is not read.
    axes: Tensor = function(**{name: value for name, value in given.items() if name in known})[0]
    return axes


def grid_positions(
    attention_mask: Tensor, images: Tensor, ends: Tensor, grids: Sequence[Grid]
) -> Tensor:
    """``[3, B, S]``: M-RoPE as the Qwen2-VL family counts it, for a batch at once.

    ::

        a text token moves on by 1; an image by max(rows, columns), at its end
        an image token stands where the image starts, plus (0, row, column)

    Args:
        attention_mask: ``[B, S]``.
        images: ``[B, S]``, 1 at image tokens.
        ends: ``[N]``, the flat index of the last token of each image, plus 1.
        grids: rows and columns of each image.

    Source: Wang et al., "Qwen2-VL", 2024, section 2.1.
    """
    step = (attention_mask.long() - images).contiguous()
    longer = torch.tensor([max(grid) for grid in grids], device=step.device)
    step.view(-1)[ends - 1] = longer
    before = (step.cumsum(-1) - step).masked_fill(attention_mask == 0, 0)
    within = _rows_and_columns(tuple(grids), step.device)
    places = images.bool().expand(2, *images.shape)
    rest = before.expand(2, *before.shape)
    return torch.cat([before[None], rest + torch.zeros_like(rest).masked_scatter(places, within)])


@lru_cache(maxsize=16)
def _rows_and_columns(grids: tuple[Grid, ...], device: torch.device) -> Tensor:
    """``[2, K]``: of all tokens of all images, in a row."""
    with torch.inference_mode(False):
        return torch.cat([raster_positions(grid, device) for grid in grids]).T.contiguous()


def check_positions(given: Tensor, computed: Tensor, attention_mask: Tensor) -> None:
    """Refuse positions of the full sequence that are not the model's own.

    Args:
        given: ``[B, S]``, ``[3, B, S]`` or ``[4, B, S]``, as the user passed them.
        computed: what :func:`rope_positions` found.
        attention_mask: ``[B, S]``; padding may hold anything.

    Raises:
        VisionError: another shape, or another number on a token that is no padding.
    """
    expected = computed[1:] if given.ndim == 3 and len(given) == 3 else computed
    if given.shape != expected.shape:
        raise VisionError(
            f"position_ids have the shape {tuple(given.shape)}, not {tuple(expected.shape)}",
            where="position_ids",
            why="one-dimensional positions would silently take the place of rows and columns"
            if computed.ndim == 3
            else None,
            next_step="leave position_ids out: they are computed from the full ids and the grids",
        )
    wrong = (given != expected) & attention_mask.bool()
    if bool(wrong.any()):
        place = tuple(int(index) for index in wrong.nonzero()[0])
        raise VisionError(
            "position_ids are not the positions of the full sequence",
            where=f"position_ids[{', '.join(map(str, place))}]",
            why=f"{int(given[place])} is given, {int(expected[place])} is right",
            next_step="leave position_ids out: they are computed from the full ids and the grids",
        )


def shorten_positions(
    full: Tensor, columns: Tensor, attention_mask: Tensor, policy: Positions
) -> Tensor:
    """Positions of the shortened sequence.

    Args:
        full: ``[4, B, S]`` or ``[B, S]``, of the full sequence.
        columns: ``[B, S']``: the column of the full sequence that each token comes from.
        attention_mask: ``[B, S']``.
        policy: ``"original"`` gathers; ``"compact"`` counts anew, on all axes alike.
    """
    text = text_positions(attention_mask).to(full.dtype)
    if policy == "compact":
        return text.expand(len(full), -1, -1).clone() if full.ndim == 3 else text
    index = columns.expand(*full.shape[:-2], *columns.shape)
    kept = full.gather(-1, index).masked_fill(attention_mask == 0, 0)
    if kept.ndim == 3:
        # The text row tells packed documents apart, by a step that is not 1. It is counted anew,
        # or a gap would hide what stands before it.
        kept[0] = text
    return kept


def _check_grids(
    base: VisionBase,
    attention_mask: Tensor,
    images: Tensor,
    runs: Tensor,
    image_grid_thw: Tensor | None,
) -> list[Grid]:
    """Rows and columns of the images, which are seen to fit the runs' lengths; [] for videos."""
    if image_grid_thw is None:
        raise VisionError(
            "positions cannot be computed without the grids of the images",
            where="image_grid_thw",
            why=f"{base.name} has M-RoPE; without grids it would count on one axis, silently",
            next_step="pass image_grid_thw as the processor gives it",
        )
    if bool((images.bool() & (attention_mask == 0)).any()):
        raise VisionError(
            "image placeholders are masked by attention_mask",
            where="attention_mask",
            next_step="mask padding alone; which image tokens stay is the selector's choice",
        )
    lengths = runs.tolist()
    if len(lengths) != len(image_grid_thw):
        raise VisionError(
            f"{len(image_grid_thw)} images stand in {len(lengths)} runs of placeholders",
            where="input_ids",
            why=f"{base.name} computes positions run by run",
            next_step="put text or the vision marks of the processor between two images",
        )
    grids = [tuple(thw) for thw in image_grid_thw.tolist()]
    expected = [frames * rows * columns // base.merge**2 for frames, rows, columns in grids]
    wrong = [index for index, length in enumerate(lengths) if length != expected[index]]
    if wrong:
        index = wrong[0]
        raise VisionError(
            f"image {index} has {lengths[index]} placeholders for {expected[index]} tokens",
            where="input_ids",
            why="the ids were shortened or cut, and positions come from the full ones alone",
            next_step="give input_ids and image_grid_thw of one call of the processor, with a "
            "max_length that holds them",
        )
    if any(frames != 1 for frames, _, _ in grids):
        return []
    return [(rows // base.merge, columns // base.merge) for _, rows, columns in grids]


def _runs(images: Tensor) -> tuple[Tensor, Tensor]:
    """Flat indices into ``[B, S]`` of where runs of 1 start, and behind where they end."""
    step = functional.pad(images, (1, 1)).diff(dim=-1)
    rows, columns = step.nonzero().unbind(-1)
    flat = rows * images.shape[1] + columns
    return flat[::2], flat[1::2]
