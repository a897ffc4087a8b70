"""The question that an image is read for: its text embeddings, and nothing of the answer.

A selector that saw a token of the answer would find the right patches in training and none in use.
What counts as text is decided in one place, here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from domainformer.errors import VisionError

if TYPE_CHECKING:
    from domainformer.models.vision.capabilities import VisionBase

IGNORED_LABEL = -100


def question_mask(
    base: VisionBase,
    input_ids: Tensor,
    attention_mask: Tensor,
    labels: Tensor | None = None,
    query_mask: Tensor | None = None,
) -> Tensor:
    """``[B, S]`` bool: the tokens that ask.

    Left out are padding, image and video placeholders, the marks around them, begin and end of
    text, and every token with a label: what is to be predicted is the answer.

    Args:
        base: the opened model.
        input_ids: ``[B, S]``.
        attention_mask: ``[B, S]``.
        labels: ``[B, S]``, -100 where nothing is predicted.
        query_mask: ``[B, S]`` bool, to name the question yourself.

    Raises:
        VisionError: ``query_mask`` has another shape or holds a token of the answer.
    """
    special = torch.tensor(base.special_ids, device=input_ids.device)
    asks = attention_mask.bool() & ~torch.isin(input_ids, special)
    if query_mask is not None:
        if query_mask.shape != input_ids.shape:
            raise VisionError(
                f"query_mask has the shape {tuple(query_mask.shape)}",
                where="query_mask",
                why=f"input_ids have {tuple(input_ids.shape)}",
                next_step="mark the tokens of the question in a mask like input_ids",
            )
        asks = asks & query_mask.bool()
    if labels is not None:
        answer = labels != IGNORED_LABEL
        if query_mask is not None and bool((answer & query_mask.bool()).any()):
            raise VisionError(
                "the query holds tokens of the answer",
                where="query_mask",
                why="a selector that sees the answer learns what it will not have in use",
                next_step="take tokens with a label out of query_mask",
            )
        asks = asks & ~answer
    return asks


def question_embeddings(
    base: VisionBase, input_ids: Tensor, asks: Tensor, rows: Sequence[int]
) -> tuple[Tensor, ...]:
    """One ``[Q, D]`` per image: the embedded question of its row.

    Args:
        base: the opened model.
        input_ids: ``[B, S]``.
        asks: ``[B, S]``, of :func:`question_mask`.
        rows: the row of each image.

    Raises:
        VisionError: a row with an image asks nothing.
    """
    empty = [row for row in sorted(set(rows)) if not bool(asks[row].any())]
    if empty:
        raise VisionError(
            "there is an image without a question",
            where=f"row {empty[0]}",
            why="no token of it is text that is not padding, placeholder or answer",
            next_step="give each image a question, and label the answer alone "
            f"(labels are {IGNORED_LABEL} elsewhere)",
        )
    embedded = {row: base.embed(input_ids[row, asks[row]]) for row in set(rows)}
    return tuple(embedded[row] for row in rows)
