"""From a table to ids: every field one column at a time, then one pass that joins them.

::

    frame ─▶ numbers ─▶ edges or steps + table of ids ─╮
             strings ─▶ codes          + table of ids ─┼─▶ kernels.join ─▶ ids, event offsets
             text    ─▶ codes          + ragged table ─╯

No Python object per event, and never a token string: distinct values are looked up once (`spans`),
and the rest is arrays (`kernels`). A large table is encoded in passes of a few million events, so
that the codes of one pass are all that is held beside the table and the ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data import EventTable
from domainformer.data.keys import NULL_TIME
from domainformer.errors import SchemaError
from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.fields import ElapsedTimeTokenizer
from domainformer.tokenizers.kernels import Ids, Joined, Spans, join, worth_compiling
from domainformer.tokenizers.slots import Layout
from domainformer.tokenizers.spans import Known, field_spans, known_values

_EVENTS_PER_PASS = 1 << 22


@dataclass(frozen=True)
class Columns:
    """The columns that field tokenizers read.

    Args:
        frame: The events.
        elapsed: Time since the entity's previous event, as `ElapsedTimeTokenizer` reads it (null:
            no previous event; NaN: not known); None where the table cannot tell.
        time: Name of the time column that ``elapsed`` belongs to.
    """

    frame: pl.DataFrame
    elapsed: pl.Series | None = None
    time: str | None = None

    @classmethod
    def of(cls, table: EventTable | pl.DataFrame, *, elapsed: bool) -> Columns:
        """The columns of a table; a frame alone has no elapsed times, and few schemas ask."""
        if isinstance(table, pl.DataFrame):
            return cls(table)
        return cls(table.frame, elapsed_column(table) if elapsed else None, table.time)

    def read_by(self, tokenizer: FieldTokenizer) -> pl.Series:
        """The column that a field tokenizer reads.

        Raises:
            SchemaError: It needs elapsed times that this table does not have.
        """
        spec = tokenizer.spec
        if not isinstance(tokenizer, ElapsedTimeTokenizer):
            return self.frame[spec.source]
        if self.elapsed is None or spec.source != self.time:
            raise SchemaError(
                f"field {spec.name!r} needs the time since the entity's previous event",
                where=f"column {spec.source!r}",
                why=f"the table's time column is {self.time!r}"
                if self.time
                else "these events have no entities and no time column",
                next_step=f"build the table with EventTable.of(…, entity=…, time={spec.source!r}), "
                "or set the field's elapsed_bins to 0",
            )
        return self.elapsed

    def slice(self, start: int, length: int) -> Columns:
        """Some consecutive events."""
        elapsed = None if self.elapsed is None else self.elapsed.slice(start, length)
        return Columns(self.frame.slice(start, length), elapsed, self.time)


def elapsed_column(table: EventTable) -> pl.Series | None:
    """Elapsed time with null for a first event and NaN where this or the last time is null.

    Example:
        >>> frame = pl.DataFrame({"who": ["a", "a", "b"], "at": [3, None, 4]})
        >>> elapsed_column(EventTable.of(frame, entity="who", time="at")).to_list()
        [nan, nan, None]
    """
    if table.time is None:
        return None
    first = np.zeros(table.n_events, dtype=bool)
    first[table.offsets[:-1]] = True
    first &= table.time_values != NULL_TIME
    gaps = table.elapsed().fill_null(float("nan"))
    return gaps.set(pl.Series(first), None) if first.any() else gaps


def encode_columns(
    layout: Layout,
    columns: Columns,
    dtype: np.dtype[np.unsignedinteger],
    *,
    compiled: bool | None = None,
) -> Joined:
    """Ids of all events, one after the other.

    Args:
        layout: The fitted fields.
        columns: What they read.
        dtype: Type of the ids.
        compiled: Use numba; None where it is installed and the events are many.
    """
    n_events = columns.frame.height
    compiled = worth_compiling(n_events) if compiled is None else compiled
    parts = [
        join(_spans(layout, part, dtype, compiled), part.frame.height, dtype, compiled=compiled)
        for part in _passes(columns, n_events)
    ]
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    offsets = [part.offsets[1:] + end for part, end in zip(parts, ends, strict=False)]
    ids: Ids = np.concatenate([np.empty(0, dtype), *(part.ids for part in parts)])
    return Joined(ids, np.concatenate([np.zeros(1, np.int64), *offsets]))


def shard_bounds(offsets: npt.NDArray[np.int64], events: int) -> list[tuple[int, int]]:
    """Ranges of entities of about ``events`` events each, at least one entity in each.

    Example:
        >>> shard_bounds(np.array([0, 3, 4, 9, 10]), 4)
        [(0, 2), (2, 3), (3, 4)]
    """
    bounds, first, count = [], 0, len(offsets) - 1
    while first < count:
        stop = int(np.searchsorted(offsets, offsets[first] + events, side="right")) - 1
        bounds.append((first, max(first + 1, stop)))
        first = bounds[-1][1]
    return bounds


def _passes(columns: Columns, n_events: int) -> Iterator[Columns]:
    for start in range(0, n_events, _EVENTS_PER_PASS):
        yield columns.slice(start, min(_EVENTS_PER_PASS, n_events - start))


def _spans(layout: Layout, columns: Columns, dtype: npt.DTypeLike, compiled: bool) -> list[Spans]:
    """All fields as codes into rows of global ids."""
    spans = []
    known: dict[str, Known | None] = {}
    for block in layout.blocks:
        column, source = columns.read_by(block.tokenizer), block.spec.source
        if compiled and source not in known:
            known[source] = known_values(column)
        values = known.get(source)
        spans.append(field_spans(layout, block, column, dtype, values, compiled=compiled))
    return spans
