"""Attention over packed rows: many short documents side by side, none seeing another.

A packed batch is a [B, L] block of tokens whose documents lie end to end. Boundaries are counted
over the flattened B × L tokens, and each row is covered whole, so a row's padding tail is a
document of its own::

    row 0   a a a b b b b .        boundaries  0 3 7 8 11 16
    row 1   c c c d d d d d        positions   0 1 2 0 1 2 3 0 | 0 1 2 0 1 2 3 4

On a CPU the fastest exact way is one causal kernel call per document: nothing outside the blocks
on the diagonal is computed, and no mask is built. Joining documents of equal length into one call
costs more in copies than it saves in calls.

This file travels with every saved model: it imports torch and transformers and nothing else.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

PACKED_SDPA = "packed_sdpa"


def positions_from_boundaries(boundaries: torch.Tensor, rows: int, length: int) -> torch.Tensor:
    """Positions that restart at every document.

    Args:
        boundaries: Integers [documents + 1] over the flattened tokens, from 0 to rows × length.
        rows: Number of rows B.
        length: Tokens of a row L.

    Returns:
        int64 [B, L].

    Raises:
        ValueError: The boundaries do not cover the rows, are out of order, or a document runs
            over the end of a row.

    Example:
        >>> positions_from_boundaries(torch.tensor([0, 2, 3, 6]), 2, 3)
        tensor([[0, 1, 0],
                [0, 1, 2]])
    """
    boundaries = boundaries.to(torch.int64)
    lengths = boundaries.diff()
    if boundaries[0] != 0 or boundaries[-1] != rows * length or bool((lengths < 0).any()):
        raise ValueError(
            f"cu_seq_lens must rise from 0 to {rows * length} (rows × length, with each row's "
            f"padding as a document of its own), not from {boundaries[0]} to {boundaries[-1]}"
        )
    starts = boundaries[:-1].repeat_interleave(lengths, output_size=rows * length)
    tokens = torch.arange(rows * length, device=boundaries.device)
    positions = (tokens - starts).view(rows, length)
    if bool(positions[:, 0].any()):
        raise ValueError("cu_seq_lens has a document that runs over the end of its row")
    return positions


def boundaries_from_positions(positions: torch.Tensor) -> torch.Tensor:
    """The inverse: a document starts where a position is not one more than the one before.

    Args:
        positions: Integers [B, L].

    Returns:
        int32 [documents + 1] over the flattened B × L tokens.

    Example:
        >>> boundaries_from_positions(torch.tensor([[0, 1, 0], [0, 1, 2]]))
        tensor([0, 2, 3, 6], dtype=torch.int32)
    """
    starts = torch.ones_like(positions, dtype=torch.bool)
    starts[:, 1:] = positions.diff(dim=1) != 1
    first = starts.flatten().nonzero().flatten()
    return F.pad(first, (0, 1), value=positions.numel()).to(torch.int32)


def number_documents(boundaries: torch.Tensor, rows: int, length: int) -> torch.Tensor:
    """The number of each token's document.

    Args:
        boundaries: Integers [documents + 1] over the flattened tokens.
        rows: Number of rows B.
        length: Tokens of a row L.

    Returns:
        int64 [B, L].

    Example:
        >>> number_documents(torch.tensor([0, 2, 3, 6]), 2, 3)
        tensor([[0, 0, 1],
                [2, 2, 2]])
    """
    lengths = boundaries.diff().to(torch.int64)
    numbers = torch.arange(len(lengths), device=boundaries.device)
    return numbers.repeat_interleave(lengths, output_size=rows * length).view(rows, length)


def find_documents(
    positions: torch.Tensor, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Tell packed rows from plain ones by their positions.

    Args:
        positions: Integers [B, L].
        attention_mask: 1 at real tokens, [B, L], or None where all are real.

    Returns:
        None where each row holds one document (with padding on either side of it). Otherwise
        positions in which every padding token is a document of its own, and the boundaries.
    """
    restarts = positions.diff(dim=1) != 1
    if attention_mask is None:
        return (positions, boundaries_from_positions(positions)) if bool(restarts.any()) else None
    real = attention_mask.bool()
    # Positions of padding mean nothing; only two neighbouring real tokens tell of a restart.
    if not bool((restarts & real[:, 1:] & real[:, :-1]).any()):
        return None
    positions = positions.masked_fill(~real, 0)
    return positions, boundaries_from_positions(positions)


def count_positions(
    inputs_embeds: torch.Tensor, attention_mask: torch.Tensor | None, past: int
) -> torch.Tensor:
    """Positions of the new tokens, counted over real tokens so that left padding takes none.

    Args:
        inputs_embeds: Embeddings of the new tokens [B, L, W].
        attention_mask: 1 at real tokens, [B, past + L]; others are not read.
        past: Number of tokens in the cache.

    Returns:
        int64 [B, L] or [1, L].
    """
    length = inputs_embeds.shape[1]
    if (
        isinstance(attention_mask, torch.Tensor)
        and attention_mask.ndim == 2
        and attention_mask.shape[1] >= past + length
    ):
        counted = (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)
        return counted[:, past : past + length]
    return (torch.arange(length, device=inputs_embeds.device) + past).unsqueeze(0)


def locate_documents(
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    past_key_values: Cache | None,
    boundaries: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Settle what a batch says about its documents.

    Args:
        inputs_embeds: Embeddings of the new tokens [B, L, W].
        attention_mask: 1 at real tokens, or None.
        position_ids: Positions, or None.
        past_key_values: The cache, or None.
        boundaries: Document boundaries over the flattened tokens, or None.

    Returns:
        Positions; the mask that is still needed; and the boundaries where rows are packed.

    Raises:
        ValueError: The boundaries do not fit the rows, or packed rows come with a cache.
    """
    rows, length = inputs_embeds.shape[:2]
    if boundaries is not None:
        position_ids = positions_from_boundaries(boundaries, rows, length)
        attention_mask = None
    elif position_ids is None:
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        position_ids = count_positions(inputs_embeds, attention_mask, past)
    elif not torch.compiler.is_compiling() and (
        attention_mask is None or attention_mask.shape == inputs_embeds.shape[:2]
    ):
        # transformers looks for restarts too, but not where a mask or a cache is given, and its
        # flash kernels not in batches: there, documents would silently see each other.
        found = find_documents(position_ids.expand(rows, -1), attention_mask)
        if found is not None:
            position_ids, boundaries = found
            attention_mask = None
    if boundaries is not None and past_key_values is not None:
        raise ValueError(
            "packed rows cannot fill or read a cache: where past_key_values are used, give one "
            "document per row with an attention_mask"
        )
    return position_ids, attention_mask, boundaries


def packed_sdpa_attention_forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each document, one kernel call per document.

    Without ``cu_seq_lens_q`` it is transformers' own "sdpa".

    Args:
        module: The attention layer.
        query: Float [B, H, L, D].
        key: As query.
        value: As query.
        attention_mask: Used without boundaries only.
        dropout: Share of attention weights dropped.
        scaling: Factor of the scores, None for 1/√D.
        cu_seq_lens_q: Document boundaries, int [documents + 1] over B × L.
        **kwargs: Handed on.

    Returns:
        Float [B, L, H, D], and None for the weights that no kernel returns.
    """
    if cu_seq_lens_q is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    B, H, L, D = query.shape
    lengths = cu_seq_lens_q.diff().tolist()
    # One split per tensor: its backward is one concatenation. Slicing would instead allocate the
    # whole gradient once per document.
    q_s, k_s, v_s = (
        x.transpose(1, 2).reshape(1, B * L, H, D).transpose(1, 2).split(lengths, dim=2)
        for x in (query, key, value)
    )
    outputs = [
        F.scaled_dot_product_attention(
            q, k, v, dropout_p=dropout, is_causal=True, scale=scaling
        ).transpose(1, 2)
        for q, k, v in zip(q_s, k_s, v_s, strict=True)
    ]
    return torch.cat(outputs, dim=1).view(B, L, H, D), None


# Rows that are not packed get the masks that "sdpa" gets.
AttentionInterface.register(PACKED_SDPA, packed_sdpa_attention_forward)
AttentionMaskInterface.register(PACKED_SDPA, sdpa_mask)


__all__ = [
    "PACKED_SDPA",
    "boundaries_from_positions",
    "count_positions",
    "find_documents",
    "locate_documents",
    "number_documents",
    "packed_sdpa_attention_forward",
    "positions_from_boundaries",
]
