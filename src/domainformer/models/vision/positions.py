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
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from domainformer.errors import VisionError

if TYPE_CHECKING:
    from domainformer.models.vision.capabilities import VisionBase

Positions = Literal["original", "compact"]
"""The policy: gathered from the full sequence, or counted anew."""


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
    _check_grids(base, input_ids, attention_mask, images, image_grid_thw)
    function = base.rope_owner.get_rope_index
    given = {
        "input_ids": input_ids,
        "mm_token_type_ids": images,
        "image_grid_thw": image_grid_thw,
        "attention_mask": attention_mask,
    }
    known = inspect.signature(function).parameters
    # Pure arithmetic on the ids: model.rope_deltas, the state of an earlier call, is not read.
    axes = function(**{name: value for name, value in given.items() if name in known})[0]
    return torch.cat([text[None].to(axes.dtype), axes])


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
    input_ids: Tensor,
    attention_mask: Tensor,
    images: Tensor,
    image_grid_thw: Tensor | None,
) -> None:
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
    lengths = _run_lengths(images)
    if len(lengths) != len(image_grid_thw):
        raise VisionError(
            f"{len(image_grid_thw)} images stand in {len(lengths)} runs of placeholders",
            where="input_ids",
            why=f"{base.name} computes positions run by run",
            next_step="put text or the vision marks of the processor between two images",
        )
    expected = (image_grid_thw.prod(-1) // base.merge**2).tolist()
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


def _run_lengths(images: Tensor) -> list[int]:
    """Lengths of the runs of 1 in ``[B, S]``, row by row."""
    step = functional.pad(images, (1, 1)).diff(dim=-1)
    starts, ends = ((step == sign).nonzero()[:, 1] for sign in (1, -1))
    lengths: list[int] = (ends - starts).tolist()
    return lengths
