"""Plain loops as machine code, where numba is installed (extra ``fast``)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.errors import MissingExtraError

# Below, the calls of a dozen loops take longer than what they save.
_FEWEST_COMPILED = 1 << 13


def numba_available() -> bool:
    """Whether the compiled path can be used (extra ``fast``)."""
    return importlib.util.find_spec("numba") is not None


def worth_compiling(n_events: int) -> bool:
    """Whether the compiled path is taken, unless said: from some thousand events on."""
    return n_events >= _FEWEST_COMPILED and numba_available()


@cache
def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """A loop over arrays as machine code, kept on disk, so that only the first run compiles.

    Args:
        loop: A function of arrays and numbers that calls no other function of ours.

    Raises:
        MissingExtraError: numba is not installed.
    """
    try:
        import numba
    except ImportError:
        raise MissingExtraError("numba", extra="fast", purpose="the compiled encoder") from None
    fast: Callable[..., Any] = numba.njit(cache=True, nogil=True)(loop)
    return fast


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array as one that is only read, in C order.

    numba compiles anew for every kind of array, so inputs are all given as one kind: columns of a
    table are read-only already.
    """
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view


def overlapping_words(ids: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Every place of an array as the beginning of a word of 8 bytes.

    ::

        ids     │ a │ b │ c │ d │ e │ f │ …        uint16: 4 ids are one word
        word 0  ╰───────────────╯
        word 1      ╰───────────────╯

    ``words[i] = …`` writes ``ids[i : i + 4]`` in one instruction. The last ids begin no word.

    Example:
        >>> ids = np.zeros(6, np.uint16)
        >>> overlapping_words(ids)[1] = np.array([7, 8, 9, 10], np.uint16).view(np.uint64)[0]
        >>> ids
        array([ 0,  7,  8,  9, 10,  0], dtype=uint16)
    """
    size = ids.itemsize
    count = max(0, len(ids) - 8 // size + 1)
    return np.ndarray((count,), np.uint64, buffer=ids.data, strides=(size,))
