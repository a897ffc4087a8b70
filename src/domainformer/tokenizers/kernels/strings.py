"""Columns of strings as codes into their distinct strings, straight from Arrow's buffers.

Arrow keeps a string as a *view* of 16 bytes, ``length · first 4 bytes · buffer · offset``; up to
12 bytes stand in the view itself. A hash table with linear probing numbers the strings in order of
appearance: equal views are equal strings, else a hash of the content decides where to look and
the bytes decide whether two are equal. Nothing is looked at twice, and no Python string is made.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from domainformer.tokenizers.kernels.compiling import compiled, frozen, overlapping_words
from domainformer.tokenizers.kernels.sources import Int32Array, Int64Array

Words = npt.NDArray[np.uint64]

_SMALLEST_TABLE = 12  # bits
_GROWTH = 2  # bits
# Rows that are numbered first, to see whether strings repeat at all.
_SAMPLE = 1 << 16
# Slots for short strings seen lately.
_RECENT = 1 << 12


class Distinct(NamedTuple):
    """Rows by their distinct values: row ``first[codes[i]]`` equals row ``i``."""

    codes: Int32Array
    first: Int64Array


class Views(NamedTuple):
    """A column of strings in memory.

    Attributes:
        views: uint64 [n_rows, 2].
        words: All string buffers one after the other, every byte the beginning of a word.
        base: Where each buffer begins in them.
    """

    views: Words
    words: Words
    base: Int64Array


def string_views(column: pl.Series) -> Views | None:
    """The views and buffers of a column without nulls; None where Arrow keeps it otherwise."""
    array = column.to_arrow(compat_level=pl.CompatLevel.newest())
    if array.type != pa.string_view():
        return None
    _, held, *buffers = array.buffers()
    views = np.frombuffer(held, dtype=np.uint64).reshape(-1, 2)
    views = frozen(views[array.offset : array.offset + len(array)])
    # A slice of a large column holds all its buffers; only those that it points to are joined.
    used = np.zeros(len(buffers), np.bool_)
    compiled(_loop_used)(views, used)
    parts = [
        np.frombuffer(buffer, np.uint8) if use else np.empty(0, np.uint8)
        for buffer, use in zip(buffers, used.tolist(), strict=True)
    ]
    base = np.cumsum([0, *map(len, parts)])
    words = overlapping_words(np.concatenate([*parts, np.zeros(8, np.uint8)]))
    return Views(views, words, base)


def distinct_strings(column: Views, *, most: float = 1.0) -> Distinct | None:
    """Number the strings of a column in order of appearance.

    Args:
        column: What `string_views` gave.
        most: Give up, and return None, if of the first 65,536 strings more than this share are
            distinct.

    Returns:
        None also where two strings have one hash of 64 bits.
    """
    sample = column._replace(views=column.views[:_SAMPLE])
    if most < 1 and len(column.views) > _SAMPLE:
        found = _numbered(sample)
        if found is None or len(found.first) > most * _SAMPLE:
            return None
    return _numbered(column)


def distinct_codes(codes: npt.NDArray[Any], n_codes: int) -> Int64Array:
    """The first row of each code of a dictionary column; −1 for codes that do not occur.

    Args:
        codes: Codes, each below ``n_codes``.
        n_codes: Length of the dictionary, which other columns may share.
    """
    first = np.full(n_codes, -1, np.int64)
    compiled(_loop_first)(frozen(codes), first)
    return first


def _numbered(column: Views) -> Distinct | None:
    views, words, base = column
    # Dictionaries of Parquet files store a string once per row group: equal places are told apart
    # from one another at a few nanoseconds a row, and shrink what is hashed many times over.
    codes, rows = np.empty(len(views), np.int32), np.empty(len(views), np.int64)
    stored = np.zeros(len(words) // 8 + 1, np.uint64)
    recent = np.zeros((_RECENT, 3), np.uint64)
    n_stored = compiled(_loop_stored)(views, base, stored, recent, codes, rows)
    rows = rows[:n_stored]
    held = frozen(views[rows])
    hashes = np.empty(n_stored, np.uint64)
    compiled(_loop_hash)(held, words, base, hashes)
    number, first = _number(hashes)
    if not compiled(_loop_equal)(held, frozen(held[first]), words, base, number):
        return None
    compiled(_loop_renumber)(codes, number)
    return Distinct(codes, rows[first])


def _number(hashes: Words) -> Distinct:
    """Number hashes in order of appearance, by a table that grows when it is half full."""
    codes = np.empty(len(hashes), np.int32)
    first = np.empty(0, np.int64)
    bits, done, count = _SMALLEST_TABLE, 0, 0
    while done < len(hashes):
        first = np.concatenate([first[:count], np.empty((1 << (bits - 1)) - count, np.int64)])
        slots = np.zeros(1 << bits, np.uint64)
        compiled(_loop_rehash)(hashes, first, count, slots, 64 - bits)
        done, count = compiled(_loop_number)(hashes, codes, done, slots, 64 - bits, first, count)
        bits += _GROWTH
    return Distinct(codes, first[:count])


# Plain Python below is compiled by numba.


def _loop_first(codes: Any, first: Any) -> None:
    for row in range(len(codes)):
        code = np.uint64(codes[row])
        if first[code] < 0:
            first[code] = row


def _loop_used(views: Any, used: Any) -> None:
    for row in range(len(views)):
        if (views[row, 0] & np.uint64(0xFFFFFFFF)) > np.uint64(12):
            used[views[row, 1] & np.uint64(0xFFFFFFFF)] = True


def _loop_stored(
    views: Any, base: Any, stored: Any, recent: Any, codes: Any, rows: Any
) -> int:  # fmt: skip
    # Strings of more than 12 bytes cannot begin in the same 8 bytes, unless they overlap: an entry
    # says where in them, and how long it is (upper half), and which code it has, plus one.
    half, low, mix = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(0x9E3779B97F4A7C15)
    count = 0
    for row in range(len(views)):
        head, tail = views[row, 0], views[row, 1]
        if (head & low) > np.uint64(12):
            place = np.uint64(base[tail & low]) + (tail >> half)
            stamp = ((head << np.uint64(3)) | (place & np.uint64(7))) << half
            entry = stored[place >> np.uint64(3)]
            if (entry ^ stamp) <= low and entry & low and (head & low) < np.uint64(1 << 29):
                codes[row] = np.int64(entry & low) - 1
                continue
            stored[place >> np.uint64(3)] = stamp | np.uint64(count + 1)
        else:
            slot = (((head * mix) ^ tail) * mix) >> np.uint64(52)
            if recent[slot, 0] == head and recent[slot, 1] == tail and recent[slot, 2]:
                codes[row] = np.int64(recent[slot, 2]) - 1
                continue
            recent[slot, 0], recent[slot, 1] = head, tail
            recent[slot, 2] = count + 1
        codes[row], rows[count] = count, row
        count += 1
    return count


def _loop_hash(views: Any, words: Any, base: Any, hashes: Any) -> None:
    # Odd 64-bit constants that spread the bits of a word (splitmix64).
    mix, spread = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
    half, low, eight = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(8)
    for row in range(len(views)):
        head, tail = views[row, 0], views[row, 1]
        key = head
        if (head & low) > np.uint64(12):
            # Words of eight bytes; the last overlaps the one before, so that it ends the string.
            at = np.uint64(base[tail & low]) + (tail >> half)
            last = at + (head & low) - eight
            while at < last:
                key = (key ^ words[at]) * mix
                key ^= key >> half
                at += eight
            tail = words[last]
        key = (key ^ (tail * mix)) * spread
        key ^= key >> half
        hashes[row] = key * mix


def _loop_rehash(hashes: Any, first: Any, count: int, slots: Any, shift: int) -> None:
    mask, low = np.uint64(len(slots) - 1), np.uint64(0xFFFFFFFF)
    for code in range(count):
        key = hashes[first[code]]
        slot = key >> np.uint64(shift)
        while slots[slot]:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = (key & ~low) | np.uint64(code + 1)


def _loop_number(
    hashes: Any, codes: Any, start: int, slots: Any, shift: int, first: Any, count: int
) -> tuple[int, int]:
    # A slot holds the upper half of a hash and, in the lower, the code plus one; 0 is empty.
    mask, low = np.uint64(len(slots) - 1), np.uint64(0xFFFFFFFF)
    for row in range(start, len(hashes)):
        key = hashes[row]
        slot = key >> np.uint64(shift)
        code: Any = -1
        while slots[slot]:
            if (slots[slot] ^ key) <= low:
                code = np.int64(slots[slot] & low) - 1
                if hashes[first[code]] == key:
                    break
                code = -1
            slot = (slot + np.uint64(1)) & mask
        if code < 0:
            if count == len(first):
                return row, count
            code = count
            slots[slot] = (key & ~low) | np.uint64(code + 1)
            first[code] = row
            count += 1
        codes[row] = code
    return len(hashes), count


def _loop_equal(views: Any, known: Any, words: Any, base: Any, codes: Any) -> bool:
    # Differences are gathered and asked for at the end: without a branch the reads overlap.
    half, low, eight = np.uint64(32), np.uint64(0xFFFFFFFF), np.uint64(8)
    different = np.uint64(0)
    for row in range(len(views)):
        head, tail = views[row, 0], views[row, 1]
        code = np.uint64(codes[row])
        other_tail = known[code, 1]
        different |= head ^ known[code, 0]
        if (head & low) <= np.uint64(12):
            different |= tail ^ other_tail
        elif different == 0:
            here = np.uint64(base[tail & low]) + (tail >> half)
            there = np.uint64(base[other_tail & low]) + (other_tail >> half)
            last = (head & low) - eight
            different |= words[here + last] ^ words[there + last]
            at = np.uint64(0)
            while at < last:
                different |= words[here + at] ^ words[there + at]
                at += eight
    return different == 0


def _loop_renumber(codes: Any, number: Any) -> None:
    for row in range(len(codes)):
        codes[row] = number[np.uint64(codes[row])]
