"""Byte-level BPE as a compiled loop over the bytes of plain texts.

A text is *plain* if it is printable ASCII without an opening bracket, in words of moderate length:
then nothing in it has to be escaped, GPT-2's word pattern is a matter of four classes of bytes, and
each byte is one character. That is almost every text of an event table. The others are marked, and
go to the Hugging Face model.

Within a word the neighbours with the earliest merge are joined, leftmost first, until no neighbours
have a merge (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units",
algorithm 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from domainformer.tokenizers.kernels.compiling import compiled, frozen
from domainformer.tokenizers.kernels.joining import Ids
from domainformer.tokenizers.kernels.sources import Int64Array

_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)
_MIX = 0x9E3779B97F4A7C15
_LONGEST_WORD = 64
_SPACE, _LETTER, _DIGIT, _OTHER, _NOT_PLAIN = range(5)


class Merges(NamedTuple):
    """A BPE model as arrays.

    Attributes:
        of_byte: Id of each byte, int64 [256].
        keys: Hash table of pairs of ids, ``left << 32 | right``; all ones where empty.
        made: For each key ``rank << 32 | id`` of what the pair becomes.
        sizes: Bytes of each id.
    """

    of_byte: Int64Array
    keys: npt.NDArray[np.uint64]
    made: npt.NDArray[np.uint64]
    sizes: Int64Array

    @classmethod
    def of(
        cls,
        token_bytes: Sequence[bytes],
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
    ) -> Merges:
        """The arrays of a model.

        Args:
            token_bytes: What each id spells.
            vocab: Token → id.
            merges: Pairs of tokens, in order of rank; their union is in ``vocab``.
        """
        of_byte = np.zeros(256, np.int64)
        for token_id, spelt in enumerate(token_bytes):
            if len(spelt) == 1:
                of_byte[spelt[0]] = token_id
        bits = max(4, (4 * len(merges)).bit_length())
        keys, made = np.full(1 << bits, _NONE), np.full(1 << bits, _NONE)
        for rank, (left, right) in enumerate(merges):
            key = vocab[left] << 32 | vocab[right]
            slot = (key * _MIX & 0xFFFFFFFFFFFFFFFF) >> (64 - bits)
            while keys[slot] != _NONE and keys[slot] != key:
                slot = (slot + 1) % len(keys)
            keys[slot], made[slot] = key, rank << 32 | vocab[left + right]
        sizes = np.array([len(spelt) for spelt in token_bytes], np.int64)
        return cls(frozen(of_byte), frozen(keys), frozen(made), frozen(sizes))


class PlainTexts(NamedTuple):
    """Ids of texts: ``values[offsets[i]:offsets[i + 1]]`` is text ``i``, nothing unless plain."""

    values: Ids
    offsets: Int64Array
    plain: npt.NDArray[np.bool_]


def encode_plain(
    text: npt.NDArray[np.uint8], offsets: Int64Array, budget: int, merges: Merges, names: Ids
) -> PlainTexts:
    """Rows of ids of plain texts, each a marker and then at most ``budget`` ids.

    Args:
        text: UTF-8 of all texts, one after the other.
        offsets: Where each begins, one more than texts.
        budget: A longer text is cut as `BytePairModel.truncate` cuts it.
        merges: The model.
        names: What to write: for the marker ``names[0]``, for the model's id i ``names[1 + i]``.
    """
    lengths = np.diff(offsets)
    values = np.empty(int(np.minimum(lengths, budget).sum()) + len(lengths), names.dtype)
    ends, plain = np.zeros(len(lengths) + 1, np.int64), np.empty(len(lengths), np.bool_)
    compiled(_loop_encode)(
        frozen(text), frozen(offsets), budget, int(merges.sizes.max()), *merges,
        frozen(_classes()), frozen(names), values, ends[1:], plain,
    )  # fmt: skip
    return PlainTexts(values[: ends[-1]], ends, plain)


def _classes() -> npt.NDArray[np.uint8]:
    """The class of each byte in GPT-2's pattern of words."""
    classes = np.full(256, _NOT_PLAIN, np.uint8)
    for byte in range(0x20, 0x7F):
        character = chr(byte)
        classes[byte] = (
            _LETTER if character.isalpha()
            else _DIGIT if character.isdigit()
            else _SPACE if character == " "
            else _OTHER
        )  # fmt: skip
    classes[ord("[")] = _NOT_PLAIN
    return classes


# Plain Python below is compiled by numba.


def _loop_encode(
    text: Any, offsets: Any, budget: int, longest: int,
    of_byte: Any, keys: Any, made: Any, sizes: Any,
    classes: Any, names: Any, values: Any, ends: Any, plain: Any,
) -> None:  # fmt: skip
    none, mix = np.uint64(0xFFFFFFFFFFFFFFFF), np.uint64(0x9E3779B97F4A7C15)
    half, one, low = np.uint64(32), np.uint64(1), np.uint64(0xFFFFFFFF)
    mask = np.uint64(len(keys) - 1)
    shift = np.uint64(64)
    while (one << (np.uint64(64) - shift)) < len(keys):
        shift -= one
    pieces, merge = np.empty(_LONGEST_WORD, np.uint64), np.empty(_LONGEST_WORD, np.uint64)
    written = 0
    for row in range(len(plain)):
        begin = offsets[row]
        # No token is longer than `longest`, so the rest of a very long text cannot count.
        end = min(offsets[row + 1], begin + budget * longest)
        good = True
        for at in range(begin, end):
            good &= classes[text[at]] != _NOT_PLAIN
        first_try, done = True, False
        while good and not done:
            values[written] = names[0]
            count = spelt = 0
            at = begin
            while at < end and count <= budget and good:
                # ── the next word: text[at:stop] ──
                here = classes[text[at]]
                follows = classes[text[at + 1]] if at + 1 < end else _NOT_PLAIN
                stop = at + 1
                if text[at] == 39 and follows == _LETTER:  # 's 't 'm 'd 're 've 'll
                    a = text[at + 1]
                    b = text[at + 2] if at + 2 < end else 0
                    if a == 115 or a == 116 or a == 109 or a == 100:
                        stop = at + 2
                    elif ((a == 114 or a == 118) and b == 101) or (a == 108 and b == 108):
                        stop = at + 3
                elif here == _SPACE and follows in (_SPACE, _NOT_PLAIN):
                    # Blanks, but the last of them belongs to the word that follows.
                    while stop < end and classes[text[stop]] == _SPACE:
                        stop += 1
                    if stop < end:
                        stop -= 1
                else:
                    if here == _SPACE:
                        here = follows
                        stop += 1
                    while stop < end and classes[text[stop]] == here:
                        stop += 1
                size = stop - at
                if size > _LONGEST_WORD:
                    good = False
                    break
                # ── its merges ──
                for i in range(size):
                    pieces[i] = of_byte[text[at + i]]
                stale, fresh = 0, size - 1
                while True:
                    for i in range(stale, fresh):
                        key = (pieces[i] << half) | pieces[i + 1]
                        slot = (key * mix) >> shift
                        while keys[slot] != key and keys[slot] != none:
                            slot = (slot + one) & mask
                        merge[i] = made[slot]
                    best, earliest = 0, none
                    for i in range(size - 1):
                        if merge[i] < earliest:
                            best, earliest = i, merge[i]
                    if earliest == none:
                        break
                    pieces[best] = earliest & low
                    size -= 1
                    for i in range(best + 1, size):
                        pieces[i] = pieces[i + 1]
                        merge[i] = merge[i + 1]
                    stale, fresh = max(best - 1, 0), min(best + 1, size - 1)
                # ── its ids ──
                for i in range(size):
                    if count < budget:
                        values[written + 1 + count] = names[pieces[i] + one]
                        spelt += sizes[pieces[i]]
                    count += 1
                at = stop
            done = count <= budget
            if not done:
                # What the first ids spell may by itself be longer; then it loses characters.
                end = begin + spelt if first_try else end - 1
                first_try = False
        plain[row] = good
        if good:
            written += 1 + count
        ends[row] = written
