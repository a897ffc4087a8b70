"""The compiled join: raw columns in, ids in the order of events out, a block at a time.

Neighbouring fields of fixed width form a *segment*, which a text (or the event's end) closes. The
ids of a segment are put together in words of 8 bytes, 4 ids of 16 bits each, because one store of a
word is as fast as one of an id::

    category   table[code]          │ c   ·   ·   · │
    sign       table[bin of x]      │ ·   s   ·   · │               or-ed together: word 0
    amount     table[bin of |x|]    │ ·   ·   a   · │
    time       table[step of t]                     │ m   d   d   h │               word 1

Each table holds whole words, its ids in their places and zeros beside them. A field that does not
fit a word begins the next one, so that it takes one look-up. Fields that read the same numbers
become one (`cells.united`). Then the events are written one after the other: the words of the
segment, the row of the text, and so on. What a word holds too much is overwritten by what follows;
a few spare ids stand at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.tokenizers.kernels.cells import Words, cells, united
from domainformer.tokenizers.kernels.compiling import compiled, frozen, overlapping_words
from domainformer.tokenizers.kernels.joining import Ids, Joined, Spans
from domainformer.tokenizers.kernels.sources import (
    Binned,
    Codes,
    Int32Array,
    Int64Array,
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
    tables: Words  # [words, rows]


@dataclass(frozen=True)
class _Plan:
    """Where the words of an event stand.

    Args:
        fields: What fills the words.
        counts: Words of each segment.
        places: For each word, of all segments, its place within the segment.
        widths: Ids of each segment without its text.
    """

    fields: list[_Fixed]
    counts: Int64Array
    places: Int64Array
    widths: Int64Array


@dataclass(frozen=True)
class _Texts:
    """The rows of all texts in one table; the last row is empty, for a segment without a text."""

    sources: list[tuple[Codes, int] | None]  # per segment: codes, and the table's row of code 0
    values: Ids
    offsets: npt.NDArray[np.integer[Any]]


def join_compiled(fields: Sequence[Spans], n_events: int, dtype: np.dtype[Any]) -> Joined:
    """See `joining.join`; ``values`` of the fields have the type ``dtype`` already."""
    lanes = 8 // dtype.itemsize
    segments = _segments(fields)
    plan, texts = _planned(segments, lanes, dtype), _texts(segments, lanes, dtype)
    total = n_events * int(plan.widths.sum()) + _length_of_texts(texts)
    ids, offsets = np.empty(total + lanes, dtype), np.empty(n_events + 1, np.int64)
    offsets[0] = 0
    words = np.empty((len(plan.places), _BLOCK), np.uint64)
    rows = np.full((len(segments), _BLOCK), len(texts.offsets) - 2, np.int32)
    codes = np.empty(_BLOCK, np.int32)
    table = (frozen(texts.offsets), overlapping_words(texts.values), overlapping_words(ids))
    position = 0
    for start in range(0, n_events, _BLOCK):
        stop = min(start + _BLOCK, n_events)
        words.fill(0)
        for field in plan.fields:
            found = _codes(field.source, start, stop, codes)
            compiled(_loop_add)(found, field.tables, words[field.words])
        for row, source in zip(rows, texts.sources, strict=True):
            if source is not None:
                found, first_row = source
                np.add(found[start:stop], first_row, out=row[: stop - start], casting="unsafe")
        ends = offsets[start + 1 : stop + 1]
        position = compiled(_loop_write)(
            words, plan.counts, plan.places, plan.widths, rows, *table, lanes, ends, position
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


def _planned(segments: list[list[Spans]], lanes: int, dtype: np.dtype[Any]) -> _Plan:
    """Give every field of fixed width its words."""
    fields: list[_Fixed] = []
    counts: list[int] = []
    places: list[int] = []
    widths: list[int] = []
    for segment in segments:
        before, place, begin = len(places), 0, 0  # begin: where the current word stands
        for field in segment:
            if not field.width:
                continue
            if place == begin or place + field.width > begin + lanes:
                begin = place
                places.append(begin)
            first = len(places) - 1
            for _ in range(lanes, field.width, lanes):
                begin += lanes
                places.append(begin)
            padded = np.zeros((len(field.table), (len(places) - first) * lanes), dtype)
            shift = place - places[first]
            padded[:, shift : shift + field.width] = field.table
            words = padded.view(np.uint64).T
            fields.append(_Fixed(field.codes, slice(first, len(places)), frozen(words)))
            place += field.width
        counts.append(len(places) - before)
        widths.append(place)
    return _Plan(_united(fields), *(np.array(each, np.int64) for each in (counts, places, widths)))


def _united(fields: list[_Fixed]) -> list[_Fixed]:
    """The fields, those that bin the same numbers as one."""
    found: list[_Fixed] = []
    for field in fields:
        source = field.source
        twin = next((i for i, other in enumerate(found) if _same_numbers(other, field)), None)
        if twin is None or not isinstance(source, Binned):
            found.append(field)
            continue
        other = found[twin]
        assert isinstance(other.source, Binned)
        both, (code, other_code) = united(source, other.source)
        if cells(both.edges) is None:
            found.append(field)
            continue
        first = min(field.words.start, other.words.start)
        stop = max(field.words.stop, other.words.stop)
        tables = np.zeros((stop - first, len(code)), np.uint64)
        for part, codes in ((field, code), (other, other_code)):
            tables[part.words.start - first : part.words.stop - first] |= part.tables[:, codes]
        found[twin] = _Fixed(both, slice(first, stop), frozen(tables))
    return found


def _same_numbers(one: _Fixed, other: _Fixed) -> bool:
    return (
        isinstance(one.source, Binned)
        and isinstance(other.source, Binned)
        and one.source.numbers.__array_interface__ == other.source.numbers.__array_interface__
    )


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
    # Half the bytes where they suffice: the table is looked up at random.
    small = np.int32 if n_values < 1 << 31 else np.int64
    return _Texts(sources, np.concatenate([*values, spare]), np.concatenate(offsets).astype(small))


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
    words: Any, counts: Any, places: Any, widths: Any, rows: Any,
    offsets: Any, values: Any, ids: Any, lanes: int, ends: Any, position: int,
) -> int:  # fmt: skip
    for event in range(len(ends)):
        word = 0
        for segment in range(len(widths)):
            for _ in range(counts[segment]):
                ids[np.uint64(position + places[word])] = words[word, event]
                word += 1
            position += widths[segment]
            row = np.uint64(rows[segment, event])
            source, stop = np.int64(offsets[row]), np.int64(offsets[row + np.uint64(1)])
            target = position
            position += int(stop - source)
            while source < stop:
                ids[np.uint64(target)] = values[np.uint64(source)]
                source += lanes
                target += lanes
        ends[event] = position
    return position
