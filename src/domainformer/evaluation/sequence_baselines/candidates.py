"""Candidates for the next value, and what is known of each: the features of the ranker.

::

    event ─▶ count model ────▶ the K most probable ─▶ for each: how often, how lately, after what,
             (own, everyone's)  values                 and how usual among everyone in this context

Everything is known before the event: its own entity's earlier events, and counts of everyone's
*training* events. "Now" is the time of the event before it; the event's own time is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.evaluation.sequence_baselines.past import (
    Past,
    SharedCounts,
    joined,
    ranks,
    scale_sum,
)
from domainformer.evaluation.sequence_baselines.values import ValueEvents
from domainformer.evaluation.sequence_counts import CountSettings, SequenceCounts

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_STEPS = (1.5, 4.0, 12.0, 40.0)
_DAYS = (7.0, 30.0, 120.0, 365.0)
_RECENT_DAYS = 120.0
_NEVER = 1e4
_BATCH = 20_000


@dataclass(frozen=True, eq=False)
class Candidates:
    """Events, the values that may come, and what is known of them.

    Args:
        events: The events that are asked for, ``[n]``.
        values: Their candidates, most probable first, ``[n, K]``.
        base: Probability of each by the count model, ``[n, K]``.
        features: float32 ``[n, K, features]``.
        names: Of the features.
    """

    events: Ints
    values: Ints
    base: npt.NDArray[np.float32]
    features: npt.NDArray[np.float32]
    names: list[str]


@dataclass(frozen=True, eq=False)
class CandidateFeatures:
    """Makes candidates and their features.

    Args:
        events: All events of the task.
        shared: Events that everyone may learn from.
        counts: Settings of the count model.
        contexts: Columns whose last value is a context.
        n_candidates: Values per event.
    """

    events: ValueEvents
    shared: Mask
    counts: CountSettings
    contexts: tuple[str, ...]
    n_candidates: int

    def of(self, events: Ints) -> Candidates:
        """Candidates of some events, in their order."""
        parts = [
            self._batch(events[start : start + _BATCH])
            for start in range(0, max(len(events), 1), _BATCH)
        ]
        return Candidates(
            events,
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.base for part in parts]),
            np.concatenate([part.features for part in parts]),
            parts[0].names,
        )

    def probabilities(self, events: Ints) -> npt.NDArray[np.float32]:
        """The count model's, ``[n, values]``."""
        return SequenceCounts(self.events.sequences(self.shared), self.counts).probabilities(events)

    def _batch(self, events: Ints) -> Candidates:
        chances = self.probabilities(events)
        k = min(self.n_candidates, self.events.n_values)
        # stable: equal chances keep the order of the values
        values = np.argsort(-chances, axis=1, kind="stable")[:, :k]
        base = np.take_along_axis(chances, values, axis=1)
        rows, flat = np.repeat(events, k), values.ravel()
        found = {
            "chance": base.ravel().astype(np.float64),
            "place": np.tile(np.arange(k, dtype=np.float64), len(events)),
            "best": (base / base[:, :1]).ravel().astype(np.float64),
            "value": self._popularity[flat],
            **self._own(rows, flat),
            **self._transitions(rows, flat),
            **self._everyone(rows, flat),
            **{name: np.repeat(column, k) for name, column in self._event(events).items()},
        }
        matrix = np.stack([column.astype(np.float32) for column in found.values()], axis=1)
        return Candidates(events, values, base, matrix.reshape(len(events), k, -1), list(found))

    def _own(self, rows: Ints, values: Ints) -> dict[str, Floats]:
        """How often and how lately the entity itself used the value."""
        e, past = self.events, self._entity_past
        position = e.position[rows].astype(np.float64)
        now = self._now[rows]
        last = past.last(rows, values)
        count = past.count(rows, values).astype(np.float64)
        known = last >= 0
        first = e.table.offsets[:-1][e.entity[rows]]
        steps = np.where(known, rows - last, _NEVER)
        days = np.where(known, now - e.days[np.maximum(last, 0)], _NEVER)
        life = now - e.days[np.minimum(first, len(e.days) - 1)]
        found = {
            "own.count": count,
            "own.share": count / np.maximum(position, 1),
            "own.steps": steps,
            "own.days": days,
            "own.due_steps": steps * count / np.maximum(position, 1),
            "own.due_days": np.where(known, days * count / np.maximum(life, 1), _NEVER),
            "own.today": past.count(rows, values, since=self._day_start[rows]).astype(np.float64),
            "own.run": np.where(steps == 1, self._run[np.maximum(rows - 1, 0)], 0.0),
        }
        ticks = e.position.astype(np.float64)
        for scale in _STEPS:
            total = scale_sum(position, scale)
            got = past.decayed(rows, values, ticks, position, scale)
            found[f"own.last_{scale:g}"] = got / total
        for scale in _DAYS:
            found[f"own.days_{scale:g}"] = past.decayed(rows, values, e.days, now, scale)
        return found

    def _transitions(self, rows: Ints, values: Ints) -> dict[str, Floats]:
        """What followed the same context in the entity's own past."""
        found: dict[str, Floats] = {}
        for name, (past, rank) in self._habits.items():
            seen = rank[rows].astype(np.float64)
            count = past.count(rows, values).astype(np.float64)
            now = np.where(past.group[rows] >= 0, seen, 0.0)
            recent = past.decayed(rows, values, rank.astype(np.float64), now, 4.0)
            found[f"after.{name}.count"] = count
            found[f"after.{name}.share"] = count / np.maximum(seen, 1)
            found[f"after.{name}.recent"] = recent / scale_sum(seen, 4.0)
        return found

    def _everyone(self, rows: Ints, values: Ints) -> dict[str, Floats]:
        """How usual the value is among everyone, in general and in this context."""
        found: dict[str, Floats] = {}
        lower = np.full(len(rows), 1.0 / self.events.n_values)
        for name, (codes, table, parent) in self._tables.items():
            below = found[f"all.{parent}"] if parent else lower
            found[f"all.{name}"] = table.share(codes[rows], values, below, 8.0)
        return found

    def _event(self, events: Ints) -> dict[str, Floats]:
        """What is the same for all candidates: how the entity is, and when."""
        e = self.events
        found = {
            "event.position": e.position[events].astype(np.float64),
            "event.run": np.where(e.position[events] > 0, self._run[np.maximum(events - 1, 0)], 0),
            "event.gap": (e.before(e.days) - e.before(e.days, 2))[events],
            "event.distinct": self._distinct[events],
            "event.repeats": self._repeats[events],
            "event.today": (events - self._day_start[events]).astype(np.float64),
            "event.weekday": np.floor(self._now[events]) % 7,
            "event.of_year": self._now[events] % 365.25,
        }
        for column in self._numbers:
            values = e.table.frame[column].cast(pl.Float64).to_numpy()
            found[f"event.{column}"] = e.before(values)[events].astype(np.float64)
        return found

    @cached_property
    def _popularity(self) -> Floats:
        """Rank of each value among everyone: by it trees tell candidates apart."""
        e = self.events
        counts = np.bincount(e.values[self.shared], minlength=e.n_values)
        return np.argsort(np.argsort(-counts, kind="stable")).astype(np.float64)

    @cached_property
    def _now(self) -> Floats:
        return self.events.before(self.events.days).astype(np.float64)

    @cached_property
    def _entity_past(self) -> Past:
        return Past(self.events.entity, self.events.values, self.events.n_values)

    @cached_property
    def _last(self) -> Ints:
        return self.events.before(self.events.values).astype(np.int64)

    @cached_property
    def _day_start(self) -> Ints:
        """First event of the entity at the time of the event before."""
        e = self.events
        same = (e.days == e.before(e.days)) & (e.position > 0)
        begins = np.maximum.accumulate(np.where(same, 0, np.arange(len(same))))
        return np.where(
            e.position > 0, begins[np.maximum(np.arange(len(same)) - 1, 0)], np.arange(len(same))
        )

    @cached_property
    def _run(self) -> Floats:
        """How many times in a row the value has come, this event included."""
        e = self.events
        same = (e.values == self._last) & (e.position > 0)
        begins = np.maximum.accumulate(np.where(same, 0, np.arange(len(same))))
        return (np.arange(len(same)) - begins + 1).astype(np.float64)

    @cached_property
    def _distinct(self) -> Floats:
        """Distinct values of the entity before the event."""
        e = self.events
        every = np.arange(len(e.values))
        new = (self._entity_past.count(every, e.values) == 0).astype(np.float64)
        return self._before_sum(new)

    @cached_property
    def _repeats(self) -> Floats:
        """Share of the entity's earlier events that repeated the one before them."""
        e = self.events
        same = ((e.values == self._last) & (e.position > 0)).astype(np.float64)
        return self._before_sum(same) / np.maximum(e.position - 1, 1)

    def _before_sum(self, numbers: Floats) -> Floats:
        total = np.concatenate([[0.0], np.cumsum(numbers)])
        starts = np.repeat(self.events.table.offsets[:-1], self.events.table.lengths)
        return total[:-1] - total[starts]

    @cached_property
    def _context_codes(self) -> dict[str, Ints]:
        e = self.events
        return {name: e.before(e.codes(name)).astype(np.int64) for name in self.contexts}

    @cached_property
    def _habits(self) -> dict[str, tuple[Past, Ints]]:
        e, n = self.events, self.events.n_values
        second = e.before(e.values, 2).astype(np.int64)
        third = e.before(e.values, 3).astype(np.int64)
        contexts = {
            "last": self._last,
            "last_two": joined(self._last, second, n),
            "last_three": joined(joined(self._last, second, n), third, n),
            **self._context_codes,
        }
        found = {}
        for name, codes in contexts.items():
            group = joined(codes, e.entity, e.table.n_entities)
            group = np.where(group >= 0, np.unique(group, return_inverse=True)[1], -1)
            found[name] = (Past(group, e.values, n), ranks(group))
        return found

    @cached_property
    def _tables(self) -> dict[str, tuple[Ints, SharedCounts, str]]:
        e, n, train = self.events, self.events.n_values, self.shared
        nothing = np.zeros(len(e.values), np.int64)
        fresh = np.exp((e.days - e.days[train].max()) / _RECENT_DAYS)
        plans: dict[str, tuple[Ints, bool, str]] = {
            "popular": (nothing, False, ""),
            "popular_now": (nothing, True, "popular"),
            "first": (np.where(e.position == 0, 0, -1), False, "popular"),
            "last": (self._last, False, "popular"),
            "last_now": (self._last, True, "last"),
            "last_two": (
                joined(self._last, e.before(e.values, 2).astype(np.int64), n),
                False,
                "last",
            ),
        }
        for name, codes in self._context_codes.items():
            plans[name] = (codes, False, "popular")
            plans[f"{name}_now"] = (codes, True, name)
            plans[f"{name}_last"] = (joined(codes, self._last, n), False, "last")
        return {
            name: (
                codes,
                SharedCounts.of(codes[train], e.values[train], n, fresh[train] if now else None),
                parent,
            )
            for name, (codes, now, parent) in plans.items()
        }

    @cached_property
    def _numbers(self) -> list[str]:
        frame = self.events.table.frame
        return [name for name in frame.columns if frame[name].dtype.is_float()]
