"""A hash of entity ids that is the same in every process, version and engine, in whole columns.

Python's ``hash`` changes with the process and polars' with the version; where an entity's events
are kept must change with neither::

    integers, booleans   splitmix64 of the 64-bit value
    strings, bytes       eight bytes at a time: h = splitmix64(h ^ word), h = splitmix64(length)
                         before the first; the last word is filled up with zero bytes

It spreads ids evenly and is not meant to withstand someone who makes ids collide on purpose: ids
that do share a bucket, nothing more.

Steele, Lea, Flood 2014, "Fast Splittable Pseudorandom Number Generators" (the mixing function).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from domainformer.errors import DataError

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_WORD = 8
# Which bits of a word are kept where 0 to 8 of its bytes belong to the string.
_KEEP = np.array([(1 << 8 * size) - 1 for size in range(_WORD + 1)], dtype=np.uint64)
# Rows at a time: what one block needs stays in the L2 cache.
_BLOCK = 1 << 13


def hash_entities(column: pa.Array) -> Hashes:
    """64-bit hashes of a column of entity ids; what a null gets has no meaning.

    Equal ids have equal hashes whatever the width of the integers, the layout of the strings, or
    whether they are stored by a dictionary.

    Args:
        column: Integers, booleans, strings or bytes, or a dictionary of these.

    Raises:
        DataError: The ids are of another type.

    Example:
        >>> plain = pa.array(["anna", "bob", "anna"])
        >>> [int(h) >> 48 for h in hash_entities(plain)]
        [5585, 9103, 5585]
        >>> bool((hash_entities(plain.dictionary_encode()) == hash_entities(plain)).all())
        True
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        codes = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        if not len(column.dictionary):
            return np.zeros(len(column), np.uint64)
        spread: Hashes = hash_entities(column.dictionary)[codes]
        return spread
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        wide = pa.uint64() if kind == pa.uint64() else pa.int64()
        values = column.cast(wide).fill_null(0).to_numpy(zero_copy_only=False)
        return _mix(values.astype(np.uint64) + _GOLDEN)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return _hash_bytes(column.cast(pa.large_binary()))
    if kind in (pa.large_string(), pa.large_binary(), pa.string_view(), pa.binary_view()):
        return _hash_bytes(column.cast(pa.large_binary()))
    raise DataError(
        f"ids of type {kind} cannot name entities",
        next_step="use an integer or string column, or cast this one to strings before",
    )


def _hash_bytes(column: pa.LargeBinaryArray) -> Hashes:
    if not len(column):
        return np.empty(0, np.uint64)
    _, offset_buffer, data_buffer = column.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[column.offset :][: len(column) + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    padded = np.zeros(last - first + _WORD, np.uint8)
    if last > first:
        padded[:-_WORD] = np.frombuffer(data_buffer, np.uint8)[first:last]
    # Every byte position as the beginning of a word of eight bytes, without a copy.
    words: Hashes = np.ndarray(len(padded) - _WORD + 1, "<u8", padded.data, strides=(1,))
    starts, lengths = offsets[:-1] - first, np.diff(offsets)
    hashes = np.empty(len(lengths), np.uint64)
    for begin in range(0, len(lengths), _BLOCK):
        part = slice(begin, begin + _BLOCK)
        hashes[part] = _hash_block(words, starts[part], lengths[part])
    return hashes


def _hash_block(words: Hashes, starts: Ints, lengths: Ints) -> Hashes:
    """Hashes of some strings, by their places among all words of eight bytes."""
    hashes = _mix(lengths.astype(np.uint64) + _GOLDEN)
    active: Ints | slice = slice(None)
    for begin in range(0, int(lengths.max()), _WORD):
        if int(lengths[active].min()) <= begin:
            active = np.flatnonzero(lengths > begin)
        rest = np.minimum(lengths[active] - begin, _WORD)
        word = words[starts[active] + begin] & _KEEP[rest]
        hashes[active] = _mix(hashes[active] ^ word)
    return hashes


def _mix(values: Hashes) -> Hashes:
    """The finaliser of splitmix64: every bit of the input moves every bit of the output."""
    values = values ^ (values >> np.uint64(30))
    values *= _FIRST
    values ^= values >> np.uint64(27)
    values *= _SECOND
    return values ^ (values >> np.uint64(31))
