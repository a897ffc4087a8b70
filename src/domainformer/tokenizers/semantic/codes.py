"""The number that tells apart entities with the same codes, and room for new ones.

::

    codes        number                    a new entity with codes 17 203 4
    17 203 4     0   (first by name)       ─▶ number 2, the next free one
    17 203 4     1
    17  90 1     0

Numbers follow the names of the entities, so they depend on no order of rows. A group that is full
sends a new entity on to the next nearest code of the last level.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from domainformer.errors import TokenizerError

Int32s = npt.NDArray[np.int32]

_FEWEST_NUMBERS = 8


def group_numbers(codes: Int32s, names: Sequence[str]) -> Int32s:
    """A number per entity that is unique among those with its codes, from 0 in order of names.

    Args:
        codes: ``[n, levels]``.
        names: ``[n]``, distinct.

    Example:
        >>> group_numbers(np.array([[1, 2], [1, 2], [0, 2]], np.int32), ["b", "a", "c"]).tolist()
        [1, 0, 0]
    """
    order = np.array(sorted(range(len(names)), key=names.__getitem__), np.int64)
    if not len(order):
        return np.empty(0, np.int32)
    group = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)[order]
    # Within groups, in order of names: the place in the group is the distance from its begin.
    by_group = np.argsort(group, kind="stable")
    sorted_groups = group[by_group]
    begins = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    place = np.arange(len(order)) - np.repeat(begins, np.diff(np.r_[begins, len(order)]))
    numbers = np.empty(len(order), np.int32)
    numbers[order[by_group]] = place
    return numbers


def room_for(numbers: Int32s) -> int:
    """How many number tokens to make: twice the largest group, as a power of two, at least 8.

    The vocabulary is fixed by the fit, and new entities will join the groups.

    Example:
        >>> room_for(np.array([0, 0, 1])), room_for(np.array([0, 1, 2, 3, 4, 5, 6]))
        (8, 16)
    """
    largest = int(numbers.max(initial=0)) + 1
    return max(_FEWEST_NUMBERS, 1 << (2 * largest - 1).bit_length())


def number_new(
    taken: Int32s, names: Sequence[str], codes: Int32s, last_codes: Int32s, room: int
) -> Int32s:
    """Full ids of new entities beside those that exist.

    Args:
        taken: Codes and number of the entities so far, ``[m, levels + 1]``.
        names: New entities; they are numbered in the order of their names.
        codes: Their codes, ``[n, levels]``.
        last_codes: Codes of the last level, nearest first, ``[n, n_codes]``.
        room: Number tokens of the vocabulary.

    Returns:
        Codes and number, int32 ``[n, levels + 1]``.

    Raises:
        TokenizerError: All groups that an entity could join are full.

    Example:
        >>> taken = np.array([[1, 0, 0], [1, 0, 1]], np.int32)
        >>> codes, order = np.array([[1, 0]], np.int32), np.array([[0, 1]], np.int32)
        >>> number_new(taken, ["new"], codes, order, room=4).tolist()
        [[1, 0, 2]]
        >>> number_new(taken, ["new"], codes, order, room=2).tolist()
        [[1, 1, 0]]
    """
    # Every number is given in turn, so the next free one of a group is one past its largest.
    next_free: dict[tuple[int, ...], int] = {}
    for *group, number in taken.tolist():
        key = tuple(group)
        next_free[key] = max(next_free.get(key, 0), number + 1)
    full = np.empty((len(names), taken.shape[1]), np.int32)
    for row in sorted(range(len(names)), key=names.__getitem__):
        prefix = tuple(codes[row, :-1].tolist())
        for last in last_codes[row].tolist():
            number = next_free.get((*prefix, last), 0)
            if number < room:
                next_free[(*prefix, last)] = number + 1
                full[row] = (*prefix, last, number)
                break
        else:
            raise TokenizerError(
                f"there is no id left for the entity {names[row]!r}",
                why=f"all groups of the prefix {prefix} have {room} members",
                next_step="refit the semantic ids with more codes or levels",
            )
    return full
