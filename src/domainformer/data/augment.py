"""Training histories in which some values are replaced, the same way throughout.

A small model learns that unit 12 belongs to directorate 3, and keeps saying so after the two were
separated. Where a training history now and then calls directorate 3 by another name from its first
event to its last, what is written in the history counts for more than what was memorised::

    as it was      BOS  dir=3 unit=12 …  dir=3 unit=12 …  dir=5 unit=40 …
    substituted    BOS  dir=8 unit=12 …  dir=8 unit=12 …  dir=5 unit=40 …
    unknown        BOS  UNK   unit=12 …  UNK   unit=12 …  dir=5 unit=40 …
    missing        BOS  NONE  unit=12 …  NONE  unit=12 …  dir=5 unit=40 …

Only habits are renamed: values that a history shows at least three times, and in at least a tenth
of the events that have the field. The items of a basket are seldom the same twice; there renaming
would hide what is to be learned, and teach nothing of repetition.

Unknown and missing values, too, come in runs, and a model that never met one in training has no
idea what to do after it. This is word dropout (Iyyer et al. 2015, "Deep
Unordered Composition Rivals Syntactic Methods", section 3.2) for the values of a history, kept
consistent within it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from domainformer.data.tokens import Ints
from domainformer.errors import ConfigError

# What makes a value a habit: so many occurrences, and such a share of its field's.
_FEWEST = 3
_SHARE = 0.1


@dataclass(frozen=True)
class Interchangeable:
    """Ids that may stand in for each other: the values of one categorical field.

    Args:
        values: Ids of known values, without missing and unknown ones.
        absent: Ids that say that there is no known value: the field's unknown and missing tokens.
    """

    values: tuple[int, ...]
    absent: tuple[int, ...] = ()


@dataclass(frozen=True)
class ValueSubstitution:
    """Replace values of a history by others of their field, consistently.

    Each habit of the history is chosen with probability ``rate``, and all its occurrences become
    one other token: the field's unknown token, its missing token, or a value drawn at random, each
    of the three with equal probability.

    Args:
        groups: The fields, as sets of ids.
        rate: Probability of a habitual value to be replaced, in [0, 1].
        vocab_size: Number of ids.

    Raises:
        ConfigError: The rate is no probability.

    Example:
        >>> swap = ValueSubstitution([Interchangeable((5, 6, 7), (4,))], 1.0, vocab_size=9)
        >>> swap(np.array([1, 5, 8, 5, 6, 5]), np.random.default_rng(2)).tolist()
        [1, 4, 8, 4, 6, 4]
    """

    groups: Sequence[Interchangeable]
    rate: float
    vocab_size: int
    _group_of_id: npt.NDArray[np.int64] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ConfigError(
                f"{self.rate} is no probability",
                where="substitute_values",
                next_step="choose a number from 0 (off) to 1; 0.1 is a good start",
            )
        owner = np.full(self.vocab_size, -1, np.int64)
        for number, group in enumerate(self.groups):
            owner[list(group.values)] = number
        object.__setattr__(self, "_group_of_id", owner)

    def __call__(self, ids: Ints, rng: np.random.Generator) -> Ints:
        """The ids of one history with some values replaced; the input is left as it is."""
        present, counts = np.unique(ids, return_counts=True)
        groups = self._group_of_id[present]
        # One draw per value, whatever its group: the order of ids decides, nothing else.
        chosen = (rng.random(len(present)) < self.rate) & self._habits(groups, counts)
        if not chosen.any():
            return ids
        table = np.arange(self.vocab_size, dtype=ids.dtype)
        for value, number in zip(present[chosen].tolist(), groups[chosen].tolist(), strict=True):
            table[value] = self._substitute(self.groups[number], rng)
        return table[ids]

    def _habits(self, groups: Ints, counts: Ints) -> npt.NDArray[np.bool_]:
        """Which values of a history are frequent within their field; −1 is no field."""
        owned = groups >= 0
        of_field = np.bincount(groups[owned], counts[owned], minlength=len(self.groups))
        habits: npt.NDArray[np.bool_] = owned & (counts >= _FEWEST)
        habits[habits] = counts[habits] >= _SHARE * of_field[groups[habits]]
        return habits

    @staticmethod
    def _substitute(group: Interchangeable, rng: np.random.Generator) -> int:
        kind = int(rng.integers(len(group.absent) + 1))
        if kind < len(group.absent):
            return group.absent[kind]
        return group.values[int(rng.integers(len(group.values)))]


def interchangeable(
    groups: Iterable[tuple[Iterable[int], Iterable[int]]],
) -> list[Interchangeable]:
    """Groups of at least two values; fewer leave nothing to choose from.

    Example:
        >>> interchangeable([([5, 6], [4, 3]), ([8], [])])
        [Interchangeable(values=(5, 6), absent=(4, 3))]
    """
    made = [Interchangeable(tuple(values), tuple(absent)) for values, absent in groups]
    return [group for group in made if len(group.values) > 1]


__all__ = ["Interchangeable", "ValueSubstitution", "interchangeable"]
