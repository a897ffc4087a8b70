"""A 64-bit hash of whole columns that is the same in every process and on every machine.

Python's ``hash`` depends on PYTHONHASHSEED and polars' ``hash`` on its version, so neither may
decide what a fit keeps. Each value is read as 8-byte little-endian words, which are mixed in one
after the other for all values at once::

    h₀ = length · K        h ← mix(h ⊕ word)        mix: SplitMix64's finaliser

Steele et al. 2014, "Fast Splittable Pseudorandom Number Generators" (OOPSLA), section 4, for the
finaliser. The hash spreads well; it does not resist someone who looks for collisions.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import polars as pl

UInt64Array = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
# Longer texts are hashed one by one (BLAKE2b), so that a single one costs no pass over all.
_LONGEST_MIXED = 256
_WORD = 8


def stable_hash(values: pl.Series) -> UInt64Array:
    """A hash of each string or 64-bit integer of a column without nulls.

    Args:
        values: Type String or Int64, without nulls.

    Example:
        >>> [hex(h) for h in stable_hash(pl.Series(["corner shop", ""])).tolist()]
        ['0x4f3c0a1c5bd4e8f7', '0x0']
    """
    if values.dtype == pl.String:
        return _hash_texts(values)
    return mix(values.to_numpy().astype(np.int64).view(np.uint64) + _GOLDEN)


def mix(bits: UInt64Array) -> UInt64Array:
    """SplitMix64's finaliser: a bijection in which every bit changes half of the others."""
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))


def _hash_texts(texts: pl.Series) -> UInt64Array:
    if not len(texts):
        return np.empty(0, np.uint64)
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offset_bytes, data = array.buffers()
    offsets = np.frombuffer(offset_bytes, dtype=np.int64)
    offsets = offsets[array.offset : array.offset + len(array) + 1]
    starts, lengths = offsets[:-1], np.diff(offsets)
    joined = b"" if data is None else data.to_pybytes()[: int(offsets[-1])]
    hashes = lengths.astype(np.uint64) * _GOLDEN
    # Words are read at any byte, up to seven beyond the end of the last text.
    padded = joined + b"\0" * _WORD
    words = np.ndarray((len(joined) + 1,), dtype="<u8", buffer=padded, strides=(1,))
    rows = np.flatnonzero((lengths > 0) & (lengths <= _LONGEST_MIXED))
    position = 0
    while len(rows):
        left = np.minimum(lengths[rows] - position, _WORD)
        unused = ((_WORD - left) * 8).astype(np.uint64)
        word = (words[starts[rows] + position] << unused) >> unused
        hashes[rows] = mix(hashes[rows] ^ word)
        position += _WORD
        rows = rows[lengths[rows] > position]
    for row in np.flatnonzero(lengths > _LONGEST_MIXED).tolist():
        digest = hashlib.blake2b(joined[offsets[row] : offsets[row + 1]], digest_size=8).digest()
        hashes[row] = int.from_bytes(digest, "little")
    return hashes
