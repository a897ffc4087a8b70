"""Bringing the events of each entity together, for tables larger than memory.

::

    portion 0 ─hash(entity)─▶ run 0-0 │ sorted by slice, 4,096 slices │ ─╮   shard s of n =
              ─────────────▶ run 0-1 │                               │ ─┼▶ slices s·4096/n …
    portion 1 ─────────────▶ run 1-0 │                               │ ─╯   of every run, sorted
                                                                            by entity and time

One pass writes *runs*: as many events as fit a buffer, sorted by the leading 12 bits of the hash of
their entity, in one Arrow file each, so that one file is open at a time whatever the number of
shards. A second pass maps the runs and copies a shard's slices out of them. Runs lie in the order
of the source and every sort is stable, so events at the same time keep the order of the files.

How many shards there are is known only after the first pass, from the exact size of the events: it
does not depend on files, row groups, workers or engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from domainformer.artifacts import fsync_path
from domainformer.data.columns import is_stringy
from domainformer.data.event_files import EventFiles, Portion, Seen
from domainformer.data.hashing import hash_entities
from domainformer.data.keys import NULL_TIME
from domainformer.data.runs import joined, run_slices
from domainformer.errors import DataError

Ints = npt.NDArray[np.int64]

SLICES = 1 << 12
"""Slices of the hash: the most shards that there can be."""
_SLICE_BITS = 12
_NULL = int(np.iinfo(np.int64).min)
# Shares of the memory budget. A run is held twice (as read and sorted); a shard is held as
# slices, as sorted columns, as the encoder's codes and as tokens, about eight times in all.
_RUNS_PER_MEMORY = 8
_SHARDS_PER_MEMORY = 16


def run_bytes(memory: int) -> int:
    """Bytes of events to collect for one run."""
    return max(1 << 16, memory // _RUNS_PER_MEMORY)


def shard_count(event_bytes: int, memory: int) -> int:
    """Shards for so many bytes of events: a power of two, at most 4,096.

    Args:
        event_bytes: Exact size of all events as plain columns, strings at their length.
        memory: Memory that one process may use, in bytes.

    Example:
        >>> shard_count(10_000_000_000, memory=512 << 20)
        512
    """
    count = 1
    while count < SLICES and event_bytes > count * (memory // _SHARDS_PER_MEMORY):
        count *= 2
    return count


def write_runs(files: EventFiles, portion: Portion, folder: Path, *, memory: int) -> dict[str, Any]:
    """Write the events of one portion as runs, and return a receipt (plain JSON data).

    Args:
        files: The source.
        portion: Which part of it.
        folder: Where runs are written; files of the same portion are replaced.
        memory: Memory that the process may use, in bytes.

    Raises:
        DataError: A file is damaged, or holds ids or times that cannot be used.
        OSError: The disk is full or not writable.
    """
    seen = Seen()
    runs: list[dict[str, Any]] = []
    batches: list[pa.RecordBatch] = []
    held = event_bytes = 0
    for batch in files.read(portion, seen):
        if not batch.num_rows:
            continue
        batches.append(batch)
        held += batch.nbytes
        event_bytes += sum(_plain_bytes(column) for column in batch.columns)
        if held >= run_bytes(memory):
            runs.append(_write_run(batches, files.entity, folder, portion.index, len(runs)))
            batches, held = [], 0
            pa.default_memory_pool().release_unused()
    if batches:
        runs.append(_write_run(batches, files.entity, folder, portion.index, len(runs)))
    return {"runs": runs, "event_bytes": event_bytes, "seen": asdict(seen)}


def _write_run(
    batches: Sequence[pa.RecordBatch], entity: str, folder: Path, portion: int, number: int
) -> dict[str, Any]:
    parts = np.concatenate([_slices_of(batch.column(entity)) for batch in batches])
    order = np.argsort(parts, kind="stable")  # a radix sort, for 16-bit numbers
    ends = np.cumsum(np.bincount(parts, minlength=SLICES))
    names = batches[0].schema.names
    columns = []
    for index in range(len(names)):
        column = joined([batch.column(index) for batch in batches])
        columns.append(column.take(pa.array(order)))
    run = pa.RecordBatch.from_arrays(columns, names=names)
    name = f"run-{portion:06d}-{number:04d}"
    path = folder / f"{name}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, run.schema) as writer:
        writer.write_batch(run)
    fsync_path(path)
    places = path.with_suffix(".npy")
    np.save(places, np.concatenate([[0], ends]).astype(np.int64))
    fsync_path(places)
    sizes = {file.name: file.stat().st_size for file in (path, places)}
    return {"name": name, "rows": run.num_rows, "files": sizes}


def _slices_of(entities: pa.Array) -> npt.NDArray[np.uint16]:
    shift = np.uint64(64 - _SLICE_BITS)
    return (hash_entities(entities) >> shift).astype(np.uint16)


def _plain_bytes(column: pa.Array) -> int:
    """Size of a column as plain values, whatever dictionary it has."""
    if pa.types.is_dictionary(column.type):
        sizes = pc.binary_length(column.dictionary).cast(pa.int64()).to_numpy()
        codes = column.indices.drop_null().to_numpy()
        used = np.bincount(codes, minlength=len(sizes))
        return int(used @ sizes) + 4 * len(column)
    if is_stringy(column.type):
        return int(pc.sum(pc.binary_length(column)).as_py() or 0) + 4 * len(column)
    if pa.types.is_null(column.type):
        return 0
    width: int = max(1, column.type.bit_width // 8)
    return width * len(column)


@dataclass(frozen=True)
class Grouped:
    """Runs on disk, ready to be read shard by shard. Picklable.

    Args:
        folder: Where the runs are.
        runs: Their names in the order of the source.
        entity: The entity column.
        time: The time column, or None.
        n_shards: Number of shards, a power of two.
        dates: Whether times were strings and all of them days, so that they become dates.
    """

    folder: str
    runs: tuple[str, ...]
    entity: str
    time: str | None
    n_shards: int
    dates: bool

    def read(self, shard: int) -> EntityRows | None:
        """All events of the entities of a shard, or None where it has no entities.

        Raises:
            OSError: A run is missing or cannot be read.
        """
        columns = run_slices(self.folder).read(self.runs, shard, self.n_shards)
        if not columns:
            return None
        if self.dates and self.time is not None:
            columns[self.time] = columns[self.time].cast(pa.date32())
        return entity_rows(columns, entity=self.entity, time=self.time)


class EntityRows(NamedTuple):
    """Events of whole entities, sorted by entity and time.

    Args:
        entities: The entities in order, distinct, [n_entities].
        offsets: int64 [n_entities + 1] into the events.
        columns: The other columns, time among them, [n_events] each.
    """

    entities: pa.Array
    offsets: Ints
    columns: dict[str, pa.Array]

    @property
    def n_events(self) -> int:
        """Number of events."""
        return int(self.offsets[-1])

    def batches(self, entity: str, events: int) -> Iterator[pa.RecordBatch]:
        """Rows of one entity each, with the events as lists; about ``events`` events a batch.

        An entity is never cut: one with more events has a batch of its own.

        Args:
            entity: What to call the column of entities.
            events: Most events of a batch of more than one entity.
        """
        first, count = 0, len(self.entities)
        while first < count:
            wanted = self.offsets[first] + events
            stop = max(first + 1, int(np.searchsorted(self.offsets, wanted, side="right")) - 1)
            begin, end = int(self.offsets[first]), int(self.offsets[stop])
            offsets = pa.array(self.offsets[first : stop + 1] - begin, pa.int32())
            lists = [
                pa.ListArray.from_arrays(offsets, column.slice(begin, end - begin))
                for column in self.columns.values()
            ]
            rows = [self.entities.slice(first, stop - first), *lists]
            yield pa.RecordBatch.from_arrays(rows, names=[entity, *self.columns])
            first = stop


def entity_rows(columns: Mapping[str, pa.Array], *, entity: str, time: str | None) -> EntityRows:
    """Sort events by entity and time; ties and times that are null keep their order.

    Args:
        columns: The events; ids without nulls.
        entity: The entity column.
        time: The time column; None keeps the order of an entity's rows.

    Example:
        >>> rows = entity_rows({"who": pa.array(["b", "a", "b"]), "at": pa.array([7, 3, 5])},
        ...                    entity="who", time="at")
        >>> rows.entities.to_pylist(), rows.offsets.tolist(), rows.columns["at"].to_pylist()
        (['a', 'b'], [0, 1, 3], [3, 5, 7])
    """
    coded = columns[entity]
    if not pa.types.is_dictionary(coded.type):
        coded = coded.dictionary_encode()
    if coded.null_count:
        raise DataError("an event has no entity", next_step="leave such rows out before")
    sorting = pc.array_sort_indices(coded.dictionary)
    rank = np.empty(len(sorting), np.int64)
    rank[sorting.to_numpy()] = np.arange(len(sorting))
    codes = rank[coded.indices.to_numpy()]
    stamps = None if time is None else _integers(columns[time])
    order = sort_order(codes, stamps)
    counts = np.bincount(codes, minlength=len(rank))
    kept = counts > 0  # a dictionary may name ids that no event has
    names = coded.dictionary.take(sorting).filter(pa.array(kept))
    offsets = np.concatenate([[0], np.cumsum(counts[kept])]).astype(np.int64)
    others = {name: column for name, column in columns.items() if name != entity}
    if order is not None:
        places = pa.array(order)
        others = {name: column.take(places) for name, column in others.items()}
    return EntityRows(names, offsets, others)


def sort_order(codes: Ints, times: Ints | None) -> Ints | None:
    """The stable order of events by (code, time), or None where they are in order already.

    Args:
        codes: What to sort by first, ≥ 0.
        times: What to sort by second, ``NULL_TIME`` first; None keeps the order.

    Example:
        >>> sort_order(np.array([1, 0, 1]), np.array([7, 3, 5])).tolist()
        [1, 2, 0]
    """
    if times is None:
        keys = codes
    else:
        known = times != NULL_TIME
        low = int(times.min(where=known, initial=np.iinfo(np.int64).max))
        high = int(times.max(where=known, initial=NULL_TIME))
        bits = int(high - low + 1).bit_length() if high >= low else 0
        if int(codes.max(initial=0)).bit_length() + bits > 63:
            order: Ints = np.lexsort((times, codes))
            return order
        # Both in one number: code in the upper bits, time since the first in the lower.
        keys = (codes << bits) | np.where(known, times - low + 1, 0)
    if len(keys) < 2 or not (keys[1:] < keys[:-1]).any():
        return None
    # The fast sort is not stable: put equal keys back into their order.
    order = np.argsort(keys)
    keys = keys[order]
    equal = keys[1:] == keys[:-1]
    if equal.any():
        tied = np.concatenate([equal, [False]]) | np.concatenate([[False], equal])
        places = np.flatnonzero(tied)
        order[places] = order[places[np.lexsort((order[places], keys[places]))]]
    return order


def _integers(column: pa.Array) -> Ints:
    """Times as int64, whatever their unit; null is ``NULL_TIME``."""
    if column.type == pa.date32():
        column = column.cast(pa.int32())
    whole = column.cast(pa.int64())
    values: Ints = whole.fill_null(_NULL).to_numpy(zero_copy_only=False)
    return values
