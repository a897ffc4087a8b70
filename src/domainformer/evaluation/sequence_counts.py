"""Count models of a sequence of categories: repeat last, Markov, and what an entity is used to.

::

    popularity ◀─ Markov 1 ◀─ Markov 2 ◀─ own history ◀─ own transitions
                  (of everyone)           (of the entity, decayed)

Each level is a count table that backs off to the one before it (Dirichlet smoothing, MacKay and
Peto 1995): ``p_k(x) = (n_k(x) + α_k · p_{k−1}(x)) / (N_k + α_k)``. Tables of everyone count
training events alone; tables of an entity count all of its earlier events, which a model of its
history sees as well. The α and the decay are chosen on the last part of the training events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from domainformer.errors import DataError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

_PRIORS = (0.5, 2.0, 8.0, 32.0, 1e6)
_DECAYS = (0.8, 0.9, 0.95, 0.98, 1.0)


@dataclass(frozen=True, eq=False)
class CategorySequences:
    """A category per event, entity after entity, in order.

    Args:
        values: int64 ``[events]``, in ``[0, n_values)``.
        offsets: int64 ``[entities + 1]``.
        n_values: Number of categories.
        train: bool ``[events]``: what may be learned from by everyone.

    Raises:
        DataError: A value lies outside, sizes differ, or nothing may be learned from.
    """

    values: Ints
    offsets: Ints
    n_values: int
    train: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if len(self.values) != len(self.train) or self.offsets[-1] != len(self.values):
            raise DataError("values, offsets and training mask do not fit each other")
        if not self.train.any():
            raise DataError("no event may be learned from", next_step="check the cut")
        low, high = int(self.values.min()), int(self.values.max())
        if low < 0 or high >= self.n_values:
            raise DataError(
                f"a category lies outside of [0, {self.n_values})", why=f"they span {low} to {high}"
            )

    def back(self, steps: int) -> Ints:
        """The value ``steps`` events earlier in the same entity, ``[events]``; −1 without one."""
        earlier = np.full(len(self.values), -1, np.int64)
        if steps < len(self.values):
            earlier[steps:] = self.values[:-steps]
        place = np.arange(len(self.values)) - np.repeat(self.offsets[:-1], np.diff(self.offsets))
        earlier[place < steps] = -1
        return earlier

    @property
    def entity(self) -> Ints:
        """Number of each event's entity, ``[events]``."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True)
class CountSettings:
    """How the levels are smoothed; α of 10⁶ switches a level off.

    Args:
        first: α of Markov order 1.
        second: α of Markov order 2.
        own: α of the entity's own frequencies.
        own_next: α of what followed the last value in the entity's own past.
        own_decay: Weight of an own event one step further back.
        next_decay: Weight of an own transition one occurrence further back.
    """

    first: float = 2.0
    second: float = 8.0
    own: float = 8.0
    own_next: float = 2.0
    own_decay: float = 0.95
    next_decay: float = 0.9


MARKOV_ONLY = CountSettings(own=1e6, own_next=1e6)
"""Order-2 Markov of everyone, without the entity's own history."""


@dataclass(frozen=True, eq=False)
class SequenceCounts:
    """Predicts each event's category from the events before it.

    Example:
        >>> values, train = np.array([0, 1, 2] * 4), np.ones(12, bool)
        >>> cycle = CategorySequences(values, np.array([0, 12]), 3, train)
        >>> SequenceCounts(cycle, MARKOV_ONLY).probabilities(np.array([9, 10])).argmax(axis=1)
        array([0, 1])
    """

    sequences: CategorySequences
    settings: CountSettings = CountSettings()

    def probabilities(self, events: Ints) -> Floats:
        """float32 ``[len(events), n_values]``; rows sum to 1."""
        s, a = self.sequences, self.settings
        last, before = s.back(1), s.back(2)
        pair = np.where(before >= 0, before * s.n_values + last, -1)
        counts = np.bincount(s.values[s.train], minlength=s.n_values) + 1.0
        p = np.tile((counts / counts.sum()).astype(np.float32), (len(events), 1))
        p = _backed_off(self._shared(last, events), p, a.first)
        p = _backed_off(self._shared(pair, events), p, a.second)
        if a.own < _PRIORS[-1]:
            p = _backed_off(decayed_counts(s.entity, s, events, a.own_decay), p, a.own)
        if a.own_next < _PRIORS[-1]:
            habit = np.where(last >= 0, s.entity * s.n_values + last, -1)
            p = _backed_off(decayed_counts(habit, s, events, a.next_decay), p, a.own_next)
        return p

    def _shared(self, context: Ints, events: Ints) -> Floats:
        """Counts of training events by context, for the contexts of some events.

        A training event is taken out of its own counts: it must not foretell itself.
        """
        s = self.sequences
        known, place = np.unique(context, return_inverse=True)
        used = s.train & (context >= 0)
        wanted, row = np.unique(place[events], return_inverse=True)
        local = np.full(len(known), -1, np.int64)
        local[wanted] = np.arange(len(wanted))
        inside = used & (local[place] >= 0)
        flat = local[place[inside]] * s.n_values + s.values[inside]
        table = np.bincount(flat, minlength=len(wanted) * s.n_values)
        counts: Floats = table.reshape(len(wanted), s.n_values)[row].astype(np.float32)
        own = used[events]
        counts[np.flatnonzero(own), s.values[events[own]]] -= 1.0
        return counts


def repeat_last(sequences: CategorySequences, events: Ints) -> Ints:
    """The entity's previous value; the most frequent training value where there is none."""
    usual = int(np.bincount(sequences.values[sequences.train]).argmax())
    last = sequences.back(1)[events]
    return np.where(last >= 0, last, usual)


def decayed_counts(group: Ints, sequences: CategorySequences, events: Ints, decay: float) -> Floats:
    """``Σ decay^(k−1) · 1[value = x]`` over the events k places earlier in the same group.

    Args:
        group: Group of each event, ``[all events]``; negative has no past.
        sequences: The values.
        events: Rows to return.
        decay: In (0, 1].

    Returns:
        float32 ``[len(events), n_values]``.
    """
    from scipy.signal import lfilter

    n = sequences.n_values
    out = np.zeros((len(events), n), np.float32)
    asked = np.full(len(group), -1, np.int64)
    asked[events] = np.arange(len(events))
    order = np.argsort(group, kind="stable")
    edges = np.flatnonzero(np.diff(group[order], prepend=group[order[0]] - 1))
    for start, stop in zip(edges, np.append(edges[1:], len(order)), strict=True):
        rows = order[start:stop]
        if group[rows[0]] < 0 or stop - start < 2 or not (asked[rows] >= 0).any():
            continue
        values, local = np.unique(sequences.values[rows], return_inverse=True)
        shown = np.zeros((len(rows), len(values)), np.float32)
        shown[np.arange(1, len(rows)), local[:-1]] = 1.0
        summed = lfilter([1.0], [1.0, -decay], shown, axis=0)
        wanted = np.flatnonzero(asked[rows] >= 0)
        out[asked[rows[wanted]][:, None], values[None, :]] = summed[wanted]
    return out


def tune_counts(
    sequences: CategorySequences,
    *,
    validation: npt.NDArray[np.bool_],
    start: CountSettings | None = None,
    names: Sequence[str] = ("own_next", "own", "own_decay", "next_decay", "second", "first"),
    rounds: int = 1,
) -> tuple[CountSettings, float]:
    """Coordinate descent on the accuracy of validation events, which are part of the training part.

    Args:
        sequences: With the whole training part marked.
        validation: bool ``[events]``: the later part of the training events.
        start: Where the search begins.
        names: Settings to choose, in this order.
        rounds: Passes over the names.

    Returns:
        The settings, and their validation accuracy.

    Raises:
        DataError: A validation event is no training event.
    """
    if (validation & ~sequences.train).any():
        raise DataError("a validation event lies outside of the training part")
    inner = replace(sequences, train=sequences.train & ~validation)
    events = np.flatnonzero(validation)

    def score(settings: CountSettings) -> float:
        guess = SequenceCounts(inner, settings).probabilities(events).argmax(axis=1)
        return float(np.mean(guess == inner.values[events]))

    settings = start or CountSettings()
    best = score(settings)
    for _ in range(rounds):
        for name in names:
            for value in _DECAYS if name.endswith("decay") else _PRIORS:
                trial = replace(settings, **{name: value})
                if value != getattr(settings, name) and (figure := score(trial)) > best:
                    best, settings = figure, trial
    return settings, best


def _backed_off(counts: Floats, lower: Floats, prior: float) -> Floats:
    total = counts.sum(axis=1, keepdims=True)
    return (counts + np.float32(prior) * lower) / (total + np.float32(prior))
