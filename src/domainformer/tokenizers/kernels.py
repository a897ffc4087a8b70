"""One pass that joins the fields of all events into one flat array of ids.

By now every field is a column of codes and a small table that says which ids each code stands
for. What is left is a ragged concatenation, the innermost loop of tokenization::

    event i   │ table₀[code₀[i]] │ table₁[code₁[i]] │ text[code₂[i]] … │     one after the other
    ids       │        7         │    31  32  40    │   90 512 18      │ 7 │ 33 32 41 │ 90 77 │ …

It runs over blocks of events, field by field within a block: each field writes its ids where the
event's next id goes. The inner loops exist twice, with equal results: in numpy, complete and always
there, and compiled by numba (extra ``fast``).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from domainformer.errors import MissingExtraError

Ids = npt.NDArray[np.unsignedinteger[Any]]
Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]

# Events per block: codes, positions and ids of a block stay in the L2 cache.
_BLOCK = 1 << 13
_SMALLEST_TABLE = 12
# Odd 64-bit constants that spread the bits of a key (splitmix64).
_MIX_LOW, _MIX_HIGH = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_ONE = np.uint64(1)


class Spans(NamedTuple):
    """One field of all events, as codes into rows of ids.

    Event ``i`` has the ids ``values[offsets[c]:offsets[c + 1]]`` with ``c = codes[i]``.

    Attributes:
        codes: int32 [n_events].
        values: Ids of the shared vocabulary, row after row.
        offsets: int64 [n_rows + 1], where each row begins in ``values``.
        width: Ids in each row, where all rows have equally many; None where they differ (text).
    """

    codes: Int32Array
    values: Ids
    offsets: Int64Array
    width: int | None

    @classmethod
    def of_table(cls, codes: Int32Array, table: Ids) -> Spans:
        """Spans of a rectangular table, ``[n_rows, width]``.

        Example:
            >>> Spans.of_table(np.array([1, 0], np.int32), np.array([[4, 5], [6, 7]])).offsets
            array([0, 2, 4])
        """
        rows, width = table.shape
        offsets = np.arange(rows + 1, dtype=np.int64) * width
        return cls(codes, np.ascontiguousarray(table).reshape(-1), offsets, width)


class Joined(NamedTuple):
    """Ids of all events: ``ids[offsets[i]:offsets[i + 1]]`` is event ``i``."""

    ids: Ids
    offsets: Int64Array


def numba_available() -> bool:
    """Whether the compiled path can be used (extra ``fast``)."""
    return importlib.util.find_spec("numba") is not None


def join(
    fields: Sequence[Spans], n_events: int, dtype: npt.DTypeLike, *, compiled: bool | None = None
) -> Joined:
    """Concatenate the ids of all fields, event by event.

    Args:
        fields: The fields in token order.
        n_events: Number of events.
        dtype: Type of the ids.
        compiled: Use numba; None where it is installed.

    Raises:
        MissingExtraError: ``compiled`` was asked for and numba is not installed.

    Example:
        >>> kind = Spans.of_table(np.array([0, 1], np.int32), np.array([[7], [8]], np.uint16))
        >>> text = Spans(np.array([1, 0], np.int32), np.array([50, 51, 52], np.uint16),
        ...              np.array([0, 1, 3]), None)
        >>> join([kind, text], 2, np.uint16, compiled=False)
        Joined(ids=array([ 7, 51, 52,  8, 50], dtype=uint16), offsets=array([0, 3, 5]))
    """
    if compiled is None:
        compiled = numba_available()
    scatter = _compiled().scatters if compiled else _NUMPY
    tables = [field._replace(values=field.values.astype(dtype, copy=False)) for field in fields]
    offsets = event_offsets(fields, n_events)
    ids = np.empty(int(offsets[-1]), dtype=dtype)
    for start in range(0, n_events, _BLOCK):
        stop = min(start + _BLOCK, n_events)
        # Where each event's next id goes; every scatter moves it on by what it has written.
        position = offsets[start:stop].copy()
        for codes, values, rows, width in tables:
            if width is None:
                scatter.ragged(codes[start:stop], values, rows, position, ids)
            else:
                scatter.fixed(codes[start:stop], values, width, position, ids)
    return Joined(ids, offsets)


def event_offsets(fields: Sequence[Spans], n_events: int) -> Int64Array:
    """Where each event begins in the joined ids, int64 [n_events + 1]."""
    offsets = np.empty(n_events + 1, dtype=np.int64)
    offsets[0] = 0
    lengths = offsets[1:]
    lengths[:] = sum(field.width for field in fields if field.width is not None)
    for field in fields:
        if field.width is None:
            lengths += np.diff(field.offsets)[field.codes]
    np.cumsum(lengths, out=lengths)
    return offsets


class _Scatters(NamedTuple):
    """The two inner loops. Both write at ``ids[position]`` and advance ``position``."""

    fixed: Callable[..., None]
    ragged: Callable[..., None]


def _scatter_fixed(
    codes: Int32Array, values: Ids, width: int, position: Int64Array, ids: Ids
) -> None:
    table = values.reshape(-1, width)
    for column in range(width):
        ids[position] = table[:, column][codes]
        position += 1


def _scatter_ragged(
    codes: Int32Array, values: Ids, rows: Int64Array, position: Int64Array, ids: Ids
) -> None:
    first = rows[codes]
    lengths = rows[codes + 1] - first
    before = np.cumsum(lengths) - lengths
    # Token t of the block lies at t − before + first in the table, and goes to
    # t − before + position.
    token = np.arange(int(lengths.sum()))
    source = np.repeat(first - before, lengths)
    source += token
    target = np.repeat(position - before, lengths)
    target += token
    ids[target] = values[source]
    position += lengths


_NUMPY = _Scatters(_scatter_fixed, _scatter_ragged)


class Distinct(NamedTuple):
    """Rows by their distinct keys: ``first[codes[i]]`` is the first row that equals row ``i``."""

    codes: Int32Array
    first: Int64Array


def distinct_keys(keys: npt.NDArray[np.uint64], most: int) -> Distinct | None:
    """Number rows of 128-bit keys in order of appearance (compiled only).

    A hash table with linear probing; it starts small, to stay in the L1 cache for a column of few
    values, and grows fourfold when it is half full.

    Args:
        keys: ``[n_rows, 2]``.
        most: Give up, and return None, beyond this many distinct keys.

    Raises:
        MissingExtraError: numba is not installed.
    """
    kernel = _compiled()
    codes = np.empty(len(keys), dtype=np.int32)
    known, first = np.empty((0, 2), np.uint64), np.empty(0, np.int64)
    done = count = 0
    bits = _SMALLEST_TABLE
    while count <= most:
        room = (1 << (bits - 1)) - count
        known = np.concatenate([known[:count], np.empty((room, 2), np.uint64)])
        first = np.concatenate([first[:count], np.empty(room, np.int64)])
        slots = np.full(1 << bits, -1, dtype=np.int32)
        kernel.rehash(known, count, slots, 64 - bits)
        done, count = kernel.number(keys, codes, done, slots, 64 - bits, known, first, count)
        if done == len(keys):
            return Distinct(codes, first[:count])
        bits += 2
    return None


class _Compiled(NamedTuple):
    scatters: _Scatters
    rehash: Callable[..., None]
    number: Callable[..., tuple[int, int]]


@cache
def _compiled() -> _Compiled:
    """The loops below as machine code, kept on disk, so that only the first run compiles."""
    try:
        import numba
    except ImportError:
        raise MissingExtraError("numba", extra="fast", purpose="the compiled encoder") from None
    compiled = numba.njit(cache=True, nogil=True)
    scatters = _Scatters(compiled(_loop_fixed), compiled(_loop_ragged))
    return _Compiled(scatters, compiled(_loop_rehash), compiled(_loop_number))


# Plain Python below is compiled by numba. The scatters run one field at a time, so that their
# loops over events have no branch to mispredict but the length of a text.


def _loop_fixed(codes: Any, values: Any, width: int, position: Any, ids: Any) -> None:
    if width == 1:
        for event in range(len(codes)):
            target = position[event]
            ids[target] = values[codes[event]]
            position[event] = target + 1
        return
    for event in range(len(codes)):
        target = position[event]
        source = np.int64(codes[event]) * width
        for column in range(width):
            ids[target + column] = values[source + column]
        position[event] = target + width


def _loop_ragged(codes: Any, values: Any, rows: Any, position: Any, ids: Any) -> None:
    for event in range(len(codes)):
        target = position[event]
        for source in range(rows[codes[event]], rows[codes[event] + 1]):
            ids[target] = values[source]
            target += 1
        position[event] = target


def _loop_rehash(known: Any, count: int, slots: Any, shift: int) -> None:
    mask = np.uint64(len(slots) - 1)
    for code in range(count):
        slot = ((known[code, 0] ^ (known[code, 1] * _MIX_LOW)) * _MIX_HIGH) >> np.uint64(shift)
        while slots[slot] >= 0:
            slot = (slot + _ONE) & mask
        slots[slot] = code


def _loop_number(
    keys: Any, codes: Any, start: int, slots: Any, shift: int, known: Any, first: Any, count: int
) -> tuple[int, int]:
    mask = np.uint64(len(slots) - 1)
    for row in range(start, len(codes)):
        low, high = keys[row, 0], keys[row, 1]
        slot = ((low ^ (high * _MIX_LOW)) * _MIX_HIGH) >> np.uint64(shift)
        code = slots[slot]
        while code >= 0 and (known[code, 0] != low or known[code, 1] != high):
            slot = (slot + _ONE) & mask
            code = slots[slot]
        if code < 0:
            if count == len(first):
                return row, count
            code = count
            slots[slot] = code
            known[code, 0], known[code, 1], first[code] = low, high, row
            count += 1
        codes[row] = code
    return len(codes), count
