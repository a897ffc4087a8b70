"""Slices of runs: what is copied out of grouped events for one shard, column by column.

::

    run 0   codes 0 1 0 2   dictionary tea cake bread  ─╮  places 0 1 2     one dictionary of the
    run 1   codes 1 0 1     dictionary cake tea        ─┼▶ places 1 0    ─▶ process: tea cake bread
    run 2   …                                          ─╯

A job has runs in proportion to its size, and shards too: slices grow with the square of it, and
what is done for each has to be little. Dictionaries are what would cost: a slice of a few thousand
events may come with as many strings. So a process brings the dictionary of each run into one of its
own, once, and afterwards moves numbers alone. Where there are too many values for that, slices
keep dictionaries of their own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from domainformer.data.columns import is_stringy

Ints = npt.NDArray[np.int64]
Places = npt.NDArray[np.int32]
RunKey = tuple[str, int, int, int]

# What the dictionaries of one column may take in a process: their values, the bytes of these, and
# the numbers that lead from the runs' own dictionaries to them (four bytes each).
MOST_VALUES = 1 << 17
MOST_BYTES = 1 << 23
MOST_PLACES = 1 << 22


class Coded(NamedTuple):
    """A chunk of a column by the dictionary of the process.

    Args:
        codes: Places in it, or null.
        shared: The dictionary.
    """

    codes: pa.Array
    shared: SharedDictionary


class SharedDictionary:
    """One dictionary for a column of many runs. It only grows, so that codes stay what they are.

    Example:
        >>> shared = SharedDictionary(pa.string())
        >>> shared.places("first", pa.array(["tea", "cake"])).tolist()
        [0, 1]
        >>> shared.places("second", pa.array(["bread", "tea"])).tolist()
        [2, 0]
        >>> shared.values.to_pylist()
        ['tea', 'cake', 'bread']
    """

    def __init__(self, kind: pa.DataType) -> None:
        self.values = pa.array([], kind)
        self._places: dict[object, Places | None] = {}
        self._held = 0

    def places(self, run: object, dictionary: pa.Array) -> Places | None:
        """Where a run's values are in ``values``; None where that would take too much memory."""
        if run not in self._places:
            self._places[run] = self._added(dictionary)
        return self._places[run]

    def _added(self, dictionary: pa.Array) -> Places | None:
        if self._held + len(dictionary) > MOST_PLACES:
            return None
        new = dictionary.filter(pc.index_in(dictionary, value_set=self.values).is_null())
        if len(new):
            if len(self.values) + len(new) > MOST_VALUES:
                return None
            values = pa.concat_arrays([self.values, new])
            if values.nbytes > MOST_BYTES:
                return None
            self.values = values
        self._held += len(dictionary)
        places: Places = pc.index_in(dictionary, value_set=self.values).to_numpy()
        return places


class RunSlices:
    """Copies slices out of the runs of one folder.

    Args:
        folder: Where the runs are.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._ends: dict[tuple[RunKey, int], Ints] = {}
        self._shared: dict[tuple[str, pa.DataType], SharedDictionary] = {}

    def read(self, runs: Sequence[str], shard: int, n_shards: int) -> dict[str, pa.Array]:
        """The events of a shard in the order of the runs, by column; empty where it has none.

        Args:
            runs: Names of the runs.
            shard: Which shard.
            n_shards: Number of shards.

        Raises:
            OSError: A run is missing or cannot be read.
        """
        chunks: dict[str, list[pa.Array | Coded]] = {}
        for run in runs:
            self._add(run, shard, n_shards, chunks)
        return {name: _put_together(parts) for name, parts in chunks.items()}

    def _add(
        self, run: str, shard: int, n_shards: int, chunks: dict[str, list[pa.Array | Coded]]
    ) -> None:
        path = f"{self._folder}/{run}.arrow"
        about = os.stat(path)
        # A run that was written anew is another one.
        key = (run, about.st_ino, about.st_size, about.st_mtime_ns)
        if (key, n_shards) not in self._ends:
            ends = np.load(f"{self._folder}/{run}.npy")
            self._ends[key, n_shards] = ends[:: (len(ends) - 1) // n_shards].copy()
        start, stop = map(int, self._ends[key, n_shards][shard : shard + 2])
        if start == stop:
            return
        # Mapped anew for each slice: pages that stay mapped would count as memory of the process.
        with pa.memory_map(path) as source:
            batch = pa.ipc.open_file(source).get_batch(0)
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                copied = self._copied(name, column, start, stop, key)
                chunks.setdefault(name, []).append(copied)

    def _copied(
        self, name: str, column: pa.Array, start: int, stop: int, run: RunKey
    ) -> pa.Array | Coded:
        part = column.slice(start, stop - start)
        if not pa.types.is_dictionary(column.type):
            return pa.concat_arrays([part, part.slice(0, 0)])
        kind = column.type.value_type
        if (name, kind) not in self._shared:
            self._shared[name, kind] = SharedDictionary(kind)
        shared = self._shared[name, kind]
        places = shared.places(run, column.dictionary)
        if places is None:
            return compacted(part)
        return Coded(_moved(part.indices, places), shared)


@lru_cache(maxsize=1)
def run_slices(folder: str) -> RunSlices:
    """The `RunSlices` of a folder, kept from one shard to the next."""
    return RunSlices(folder)


def _put_together(parts: Sequence[pa.Array | Coded]) -> pa.Array:
    if all(isinstance(part, Coded) for part in parts):
        codes = pa.concat_arrays([part.codes for part in parts])
        return compacted(pa.DictionaryArray.from_arrays(codes, parts[0].shared.values))
    return joined(
        [
            compacted(pa.DictionaryArray.from_arrays(part.codes, part.shared.values))
            if isinstance(part, Coded)
            else part
            for part in parts
        ]
    )


def _moved(codes: pa.Array, places: Places) -> pa.Array:
    """Codes at their new places, in memory of their own."""
    if not codes.null_count:
        return pa.array(places[codes.to_numpy()])
    missing = codes.is_null().to_numpy(zero_copy_only=False)
    if not len(places):
        return pa.nulls(len(codes), pa.int32())
    plain = codes.fill_null(0).to_numpy(zero_copy_only=False)
    return pa.array(places[plain], mask=missing)


def compacted(column: pa.DictionaryArray) -> pa.DictionaryArray:
    """A column in memory of its own, with no more of its dictionary than it uses.

    Example:
        >>> column = pa.array(["tea", "cake", None, "bread"]).dictionary_encode()
        >>> compacted(column.slice(1, 2)).dictionary.to_pylist()
        ['cake']
    """
    codes, size = column.indices, len(column.dictionary)
    known = codes.drop_null().to_numpy()
    if len(known) * 16 < size:
        used = np.unique(known)
    else:
        mask = np.zeros(size, bool)
        mask[known] = True
        used = np.flatnonzero(mask)
    table = np.zeros(size, np.int32)
    table[used] = np.arange(len(used), dtype=np.int32)
    values = column.dictionary.take(pa.array(used, pa.int64()))
    return pa.DictionaryArray.from_arrays(_moved(codes, table), values)


def joined(chunks: Sequence[pa.Array]) -> pa.Array:
    """Chunks of one column as one array: by dictionary where most rows have one, plain otherwise.

    Example:
        >>> coded = pa.array(["tea", "tea", "cake"]).dictionary_encode()
        >>> joined([coded, pa.array(["cake"])]).indices.to_pylist()
        [0, 0, 1, 1]
        >>> str(joined([coded, pa.array(["cake"] * 4)]).type)
        'string'
    """
    coded = [pa.types.is_dictionary(chunk.type) for chunk in chunks]
    if any(coded) and not all(coded):
        # One short batch at the end of a file, which comes plain, must not unfold all others.
        rows = sum(len(c) for c, d in zip(chunks, coded, strict=True) if d)
        by_dictionary = 2 * rows >= sum(map(len, chunks))
        chunks = [_as_coded(chunk) if by_dictionary else _as_plain(chunk) for chunk in chunks]
    if all(pa.types.is_dictionary(chunk.type) for chunk in chunks):
        chunks = pa.chunked_array(chunks).unify_dictionaries().chunks
        return pa.concat_arrays(chunks) if len(chunks) > 1 else chunks[0]
    if len({chunk.type for chunk in chunks}) == 1 and is_stringy(chunks[0].type):
        # Offsets of 32 bits reach 2 GiB of text; a giant history may have more.
        total = sum(chunk.nbytes for chunk in chunks)
        if total > np.iinfo(np.int32).max // 2:
            wide = pa.large_string() if pa.types.is_string(chunks[0].type) else pa.large_binary()
            chunks = [chunk.cast(wide) for chunk in chunks]
    return pa.concat_arrays(chunks) if len(chunks) > 1 else chunks[0]


def _as_coded(chunk: pa.Array) -> pa.Array:
    return chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()


def _as_plain(chunk: pa.Array) -> pa.Array:
    return chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
