"""TextRows: documents of text as rows for a model, one to a row or several packed into one.

::

    documents   to be or not ⏹   that is the question ⏹        ⏹ the end token
    pad         [to be or not ⏹ ] [that is the] [question ⏹]   cut to the context, then filled up
    pack        [to be or not ⏹ │ question ⏹] [that is the]    best fit, hardly a place lost

Order and packing follow from (seed, epoch) alone: no generator is asked, and none moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from domainformer.data.packing import pack
from domainformer.errors import ConfigError, DataError, nearest

Collate = Literal["pad", "pack"]


class TextRows:
    """Rows of token ids, in an order of their own for each epoch.

    A row is ``{"input_ids": int64 [n], "labels": int64 [n], "segment_lengths": int64 [k]}`` with
    n ≤ context; labels are not shifted, which causal models do themselves.

    Args:
        documents: The ids of each document, integers; empty ones are left out.
        context: Most ids of a row.
        collate: ``pad`` gives one piece of a document per row, ``pack`` several.
        eos_id: Ends each document; None for no end.
        seed: Of order and packing; not negative.
        shuffle: Whether epochs differ. Otherwise rows keep the order of the documents, and where
            they are packed, one packing.

    Raises:
        ConfigError: No such collate, a context below 2, or a negative seed.
        DataError: There are no ids.

    Example:
        >>> rows = TextRows([[1, 2, 3, 4, 5], [6, 7]], context=4, collate="pack", eos_id=0)
        >>> sorted(row["segment_lengths"].tolist() for row in rows)
        [[2], [3], [4]]
    """

    def __init__(
        self,
        documents: Sequence[npt.ArrayLike],
        *,
        context: int,
        collate: Collate = "pad",
        eos_id: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
    ) -> None:
        _check(context, collate, seed)
        self.context, self.packed, self.seed, self.shuffle = (
            context,
            collate == "pack",
            seed,
            shuffle,
        )
        end = [] if eos_id is None else [eos_id]
        pieces = [
            ids[start : start + context]
            for document in documents
            if len(ids := np.concatenate([np.asarray(document, np.int64), end]).astype(np.int64))
            > len(end)
            for start in range(0, len(ids), context)
        ]
        if not pieces:
            raise DataError("there are no ids", next_step="check what was read and encoded")
        self.pieces = pieces
        self._lengths = np.array([len(piece) for piece in pieces], np.int64)
        self.epoch = 0
        self._rows = self._arrange()

    def set_epoch(self, epoch: int) -> None:
        """Order and pack anew by (seed, epoch); the number of rows stays."""
        if epoch < 0:
            raise ConfigError(f"the epoch must not be negative, but is {epoch}")
        if epoch != self.epoch:
            self.epoch = epoch
            if self.shuffle:
                self._rows = self._arrange()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[Any]]:
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        chosen = [self.pieces[piece] for piece in self._rows[index].tolist()]
        ids = np.concatenate(chosen)
        lengths = np.array([len(piece) for piece in chosen], np.int64)
        return {"input_ids": ids, "labels": ids, "segment_lengths": lengths}

    @property
    def n_ids(self) -> int:
        """Ids of all rows, with ends of documents and without filling."""
        return int(self._lengths.sum())

    @property
    def filling(self) -> float:
        """Share of the places of full rows that hold nothing."""
        return 1 - self.n_ids / (len(self) * self.context)

    def _arrange(self) -> list[npt.NDArray[np.int64]]:
        """The pieces of each row of this epoch."""
        key = (self.seed, self.epoch) if self.shuffle else (self.seed, 0)
        if self.packed:
            packing = pack(self._lengths, self.context, seed=key)
            return [packing.row(index) for index in range(len(packing))]
        order = np.arange(len(self.pieces))
        if self.shuffle:
            order = np.random.default_rng(key).permutation(order)
        return list(order[:, None])


def _check(context: int, collate: str, seed: int) -> None:
    if collate not in get_args(Collate):
        raise ConfigError(
            f"there is no collate {collate!r}", next_step=nearest(collate, get_args(Collate))
        )
    if context < 2:
        raise ConfigError(f"the context must be at least 2, but is {context}")
    if seed < 0:
        raise ConfigError(f"the seed must not be negative, but is {seed}")
