"""One pass that joins the fields of all events into one flat array of ids.

By now every field is a column of codes and a small table that says which ids each code stands
for. What is left is a ragged concatenation, the innermost loop of tokenization::

    event i   │ table₀[code₀[i]] │ table₁[code₁[i]] │ text[code₂[i]] … │     one after the other
    ids       │        7         │    31  32  40    │   90 512 18      │ 7 │ 33 32 41 │ 90 77 │ …

Two implementations give the same ids: :func:`join_numpy` is complete and always there;
:func:`join_numba` (extra ``fast``) does the same in one compiled loop over events.
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
    offsets = event_offsets(fields, n_events)
    ids = np.empty(int(offsets[-1]), dtype=dtype)
    (join_numba if compiled else join_numpy)(fields, offsets, ids)
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


def join_numpy(fields: Sequence[Spans], offsets: Int64Array, ids: Ids) -> None:
    """Fill ``ids`` field by field: one scatter per fixed position, one per ragged field."""
    columns = [_table_columns(field, ids.dtype) for field in fields]
    n_events = len(offsets) - 1
    for start in range(0, n_events, _BLOCK):
        stop = min(start + _BLOCK, n_events)
        block = ids[offsets[start] : offsets[stop]]
        position = offsets[start:stop] - offsets[start]
        for field, table in zip(fields, columns, strict=True):
            codes = field.codes[start:stop]
            if field.width is None:
                position += _scatter_ragged(field, codes, position, block)
                continue
            for column in table:
                block[position] = column[codes]
                position += 1


def _table_columns(field: Spans, dtype: np.dtype[Any]) -> list[Ids]:
    """The columns of a rectangular table, each contiguous; none for a ragged one."""
    if field.width is None:
        return []
    rows = len(field.offsets) - 1
    return list(np.ascontiguousarray(field.values.reshape(rows, field.width).T.astype(dtype)))


def _scatter_ragged(
    field: Spans, codes: Int32Array, position: Int64Array, block: Ids
) -> Int64Array:
    """Write the rows of ``codes`` from each event's ``position`` on; returns their lengths."""
    first = field.offsets[codes]
    lengths = field.offsets[codes + 1] - first
    before = np.cumsum(lengths) - lengths
    # Token t of the block's rows lies at t − before + first in the table, and goes to
    # t − before + position.
    token = np.arange(int(lengths.sum()))
    source = np.repeat(first - before, lengths)
    source += token
    target = np.repeat(position - before, lengths)
    target += token
    block[target] = field.values[source]
    return lengths


def join_numba(fields: Sequence[Spans], offsets: Int64Array, ids: Ids) -> None:
    """Fill ``ids`` event by event in one compiled loop."""
    kernel = _compiled_kernel()
    values = np.concatenate([field.values for field in fields]).astype(ids.dtype, copy=False)
    ends = np.cumsum([0, *(len(field.values) for field in fields)])
    starts = np.concatenate([field.offsets + end for field, end in zip(fields, ends, strict=False)])
    first_row = np.cumsum([0, *(len(field.offsets) for field in fields)]).astype(np.int64)
    widths = np.array([-1 if f.width is None else f.width for f in fields], dtype=np.int64)
    n_events = len(offsets) - 1
    codes = np.empty((len(fields), min(_BLOCK, n_events)), dtype=np.int32)
    for start in range(0, n_events, _BLOCK):
        stop = min(start + _BLOCK, n_events)
        for row, field in zip(codes, fields, strict=True):
            row[: stop - start] = field.codes[start:stop]
        kernel(codes, stop - start, first_row, widths, starts, values, ids, int(offsets[start]))


@cache
def _compiled_kernel() -> Callable[..., None]:
    """The compiled loop; the machine code is kept on disk, so only the first run compiles."""
    try:
        import numba
    except ImportError:
        raise MissingExtraError("numba", extra="fast", purpose="the compiled encoder") from None
    compiled: Callable[..., None] = numba.njit(cache=True, nogil=True)(_join_events)
    return compiled


def _join_events(
    codes: Any,
    n_events: int,
    first_row: Any,
    widths: Any,
    starts: Any,
    values: Any,
    ids: Any,
    position: int,
) -> None:
    """Copy the spans of ``codes[:, :n_events]`` to ``ids[position:]`` (compiled by numba)."""
    for event in range(n_events):
        for field in range(codes.shape[0]):
            row = first_row[field] + codes[field, event]
            start = starts[row]
            width = widths[field]
            if width == 1:
                ids[position] = values[start]
                position += 1
                continue
            stop = start + width if width >= 0 else starts[row + 1]
            for source in range(start, stop):
                ids[position] = values[source]
                position += 1
