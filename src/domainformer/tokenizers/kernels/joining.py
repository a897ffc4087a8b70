"""The ragged concatenation of all fields, event by event: what it takes, and its numpy form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from domainformer.tokenizers.kernels.compiling import worth_compiling
from domainformer.tokenizers.kernels.sources import Binned, Codes, Int64Array, Stepped, codes_of

Ids = npt.NDArray[np.unsignedinteger[Any]]

# Events per block: codes, positions and ids of a block stay in the L2 cache.
_BLOCK = 1 << 13


class Spans(NamedTuple):
    """One field of all events, as codes into rows of ids.

    Event ``i`` has the ids ``values[offsets[c]:offsets[c + 1]]`` with ``c = codes[i]``.

    Attributes:
        codes: Integers [n_events], or a column of numbers from which they are computed.
        values: Ids of the shared vocabulary, row after row.
        offsets: int64 [n_rows + 1], where each row begins in ``values``.
        width: Ids in each row, where all rows have equally many; None where they differ (text).
    """

    codes: Codes | Binned | Stepped
    values: Ids
    offsets: Int64Array
    width: int | None

    @classmethod
    def of_table(cls, codes: Codes | Binned | Stepped, table: Ids) -> Spans:
        """Spans of a rectangular table, ``[n_rows, width]``.

        Example:
            >>> Spans.of_table(np.array([1, 0], np.int32), np.array([[4, 5], [6, 7]])).offsets
            array([0, 2, 4])
        """
        rows, width = table.shape
        offsets = np.arange(rows + 1, dtype=np.int64) * width
        return cls(codes, np.ascontiguousarray(table).reshape(-1), offsets, width)

    @property
    def table(self) -> Ids:
        """The rows of a field of fixed width, ``[n_rows, width]``."""
        return self.values.reshape(len(self.offsets) - 1, self.width or 0)


class Joined(NamedTuple):
    """Ids of all events: ``ids[offsets[i]:offsets[i + 1]]`` is event ``i``."""

    ids: Ids
    offsets: Int64Array


def join(
    fields: Sequence[Spans], n_events: int, dtype: npt.DTypeLike, *, compiled: bool | None = None
) -> Joined:
    """Concatenate the ids of all fields, event by event.

    Args:
        fields: The fields in token order.
        n_events: Number of events.
        dtype: Type of the ids, an unsigned integer of 8, 16 or 32 bits.
        compiled: Use numba; None where it is installed and the events are many.

    Raises:
        MissingExtraError: ``compiled`` was asked for and numba is not installed.

    Example:
        >>> kind = Spans.of_table(np.array([0, 1], np.int32), np.array([[7], [8]], np.uint16))
        >>> text = Spans(np.array([1, 0], np.int32), np.array([50, 51, 52], np.uint16),
        ...              np.array([0, 1, 3]), None)
        >>> join([kind, text], 2, np.uint16, compiled=False)
        Joined(ids=array([ 7, 51, 52,  8, 50], dtype=uint16), offsets=array([0, 3, 5]))
    """
    typed = [field._replace(values=field.values.astype(dtype, copy=False)) for field in fields]
    if worth_compiling(n_events) if compiled is None else compiled:
        from domainformer.tokenizers.kernels.fused import join_compiled

        return join_compiled(typed, n_events, np.dtype(dtype))
    return _join_in_numpy(typed, n_events, dtype)


def _join_in_numpy(fields: Sequence[Spans], n_events: int, dtype: npt.DTypeLike) -> Joined:
    """Field by field within a block: each writes its ids where the event's next id goes."""
    offsets = event_offsets(fields, n_events)
    ids = np.empty(int(offsets[-1]), dtype=dtype)
    for start in range(0, n_events, _BLOCK):
        stop = min(start + _BLOCK, n_events)
        # Every scatter moves the position on by what it has written.
        position = offsets[start:stop].copy()
        for source, values, rows, width in fields:
            codes = codes_of(source, start, stop)
            if width is None:
                _scatter_ragged(codes, values, rows, position, ids)
            else:
                _scatter_fixed(codes, values, width, position, ids)
    return Joined(ids, offsets)


def event_offsets(fields: Sequence[Spans], n_events: int) -> Int64Array:
    """Where each event begins in the joined ids, int64 [n_events + 1]."""
    offsets = np.empty(n_events + 1, dtype=np.int64)
    offsets[0] = 0
    lengths = offsets[1:]
    lengths[:] = sum(field.width for field in fields if field.width is not None)
    for field in fields:
        if field.width is None:
            lengths += np.diff(field.offsets)[codes_of(field.codes, 0, n_events)]
    np.cumsum(lengths, out=lengths)
    return offsets


def _scatter_fixed(codes: Codes, values: Ids, width: int, position: Int64Array, ids: Ids) -> None:
    table = values.reshape(-1, width)
    for column in range(width):
        ids[position] = table[:, column][codes]
        position += 1


def _scatter_ragged(
    codes: Codes, values: Ids, rows: Int64Array, position: Int64Array, ids: Ids
) -> None:
    first = rows[codes]
    lengths = rows[1:][codes] - first
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
