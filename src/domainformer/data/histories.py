"""The newest history of each example, as far as it fits: one row of token ids per key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data.budgets import Budgets, keep_within_budgets
from domainformer.data.packing import plan_windows
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import DataError

_PREFIX = 1  # BOS


@dataclass(frozen=True, eq=False)
class NewestHistories:
    """BOS and the newest events of each key, whole events only.

    A key without events has BOS alone.

    Args:
        ids: Token ids of all events.
        start: Where the tokens of each key begin among ``ids``, int64 [n].
        lengths: Tokens of each key, BOS included, int64 [n].
        bos_id: The token set before each history.
    """

    ids: npt.NDArray[np.integer]
    start: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    bos_id: int

    @classmethod
    def of(
        cls,
        events: TokenizedEvents,
        keys: pl.Series,
        *,
        context: int,
        bos_id: int = 1,
        budgets: Budgets | None = None,
    ) -> Self:
        """Find the histories of some keys.

        Args:
            events: Tokenized histories; their entities are the keys.
            keys: The keys, in the order that is wanted.
            context: Most tokens of a row, BOS included.
            bos_id: The token set before each history.
            budgets: What each source may take of a row.

        Raises:
            DataError: An event is longer than the context, keys are of another type, or no key
                has any event.

        Example:
            >>> events = TokenizedEvents(
            ...     ids=np.array([7, 12, 9, 7, 31], np.uint8),
            ...     event_offsets=np.array([0, 2, 3, 5]), entity_offsets=np.array([0, 2, 3]),
            ...     entity_ids=pl.Series(["anna", "bob"]), times=np.array([10, 20, 5]),
            ...     roles=None, tokenizer_fingerprint="f00d", vocab_size=32)
            >>> rows = NewestHistories.of(events, pl.Series(["bob", "eve", "anna"]), context=3)
            >>> [rows[i].tolist() for i in range(3)]
            [[1, 7, 31], [1], [1, 9]]
        """
        if budgets is not None:
            events = keep_within_budgets(events, budgets, context, prefix=_PREFIX)
        windows = plan_windows(
            events.event_offsets, events.entity_offsets, context, keep="newest", prefix=_PREFIX
        )
        n = len(events.entity_ids)
        start, lengths = np.zeros(n, np.int64), np.ones(n, np.int64)
        start[windows.entity] = np.asarray(events.event_offsets)[windows.event_start]
        lengths[windows.entity] = windows.n_tokens
        places = _places(events.entity_ids, keys)
        if len(keys) and not bool((places >= 0).any()):
            raise DataError(
                "none of the examples has an event",
                where=f"key {keys.name!r}",
                why=f"the examples' keys begin with {keys[0]!r}, the events' entities with "
                + (repr(events.entity_ids[0]) if n else "nothing"),
                next_step="name as the events' entity the column that the examples are keyed by",
            )
        has = places >= 0
        return cls(
            ids=np.asarray(events.ids),
            start=np.where(has, start[places], 0),
            lengths=np.where(has, lengths[places], _PREFIX),
            bos_id=bos_id,
        )

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: int) -> npt.NDArray[np.int64]:
        row = np.empty(int(self.lengths[index]), np.int64)
        row[0] = self.bos_id
        begin = int(self.start[index])
        row[_PREFIX:] = self.ids[begin : begin + len(row) - _PREFIX]
        return row


def _places(entities: pl.Series, keys: pl.Series) -> npt.NDArray[np.int64]:
    """Index of each key among the entities, −1 where it has no events."""
    try:
        wanted = keys.cast(entities.dtype)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"the keys are {keys.dtype}, the events' entities {entities.dtype}",
            where=f"key {keys.name!r}",
            next_step="give both the same type",
        ) from error
    known = pl.DataFrame({"key": entities}).with_row_index("place")
    joined = pl.DataFrame({"key": wanted}).join(known, on="key", how="left", maintain_order="left")
    return joined["place"].cast(pl.Int64).fill_null(-1).to_numpy()
