"""Which characters a vocabulary of single characters has: those of the text, then Unicode's.

::

    characters of the text   most frequent first, ties by code point
    ASCII                    printable, newline, tab, carriage return
    Unicode's blocks         Latin-1, Latin Extended, … Greek, Cyrillic, … by code point
    the rest                 control characters, private use, code points without a character

Which code points are characters is what this Python knows (``unicodedata.unidata_version``).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache

import numpy as np
import numpy.typing as npt

_POINTS = 0x110000
_SURROGATES = range(0xD800, 0xE000)
SCALARS = _POINTS - len(_SURROGATES)
"""Code points that can stand in a text."""


def count_characters(texts: Iterable[str]) -> Counter[str]:
    """How often each character occurs; lone surrogates are left out, since no UTF-8 spells them.

    Example:
        >>> count_characters(["abba", "b"]).most_common()
        [('b', 3), ('a', 2)]
    """
    counts = np.zeros(_POINTS, np.int64)
    for text in texts:
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        if len(points) < _POINTS // 64:  # many short texts: the table is not worth its zeros
            found, times = np.unique(points, return_counts=True)
            counts[found] += times
        else:
            counts += np.bincount(points, minlength=_POINTS)
    counts[_SURROGATES.start : _SURROGATES.stop] = 0
    there = np.flatnonzero(counts)
    return Counter({chr(point): int(counts[point]) for point in there.tolist()})


def by_frequency(counts: Mapping[str, int]) -> list[str]:
    """Characters, the most frequent first; ties by code point.

    Example:
        >>> by_frequency({"b": 2, "z": 1, "a": 1})
        ['b', 'a', 'z']
    """
    return sorted(counts, key=lambda char: (-counts[char], char))


@cache
def unicode_order() -> npt.NDArray[np.uint32]:
    """All code points but surrogates, in the order in which they fill a vocabulary up, uint32.

    Example:
        >>> "".join(map(chr, unicode_order()[:4])), len(unicode_order())
        (' !"#', 1112064)
    """
    points = np.concatenate(
        [np.arange(_SURROGATES.start), np.arange(_SURROGATES.stop, _POINTS)]
    ).astype(np.uint32)
    text = points.astype("<u4").tobytes().decode("utf-32-le")
    kinds = np.frombuffer("".join(map(unicodedata.category, text)).encode(), "S2")
    ranks = np.zeros(len(points), np.uint8)
    for rank, kind in enumerate((b"Cc", b"Co", b"Cn"), start=1):  # control, private, no character
        ranks[kinds == kind] = rank
    ranks[[ord("\n"), ord("\t"), ord("\r")]] = 0
    order = points[np.argsort(ranks, kind="stable")]
    blanks = np.array([ord("\t"), ord("\n"), ord("\r")], np.uint32)
    ascii_printable = np.arange(0x20, 0x7F, dtype=np.uint32)
    first = np.concatenate([ascii_printable, blanks])
    return np.concatenate([first, order[~np.isin(order, first)]])
