"""EventTable: events as columns, sorted by entity and time.

::

    frame   entity  time        amount …        offsets    [0, 3, 5]
            a       2024-01-01    3.50          entity_ids [a, b]
            a       2024-01-02   -1.00          lengths    [3, 2]
            a       2024-01-02    7.25   ◀─ a tie keeps the order of the source
            b       2024-01-01    2.00
            b       2024-03-05    4.00

Everything later reads columns and offsets; nothing ever walks over events one by one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from domainformer.data.frames import to_polars
from domainformer.data.keys import (
    NULL_TIME,
    Locate,
    TimeKind,
    integer_times,
    normalise_entity,
    normalise_time,
)
from domainformer.errors import DataError, nearest

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


@dataclass(frozen=True, eq=False, repr=False)
class EventTable:
    """Events of many entities, sorted by (entity, time), ties in the order of the source.

    Build one with :meth:`read` or :meth:`of`; the constructor trusts its arguments.

    Args:
        frame: All columns, sorted; events without a time come first within their entity.
        entity: Name of the column that says whose event a row is.
        time: Name of the time column; ``None`` where only the order of rows is known.
        offsets: int64 ``[n_entities + 1]``; events of entity i are ``offsets[i]:offsets[i + 1]``.
        time_kind: ``"date"`` (no time of day), ``"datetime"``, ``"integer"`` or ``"none"``.
        notes: What was left out or changed on reading, in plain words.

    Example:
        >>> table = EventTable.of(
        ...     pl.DataFrame({"card": [2, 1, 2], "day": [5, 9, 4], "amount": [1.0, 2.0, 3.0]}),
        ...     entity="card", time="day")
        >>> table
        EventTable(3 events of 2 entities by 'card', time 'day' (integer), columns: amount)
        >>> table.frame["amount"].to_list(), table.offsets.tolist()
        ([2.0, 3.0, 1.0], [0, 1, 3])
    """

    frame: pl.DataFrame
    entity: str
    time: str | None
    offsets: np.ndarray
    time_kind: TimeKind
    notes: list[str] = field(default_factory=list)

    @classmethod
    def read(
        cls,
        path: str | Path,
        *,
        entity: str | None = None,
        time: str | None = None,
        columns: Sequence[str] | None = None,
        text: Sequence[str] = (),
    ) -> EventTable:
        """Read a Parquet, CSV, Arrow or Feather file, a glob, a hive folder, or a MEDS folder.

        Only the columns asked for are read. Ties in time keep the order of the file, and of the
        files (sorted by name) where there are several.

        Args:
            path: A file, a pattern such as ``events/2024-*.parquet``, or a folder.
            entity: The entity column; may be left out for a MEDS folder alone.
            time: The time column; ``None`` where only the order of rows is known.
            columns: Further columns to keep; ``None`` keeps all.
            text: CSV columns that stay text even where their cells look like numbers.

        Raises:
            DataError: The path, a file, a column or a value cannot be used.
        """
        from domainformer.data import meds, readers

        if entity in (None, meds.SUBJECT) and meds.is_meds(path):
            return meds.read_meds(path, columns=columns)
        if entity is None:
            raise DataError(
                "the entity column was not named",
                where=str(path),
                next_step="pass entity=…: the column that tells whose event each row is",
            )
        source = readers.scan(path)
        frame, notes = source.collect(_wanted(entity, time, columns), text=text)
        return _build(frame, entity, time, where=source.name, locate=source.locate, notes=notes)

    @classmethod
    def of(
        cls,
        data: pl.DataFrame | pl.LazyFrame | pd.DataFrame | pa.Table,
        *,
        entity: str,
        time: str | None = None,
        columns: Sequence[str] | None = None,
        name: str = "the table",
    ) -> EventTable:
        """Make an EventTable of a polars, pandas or pyarrow table.

        Args:
            data: The events, in any order. A named pandas index becomes a column.
            entity: The entity column.
            time: The time column; ``None`` where only the order of rows is known.
            columns: Further columns to keep; ``None`` keeps all.
            name: What errors call the table.

        Raises:
            DataError: A column is missing, empty, repeated, or holds values of mixed types.
        """
        frame = to_polars(data, columns=_wanted(entity, time, columns), where=name)
        return _build(frame, entity, time, where=name)

    @property
    def n_events(self) -> int:
        """Number of events (rows)."""
        return self.frame.height

    @property
    def n_entities(self) -> int:
        """Number of entities that have events."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Events of each entity, int64 ``[n_entities]``."""
        return np.diff(self.offsets)

    @cached_property
    def entity_ids(self) -> pl.Series:
        """The entities in order, ``[n_entities]``."""
        return self.frame[self.entity].gather(self.offsets[:-1])

    @cached_property
    def time_values(self) -> np.ndarray:
        """Times as int64 ``[n_events]``.

        Microseconds since 1970 (UTC), or the whole numbers of an integer time, or all zero where
        the table has no time; a null is the smallest int64.
        """
        if self.time is None:
            return np.zeros(self.n_events, dtype=np.int64)
        return integer_times(self.frame[self.time])

    def elapsed(self) -> pl.Series:
        """Time since the entity's previous event, Float64 ``[n_events]``.

        In seconds, or in the units of an integer time. Null for an entity's first event, where
        this event's or the previous event's time is null, and everywhere in a table without time.

        Example:
            >>> frame = pl.DataFrame({"who": ["a", "a", "b"], "at": [3, 10, 4]})
            >>> EventTable.of(frame, entity="who", time="at").elapsed().to_list()
            [None, 7.0, None]
        """
        known = np.zeros(self.n_events, dtype=bool)
        gaps = np.zeros(self.n_events)
        if self.time is not None and self.n_events:
            times = self.time_values
            known[1:] = (times[1:] != NULL_TIME) & (times[:-1] != NULL_TIME)
            known[self.offsets[:-1]] = False
            gaps[1:] = (times[1:] - times[:-1]) / (1 if self.time_kind == "integer" else 1_000_000)
        return pl.select(
            pl.when(pl.Series(known)).then(pl.Series(gaps)).alias("elapsed")
        ).to_series()

    def filter(self, mask: np.ndarray | pl.Series | pl.Expr) -> EventTable:
        """The events where ``mask`` is true; entities left without events disappear.

        Args:
            mask: bool ``[n_events]``, or a polars expression over the columns; null is false.

        Raises:
            DataError: The mask has another length than the table.
        """
        if isinstance(mask, pl.Expr):
            mask = self.frame.select(mask.alias("mask")).to_series()
        if isinstance(mask, pl.Series):
            mask = mask.fill_null(value=False).to_numpy()
        keep = np.asarray(mask, dtype=bool)
        if keep.shape != (self.n_events,):
            raise DataError(
                "the mask does not fit the table",
                why=f"it has shape {keep.shape}; the table has {self.n_events:,} events",
            )
        kept_before = np.concatenate(([0], np.cumsum(keep)))[self.offsets]
        offsets = np.concatenate(([0], np.unique(kept_before[kept_before > 0])))
        return self._with(self.frame.filter(pl.Series(keep)), offsets.astype(np.int64))

    def take_entities(self, indices: Sequence[int] | np.ndarray) -> EventTable:
        """All events of the entities at ``indices``, in the table's order.

        Args:
            indices: Positions in ``entity_ids``; their order and repetitions do not matter.

        Raises:
            DataError: An index is out of range.
        """
        chosen = np.unique(np.asarray(indices, dtype=np.int64))
        if len(chosen) and (chosen[0] < 0 or chosen[-1] >= self.n_entities):
            raise DataError(
                "there is no such entity",
                why=f"indices run from 0 to {self.n_entities - 1}; "
                f"{chosen[0]} to {chosen[-1]} were asked for",
            )
        keep = np.zeros(self.n_entities, dtype=bool)
        keep[chosen] = True
        return self.filter(np.repeat(keep, self.lengths))

    def fingerprint(self) -> str:
        """A short name of the content: equal tables have equal fingerprints (64 bits of BLAKE2).

        It does not depend on the file format, on chunks, or on the order of columns.
        """
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.blake2b(digest_size=8)
        digest.update(f"{self.entity}|{self.time}|{self.time_kind}|{self.n_events}".encode())
        for name in sorted(self.frame.columns):
            column = self.frame[name]
            digest.update(f"|{name}|{column.dtype}|".encode())
            _feed(digest.update, column)
        return digest.hexdigest()

    def _with(self, frame: pl.DataFrame, offsets: np.ndarray) -> EventTable:
        return EventTable(frame, self.entity, self.time, offsets, self.time_kind, list(self.notes))

    def __len__(self) -> int:
        return self.n_events

    def __repr__(self) -> str:
        others = [name for name in self.frame.columns if name not in (self.entity, self.time)]
        shown = ", ".join(others[:8]) + (", …" if len(others) > 8 else "")
        time = f"time {self.time!r} ({self.time_kind})" if self.time else "no time"
        return (
            f"EventTable({self.n_events:,} events of {self.n_entities:,} entities "
            f"by {self.entity!r}, {time}, columns: {shown or 'none'})"
        )


def _wanted(entity: str, time: str | None, columns: Sequence[str] | None) -> list[str] | None:
    """The columns to read in order, without repetition; ``None`` stands for all."""
    if columns is None:
        return None
    return list(dict.fromkeys([entity, *([time] if time else []), *columns]))


def _build(
    frame: pl.DataFrame,
    entity: str,
    time: str | None,
    *,
    where: str,
    locate: Locate | None = None,
    notes: Sequence[str] = (),
) -> EventTable:
    """Check, normalise and sort what a reader has brought."""
    _check_shape(frame, entity, time, where=where)
    remarks = list(notes)
    kind: TimeKind = "none"
    locate = locate or (lambda row: f"{where}, row {row + 1:,}")
    keys = [normalise_entity(frame[entity], where=where, locate=locate)]
    if time is not None:
        times, kind, more = normalise_time(frame[time], where=where, locate=locate)
        keys.append(times)
        remarks += more
    frame = frame.with_columns(keys)
    nulls = frame[entity].null_count()
    if nulls:
        frame = frame.filter(pl.col(entity).is_not_null())
        remarks.append(f"{nulls:,} rows without {entity} were left out")
    frame = _sorted(frame.rechunk(), entity, time)
    changes = (frame[entity] != frame[entity].shift()).fill_null(value=True)
    offsets = np.append(changes.arg_true().to_numpy(), frame.height).astype(np.int64)
    return EventTable(frame, entity, time, offsets, kind, remarks)


def _check_shape(frame: pl.DataFrame, entity: str, time: str | None, *, where: str) -> None:
    for role, name in (("entity", entity), ("time", time)):
        if name is not None and name not in frame.columns:
            raise DataError(
                f"there is no column {name!r} to use as the {role} column",
                where=where,
                next_step=nearest(name, frame.columns),
            )
    if entity == time:
        raise DataError(f"{entity!r} cannot be both the entity and the time column", where=where)
    if not frame.height:
        raise DataError("the table has no rows", where=where, next_step="check how it was written")


def _sorted(frame: pl.DataFrame, entity: str, time: str | None) -> pl.DataFrame:
    """Stable sort by (entity, time), nulls first; most tables are sorted already."""
    ids = frame[entity]
    if ids.is_sorted():
        if time is None:
            return frame
        times = integer_times(frame[time])
        same = (ids == ids.shift()).fill_null(value=False).to_numpy()
        if not (same[1:] & (times[1:] < times[:-1])).any():
            return frame
    by = [entity] if time is None else [entity, time]
    return frame.sort(by, maintain_order=True, nulls_last=False)


def _feed(update: Callable[[Any], None], column: pl.Series) -> None:
    """Hash a column's values in a form that no chunking or dictionary changes."""
    if isinstance(column.dtype, (pl.Categorical, pl.Enum)):
        column = column.cast(pl.String)
    update(np.packbits(column.is_null().to_numpy()).tobytes())
    physical = column.to_physical()
    # Decimals are 128-bit integers inside, which numpy has not; they are written out below.
    wide = physical.dtype in (pl.Int128, pl.UInt128)
    if (physical.dtype.is_numeric() and not wide) or physical.dtype == pl.Boolean:
        zero = False if physical.dtype == pl.Boolean else 0
        update(np.ascontiguousarray(physical.fill_null(zero).to_numpy()).data)
    elif physical.dtype in (pl.String, pl.Binary):
        binary = physical.cast(pl.Binary).fill_null(b"").rechunk()
        # The oldest Arrow layout is one run of bytes with offsets; string views have no one form.
        _, offset_bytes, data = binary.to_arrow(compat_level=pl.CompatLevel.oldest()).buffers()
        offsets = np.frombuffer(offset_bytes, dtype=np.int64)[: len(binary) + 1]
        update(np.diff(offsets).data)
        update(memoryview(data)[offsets[0] : offsets[-1]] if data is not None else b"")
    else:
        for value in column.to_list():
            update(repr(value).encode())
