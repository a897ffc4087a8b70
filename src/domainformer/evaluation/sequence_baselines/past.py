"""What a group of events has seen of a value before an event, for any (event, value) pairs.

A group is an entity, or an entity in a context (its transitions from one value). Occurrences are
sorted once by (group, value, event), so each question is a binary search; decayed counts are kept
at every occurrence and carried forward from the last one. No loop over groups, no dense table.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Past:
    """Occurrences of values in groups.

    Args:
        group: Group of each event, ``[events]``; negative belongs to none.
        values: Value of each event, ``[events]``.
        n_values: Number of values.

    Example:
        >>> past = Past(np.array([0, 0, 0, 1]), np.array([5, 5, 2, 5]), 6)
        >>> past.count(np.array([2, 2, 3]), np.array([5, 2, 5]))
        array([2, 0, 0])
        >>> past.last(np.array([2, 2]), np.array([5, 2]))
        array([ 1, -1])
    """

    group: Ints
    values: Ints
    n_values: int
    _keys: Ints = field(init=False, repr=False)
    _order: Ints = field(init=False, repr=False)

    def __post_init__(self) -> None:
        used = np.flatnonzero(self.group >= 0)
        keys = self._key(self.group[used], self.values[used], used)
        order = np.argsort(keys, kind="stable")
        object.__setattr__(self, "_keys", keys[order])
        object.__setattr__(self, "_order", used[order])

    def count(self, events: Ints, values: Ints, *, since: Ints | None = None) -> Ints:
        """How often each value came in the event's group, strictly before it.

        Args:
            events: ``[n]``.
            values: ``[n]``.
            since: Count from this event on, ``[n]``; None: from the beginning.
        """
        group = self.group[events]
        first = np.zeros(len(events), np.int64) if since is None else since
        n = self._found(group, values, events) - self._found(group, values, first)
        return np.where(group >= 0, n, 0)

    def last(self, events: Ints, values: Ints) -> Ints:
        """The event at which each value came last in the group, ``[n]``; −1 for never."""
        if not len(self._keys):
            return np.full(len(events), -1, np.int64)
        group = self.group[events]
        place = self._found(group, values, events)
        some = (group >= 0) & (place > self._found(group, values, np.zeros_like(events)))
        return np.where(some, self._order[np.maximum(place - 1, 0)], -1)

    def decayed(
        self, events: Ints, values: Ints, clock: Floats, now: Floats, scale: float
    ) -> Floats:
        """``Σ exp(−(now − clock_j)/scale)`` over earlier occurrences j, ``[n]``.

        Args:
            events: ``[n]``.
            values: ``[n]``.
            clock: Never falling within a group, ``[all events]``: a time, or a rank.
            now: The clock at which each event asks, ``[n]``.
            scale: In units of the clock.
        """
        if not len(self._keys):
            return np.zeros(len(events))
        sums = self._running(clock, scale)
        group = self.group[events]
        place = self._found(group, values, events)
        some = (group >= 0) & (place > self._found(group, values, np.zeros_like(events)))
        at = np.maximum(place - 1, 0)
        faded = np.exp(-np.maximum(now - clock[self._order[at]], 0.0) / scale)
        return np.where(some, sums[at] * faded, 0.0)

    def _running(self, clock: Floats, scale: float) -> Floats:
        """The decayed count at each occurrence, itself included."""
        pair = self._keys // len(self.group)
        ticks = clock[self._order]
        kept = np.zeros(len(pair))
        kept[1:] = np.where(
            pair[1:] == pair[:-1], np.exp(-np.maximum(np.diff(ticks), 0.0) / scale), 0.0
        )
        sums, total = [], 0.0
        for factor in kept.tolist():
            total = 1.0 + factor * total
            sums.append(total)
        return np.array(sums)

    def _found(self, group: Ints, values: Ints, events: Ints) -> Ints:
        return np.searchsorted(self._keys, self._key(np.maximum(group, 0), values, events))

    def _key(self, group: Ints, values: Ints, events: Ints) -> Ints:
        return (group * self.n_values + values) * len(self.group) + events


def ranks(group: Ints) -> Ints:
    """How many events of its group come before each event, ``[events]``; 0 for no group.

    Example:
        >>> ranks(np.array([4, 7, 4, 4, -1])).tolist()
        [0, 0, 1, 2, 0]
    """
    order = np.argsort(group, kind="stable")
    ordered = group[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    sizes = np.diff(np.append(starts, len(ordered)))
    out = np.empty(len(group), np.int64)
    out[order] = np.arange(len(group)) - np.repeat(starts, sizes)
    return np.where(group >= 0, out, 0)


@dataclass(frozen=True, eq=False)
class SharedCounts:
    """How often a value followed a context, over everyone's training events.

    Args:
        keys: Sorted ``context · n_values + value``.
        weights: Their weights.
        contexts: Sorted contexts.
        totals: Their weights.
        n_values: Number of values.
    """

    keys: Ints
    weights: Floats
    contexts: Ints
    totals: Floats
    n_values: int

    @classmethod
    def of(
        cls, contexts: Ints, values: Ints, n_values: int, weights: Floats | None = None
    ) -> SharedCounts:
        """Count; negative contexts are left out."""
        used = contexts >= 0
        contexts, values = contexts[used], values[used]
        weights = np.ones(len(values)) if weights is None else weights[used]
        keys, place = np.unique(contexts * n_values + values, return_inverse=True)
        known, owner = np.unique(contexts, return_inverse=True)
        return cls(
            keys,
            np.bincount(place, weights, minlength=len(keys)).astype(np.float64),
            known,
            np.bincount(owner, weights, minlength=len(known)).astype(np.float64),
            n_values,
        )

    def total(self, contexts: Ints) -> Floats:
        """Weight of each context, ``[n]``; 0 for one that was never seen."""
        return _looked_up(self.contexts, self.totals, contexts)

    def share(self, contexts: Ints, values: Ints, lower: Floats, prior: float) -> Floats:
        """``(n(value) + prior·lower) / (n + prior)``, ``[n]``."""
        keys = np.where(contexts >= 0, contexts * self.n_values + values, -1)
        found = _looked_up(self.keys, self.weights, keys)
        return (found + prior * lower) / (self.total(contexts) + prior)


def _looked_up(keys: Ints, numbers: Floats, wanted: Ints) -> Floats:
    if not len(keys):
        return np.zeros(len(wanted))
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, numbers[place], 0.0)


def joined(first: Ints, second: Ints, size: int) -> Ints:
    """Two codes as one, negative where one is."""
    return np.where((first >= 0) & (second >= 0), first * size + second, -1)


def scale_sum(n: Floats, scale: float) -> Floats:
    """``Σ exp(−k/scale)`` for k = 1 … n; 1 for n = 0, so that one may divide by it."""
    factor = np.exp(-1.0 / scale)
    total: Floats = factor * (1 - factor**n) / (1 - factor)
    return np.where(n > 0, total, 1.0)
