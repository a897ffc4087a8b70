"""From rows of documents to model inputs, and from hidden states to one vector per document.

::

    padded   a a a .     attention_mask 1 1 1 0      packed   a a a b b .   boundaries 0 3 5 6
             b b . .                    1 1 0 0               c c c c d .              6 10 11 12
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from domainformer.errors import ConfigError, DataError

IGNORED_LABEL = -100

Pooling = Literal["last", "mean"]


class Collator:
    """Turn rows of a dataset into a batch for the model.

    A row is a mapping with ``input_ids`` int [n], ``labels`` int [n] (not shifted; −100 where
    nothing is scored) and ``segment_lengths`` int [k], the lengths of its k documents, which sum
    to n. Other keys are left out of the batch.

    Args:
        pad_id: The padding token's id.
        packed: True: rows hold several documents, and the batch says where each begins. False:
            one document per row, and the batch says which tokens are real.
        pad_to: Length of every row; None pads to the longest of the batch.

    Raises:
        DataError: An empty batch, lengths that do not add up, a row longer than ``pad_to``, or
            several documents in a row that is not packed.

    Returns:
        ``input_ids`` and ``labels``, int64 [B, L], padded on the right; then, padded:
        ``attention_mask`` int64 [B, L]; packed: ``position_ids`` int64 [B, L], ``cu_seq_lens_q``
        and ``cu_seq_lens_k`` int32 [documents + tails + 1] over the flattened B × L tokens, where
        a row's padding is a document of its own, ``max_length_q`` and ``max_length_k``.

    Example:
        >>> row = {"input_ids": [1, 7, 1, 8, 9], "labels": [-100, 7, -100, 8, 9],
        ...        "segment_lengths": [2, 3]}
        >>> batch = Collator(0, packed=True, pad_to=6)([row])
        >>> batch["position_ids"]
        tensor([[0, 1, 0, 1, 2, 0]])
        >>> batch["cu_seq_lens_q"]
        tensor([0, 2, 5, 6], dtype=torch.int32)
    """

    def __init__(self, pad_id: int, *, packed: bool, pad_to: int | None = None) -> None:
        self.pad_id = pad_id
        self.packed = packed
        self.pad_to = pad_to

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Batch the rows, in their order."""
        segments = [self._segments(row, index) for index, row in enumerate(rows)]
        length = self._length([int(lengths.sum()) for lengths in segments])
        input_ids = np.full((len(rows), length), self.pad_id, dtype=np.int64)
        labels = np.full((len(rows), length), IGNORED_LABEL, dtype=np.int64)
        for index, (row, lengths) in enumerate(zip(rows, segments, strict=True)):
            n = int(lengths.sum())
            input_ids[index, :n] = row["input_ids"]
            labels[index, :n] = row["labels"]
            # The model shifts: what is asked of a document's last token stands at the next
            # document's first, and that is never its business.
            labels[index, np.cumsum(lengths) - lengths] = IGNORED_LABEL
        batch: dict[str, Any] = {
            "input_ids": torch.from_numpy(input_ids),
            "labels": torch.from_numpy(labels),
        }
        return batch | (_packing(segments, length) if self.packed else _mask(segments, length))

    def _segments(self, row: Mapping[str, Any], index: int) -> np.ndarray:
        lengths = np.asarray(row["segment_lengths"], dtype=np.int64)
        n = len(row["input_ids"])
        if len(row["labels"]) != n or int(lengths.sum()) != n or bool((lengths < 1).any()):
            raise DataError(
                "the parts of a row do not fit together",
                where=f"row {index} of the batch",
                why=f"{n} input_ids, {len(row['labels'])} labels, segment_lengths "
                f"{lengths.tolist()}",
            )
        if not self.packed and len(lengths) != 1:
            raise DataError(
                f"a row holds {len(lengths)} documents and the batch is not packed",
                where=f"row {index} of the batch",
                next_step="give both the dataset and the collator the same packed=…",
            )
        return lengths

    def _length(self, totals: list[int]) -> int:
        if not totals:
            raise DataError("a batch has no rows", next_step="check the sampler's batch size")
        longest = max(totals)
        if self.pad_to is not None and longest > self.pad_to:
            raise DataError(
                f"a row has {longest} tokens and rows are padded to {self.pad_to}",
                where=f"row {totals.index(longest)} of the batch",
                next_step="pad_to must be at least the dataset's context",
            )
        return self.pad_to or longest


def _mask(segments: list[np.ndarray], length: int) -> dict[str, Any]:
    totals = torch.tensor([int(lengths[0]) for lengths in segments])
    return {"attention_mask": (torch.arange(length) < totals[:, None]).long()}


def _packing(segments: list[np.ndarray], length: int) -> dict[str, Any]:
    covered: list[np.ndarray] = []
    for lengths in segments:
        tail = length - int(lengths.sum())
        covered.append(np.append(lengths, tail) if tail else lengths)
    flat = np.concatenate(covered)
    stops = np.cumsum(flat)
    positions = np.arange(stops[-1]) - np.repeat(stops - flat, flat)
    boundaries = torch.from_numpy(np.insert(stops, 0, 0).astype(np.int32))
    longest = int(flat.max())
    return {
        "position_ids": torch.from_numpy(positions.reshape(-1, length)),
        "cu_seq_lens_q": boundaries,
        "cu_seq_lens_k": boundaries,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def pool_hidden(
    hidden: torch.Tensor, batch: Mapping[str, Any], *, how: Pooling = "last", pad_id: int = 0
) -> torch.Tensor:
    """One vector per document: its last real token's hidden state, or the mean over its tokens.

    Args:
        hidden: The model's ``last_hidden_state`` [B, L, W].
        batch: The inputs it was computed from: with ``attention_mask`` (padded on either side),
            or with ``cu_seq_lens_q`` and ``input_ids``.
        how: "last" or "mean".
        pad_id: The padding token's id: a packed document that starts with it is a row's tail
            and gives no vector.

    Returns:
        [documents, W], in the order of the rows and of the documents in them. Means are taken
        in float32 and returned in the hidden states' type.

    Raises:
        ConfigError: Another way of pooling.
        DataError: The batch does not say where its documents are, or a row is all padding.

    Example:
        >>> hidden = torch.tensor([[[1.0], [3.0], [9.0]]])
        >>> batch = {"attention_mask": torch.tensor([[1, 1, 0]])}
        >>> pool_hidden(hidden, batch, how="last"), pool_hidden(hidden, batch, how="mean")
        (tensor([[3.]]), tensor([[2.]]))
    """
    if how not in ("last", "mean"):
        raise ConfigError(f"there is no pooling {how!r}", next_step='choose "last" or "mean"')
    mask, boundaries = batch.get("attention_mask"), batch.get("cu_seq_lens_q")
    if boundaries is not None:
        return _pool_packed(hidden, batch["input_ids"], boundaries, how, pad_id)
    if mask is None:
        raise DataError(
            "the batch does not say where its documents are",
            why="it has neither attention_mask nor cu_seq_lens_q",
        )
    return _pool_padded(hidden, mask, how)


def _pool_padded(hidden: torch.Tensor, mask: torch.Tensor, how: Pooling) -> torch.Tensor:
    counts = mask.sum(dim=1)
    # An exported graph has no branches on values: there an empty row gives its first token.
    if not torch.compiler.is_compiling() and bool((counts == 0).any()):
        raise DataError("a row is all padding", why="it has no token to stand for it")
    if how == "last":
        last = (mask.bool() * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)
        return hidden[torch.arange(hidden.shape[0], device=hidden.device), last]
    # Selecting, not multiplying: padding may hold anything, NaN included.
    real = torch.where(mask.bool()[:, :, None], hidden.float(), 0.0)
    return (real.sum(dim=1) / counts[:, None]).to(hidden.dtype)


def _pool_packed(
    hidden: torch.Tensor,
    input_ids: torch.Tensor,
    boundaries: torch.Tensor,
    how: Pooling,
    pad_id: int,
) -> torch.Tensor:
    flat = hidden.flatten(0, 1)
    boundaries = boundaries.to(device=hidden.device, dtype=torch.int64)
    starts, stops = boundaries[:-1], boundaries[1:]
    documents = input_ids.flatten()[starts] != pad_id
    if how == "last":
        return flat[stops[documents] - 1]
    lengths = stops - starts
    owner = torch.arange(len(lengths), device=hidden.device).repeat_interleave(lengths)
    sums = flat.new_zeros((len(lengths), flat.shape[1]), dtype=torch.float32)
    sums = sums.index_add(0, owner, flat.float())
    return (sums / lengths[:, None])[documents].to(hidden.dtype)


__all__ = ["IGNORED_LABEL", "Collator", "Pooling", "pool_hidden"]
