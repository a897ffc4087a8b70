"""The compiled join: raw columns in, ids in the order of events out, a block at a time.

Neighbouring fields of fixed width form a *segment*, which a text (or the event's end) closes. The
ids of a segment are put together in words of 8 bytes, 4 ids of 16 bits each, because one store of a
word is as fast as one of an id::

    category   table[code]          │ c   ·   ·   · │
    sign       table[bin of x]      │ ·   s   ·   · │               or-ed together: words 0 and 1
    amount     table[bin of |x|]    │ ·   ·   a   · │
    time       table[step of t]     │ ·   ·   ·   m │ d   d   h   · │

Each table holds whole words, its ids in their places and zeros beside them. Then the events are
written one after the other: the words of the segment, the row of the text, and so on. What the
last word of a part holds too much is overwritten by what follows; a few spare ids stand at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.tokenizers.kernels.cells import cells
from domainformer.tokenizers.kernels.compiling import compiled, frozen, overlapping_words
from domainformer.tokenizers.kernels.joining import Ids, Joined, Spans
from domainformer.tokenizers.kernels.sources import (
    Binned,
    Codes,
    Int32Array,
    Stepped,
    codes_of,
)

# Events per block: the words and codes of a block stay in the L2 cache.
_BLOCK = 1 << 13


@dataclass(frozen=True)
class _Fixed:
    """A field of fixed width: which words of the event it has ids in, and with what content."""

    source: Codes | Binned | Stepped
    words: slice
    tables: npt.NDArray[np.uint64]  # [words, rows]


@dataclass(frozen=True)
class _Texts:
    """The rows of all texts in one table; the last row is empty, for a segment without a text."""

    sources: list[tuple[Codes, int] | None]  # per segment: codes, and the table's row of code 0
    values: Ids
    offsets: npt.NDArray[np.int64]


def join_compiled(fields: Sequence[Spans], n_events: int, dtype: np.dtype[Any]) -> Joined:
    """See `joining.join`; ``values`` of the fields have the type ``dtype`` already."""
    lanes = 8 // dtype.itemsize
    segments = _segments(fields)
    widths = np.array([sum(f.width or 0 for f in segment) for segment in segments], np.int64)
    counts = -(-widths // lanes)
    fixed = _placed(segments, counts, lanes, dtype)
    texts = _texts(segments, lanes, dtype)

    total = n_events * int(widths.sum()) + _length_of_texts(texts)
    ids = np.empty(total + lanes, dtype)
    offsets = np.zeros(n_events + 1, np.int64)
    words = np.empty((int(counts.sum()), _BLOCK), np.uint64)
    rows = np.full((len(segments), _BLOCK), len(texts.offsets) - 2, np.int32)
    codes = np.empty(_BLOCK, np.int32)
    position = 0
    for start in range(0, n_events, _BLOCK):
        stop = min(start + _BLOCK, n_events)
        words.fill(0)
        for field in fixed:
            found = _codes(field.source, start, stop, codes)
            compiled(_loop_add)(found, field.tables, words[field.words])
        for segment, source in enumerate(texts.sources):
            if source is not None:
                np.add(
                    source[0][start:stop],
                    source[1],
                    out=rows[segment, : stop - start],
                    casting="unsafe",
                )
        position = compiled(_loop_write)(
            words,
            counts,
            widths,
            rows,
            frozen(texts.offsets),
            overlapping_words(texts.values),
            overlapping_words(ids),
            lanes,
            offsets[start + 1 : stop + 1],
            position,
        )
    return Joined(ids[:total], offsets)


def _segments(fields: Sequence[Spans]) -> list[list[Spans]]:
    """The fields, cut behind every text; the last segment may be empty."""
    segments: list[list[Spans]] = [[]]
    for field in fields:
        segments[-1].append(field)
        if field.width is None:
            segments.append([])
    return segments if segments[-1] or len(segments) == 1 else segments[:-1]


def _placed(
    segments: list[list[Spans]], counts: npt.NDArray[np.int64], lanes: int, dtype: np.dtype[Any]
) -> list[_Fixed]:
    """The fields of fixed width, with their tables as words."""
    placed = []
    first_word = 0
    for segment, count in zip(segments, counts.tolist(), strict=True):
        place = 0
        for field in segment:
            if not field.width:
                continue
            first, stop = place // lanes, -(-(place + field.width) // lanes)
            padded = np.zeros((len(field.table), (stop - first) * lanes), dtype)
            shift = place - first * lanes
            padded[:, shift : shift + field.width] = field.table
            tables = frozen(padded.view(np.uint64).T)
            placed.append(_Fixed(field.codes, slice(first_word + first, first_word + stop), tables))
            place += field.width
        first_word += count
    return placed


def _texts(segments: list[list[Spans]], lanes: int, dtype: np.dtype[Any]) -> _Texts:
    sources: list[tuple[Codes, int] | None] = []
    values: list[Ids] = []
    offsets = [np.zeros(1, np.int64)]
    n_rows = n_values = 0
    for segment in segments:
        text = segment[-1] if segment and segment[-1].width is None else None
        if text is None:
            sources.append(None)
            continue
        sources.append((codes_of(text.codes, 0, 1 << 62), n_rows))
        values.append(text.values[: text.offsets[-1]])
        offsets.append(text.offsets[1:] + n_values)
        n_rows += len(text.offsets) - 1
        n_values += int(text.offsets[-1])
    spare = np.zeros(lanes, dtype)
    offsets.append(np.array([n_values]))
    return _Texts(sources, np.concatenate([*values, spare]), np.concatenate(offsets))


def _length_of_texts(texts: _Texts) -> int:
    return sum(
        compiled(_loop_length)(frozen(codes), frozen(texts.offsets[row:]))
        for codes, row in filter(None, texts.sources)
    )


def _codes(source: Codes | Binned | Stepped, start: int, stop: int, codes: Int32Array) -> Codes:
    """Codes of a block, computed into ``codes`` where the column is of numbers."""
    codes = codes[: stop - start]
    if isinstance(source, Binned) and (table := cells(source.edges)) is not None:
        numbers = frozen(source.numbers[start:stop])
        compiled(_loop_bins)(numbers, numbers.view(np.uint64), source.absolute, *table, codes)
    elif isinstance(source, Stepped) and source.unit > 1:
        times = frozen(source.times[start:stop])
        compiled(_loop_steps)(times, source.unit, source.first, codes)
        if source.missing is not None:
            codes[source.missing[start:stop]] = 0
    else:
        return frozen(codes_of(source, start, stop))
    return frozen(codes)


# Plain Python below is compiled by numba. Indices are made unsigned, which spares numba the
# question whether they count from the end.


def _loop_bins(
    numbers: Any, bits: Any, absolute: bool, shift: int, below: Any, edge: Any, codes: Any
) -> None:
    # See `cells`. Every choice is one of two values, which needs no branch.
    sign = np.uint64(1 << 63)
    for i in range(len(numbers)):
        x = abs(numbers[i]) if absolute else numbers[i]
        negative = bits[i] > sign and not absolute
        cell = (~bits[i] if negative else bits[i] | sign) >> np.uint64(shift)
        codes[i] = (1 + below[cell] + (x >= edge[cell])) if x == x else 0


def _loop_steps(times: Any, unit: int, first: int, codes: Any) -> None:
    # A product with the reciprocal is a step off at most, which the remainder tells; divisions of
    # 64-bit integers would take several times as long.
    per_unit = 1.0 / unit
    for i in range(len(times)):
        step = np.int64(times[i] * per_unit)
        rest = times[i] - step * unit
        codes[i] = step + (rest >= unit) - (rest < 0) - first + 1


def _loop_add(codes: Any, tables: Any, words: Any) -> None:
    for word in range(len(tables)):
        for event in range(len(codes)):
            words[word, event] |= tables[word, np.uint64(codes[event])]


def _loop_length(codes: Any, offsets: Any) -> int:
    total = 0
    for event in range(len(codes)):
        row = np.uint64(codes[event])
        total += offsets[row + np.uint64(1)] - offsets[row]
    return total


def _loop_write(
    words: Any, counts: Any, widths: Any, rows: Any, offsets: Any, values: Any, ids: Any,
    lanes: int, ends: Any, position: int,
) -> int:  # fmt: skip
    for event in range(len(ends)):
        word = 0
        for segment in range(len(widths)):
            target = position
            for _ in range(counts[segment]):
                ids[np.uint64(target)] = words[word, event]
                word += 1
                target += lanes
            position += widths[segment]
            row = np.uint64(rows[segment, event])
            source, stop = offsets[row], offsets[row + np.uint64(1)]
            length = stop - source
            target = position
            while source < stop:
                ids[np.uint64(target)] = values[np.uint64(source)]
                source += lanes
                target += lanes
            position += length
        ends[event] = position
    return position
