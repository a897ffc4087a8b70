"""What follows each event of a store: which events lie within the horizon, and what they hold.

::

    events   e₁   e₂  e₃      e₄    │ border: another role, or the end of what is seen
    within        ├───── H ─────┤   │      e₂ is asked: e₃ and e₄
                      ├───── H ─────┼─┤    e₃ is not: its span reaches over the border

Only events of the data set's own roles are looked at, and an event whose horizon reaches beyond
them, or beyond what was observed, is not asked at all: counting what is not there as "nothing came"
would teach the wrong thing. All of it is vectorised: one search over (entity, time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.data.dataset import DomainSequenceDataset
from domainformer.data.keys import NULL_TIME
from domainformer.data.tokens import Ints, Mask, gather_ranges
from domainformer.training.objective_config import HorizonConfig, parse_span

Floats = npt.NDArray[np.float64]
_EVENTS_AT_ONCE = 1 << 20


@dataclass(frozen=True, eq=False)
class Ahead:
    """The horizon of each event of a shard.

    Args:
        stop: One past the last event within the horizon (those after the event itself count), or
            the event ``steps`` later plus one, int64 [n_events].
        asked: Whether the whole horizon is known, bool [n_events].
    """

    stop: Ints
    asked: Mask


def look_ahead(dataset: DomainSequenceDataset, config: HorizonConfig) -> list[Ahead]:
    """The horizons of all events, shard by shard.

    Args:
        dataset: Has the events, and the roles that may be looked at.
        config: The horizon.
    """
    allowed = [own_events(dataset, shard) for shard in dataset.shards]
    if config.ahead is not None:
        made = [_steps(shard, config.ahead) for shard in dataset.shards]
    else:
        assert config.within is not None
        span = parse_span(config.within)
        seen = [shard.times[own] for shard, own in zip(dataset.shards, allowed, strict=True)]
        last = max((int(times.max(initial=NULL_TIME)) for times in seen), default=NULL_TIME)
        whole = config.observed_until == "part"
        made = [
            _within(shard, own, span, last if whole else None)
            for shard, own in zip(dataset.shards, allowed, strict=True)
        ]
    found = []
    for (stop, asked), own in zip(made, allowed, strict=True):
        foreign = np.concatenate([[0], np.cumsum(~own)])
        event = np.arange(len(own))
        clean = foreign[np.where(asked, stop, event + 1)] == foreign[event]
        found.append(Ahead(stop, asked & clean))
    return found


def own_events(dataset: DomainSequenceDataset, shard: Any) -> Mask:
    """The events of a shard that a data set trains on, or scores."""
    roles = dataset.score_roles or dataset.train_roles
    if shard.roles is None or roles is None:
        return np.ones(len(shard.times), np.bool_)
    return np.isin(np.asarray(shard.roles), roles)


def _steps(shard: Any, steps: int) -> tuple[Ints, Mask]:
    event = np.arange(len(shard.times))
    ends = np.repeat(shard.entity_offsets[1:], np.diff(shard.entity_offsets))
    stop = event + steps + 1
    return stop, stop <= ends


def _within(shard: Any, own: Mask, span: int, last: int | None) -> tuple[Ints, Mask]:
    """Events up to ``span`` later, of spans that end no later than ``last`` (or the entity)."""
    times = np.asarray(shard.times)
    starts, stops = shard.entity_offsets[:-1], shard.entity_offsets[1:]
    entity = np.repeat(np.arange(len(starts)), stops - starts)
    distinct, rank = np.unique(times, return_inverse=True)
    # A null is the smallest number of all: what is added to it means nothing, and is not asked.
    known = times != NULL_TIME
    reach = np.where(known, times, 0) + span
    # Times rise within an entity, so that (entity, rank) rises over the whole shard.
    keys = entity * (len(distinct) + 1) + rank
    bound = entity * (len(distinct) + 1) + np.searchsorted(distinct, reach, side="right")
    stop = np.searchsorted(keys, bound, side="left")
    if last is not None:
        return stop, known & (reach <= last)
    newest = np.full(len(starts), NULL_TIME)
    np.maximum.at(newest, entity[own], times[own])
    return stop, known & (reach <= newest[entity])


def count_ids(dataset: DomainSequenceDataset, vocab_size: int) -> Ints:
    """How often each id occurs in the events that a data set trains on, int64 [vocab_size]."""
    counts = np.zeros(vocab_size, np.int64)
    for shard in dataset.shards:
        own = own_events(dataset, shard)
        for first in range(0, len(own), _EVENTS_AT_ONCE):
            part = np.asarray(shard.event_offsets[first : first + _EVENTS_AT_ONCE + 1])
            known = np.repeat(own[first : first + _EVENTS_AT_ONCE], np.diff(part))
            counts += np.bincount(shard.ids[part[0] : part[-1]][known], minlength=vocab_size)
    return counts


def sizes_of_events(shard: Any, own: Mask, size_of_id: Floats) -> Floats:
    """Running sum over a shard's events of the sizes that their tokens stand for, [n_events + 1].

    Args:
        shard: The events.
        own: Which of them count; others add nothing, not even a rounding error.
        size_of_id: What each id adds, [vocab_size].
    """
    offsets = np.asarray(shard.event_offsets)
    sizes = np.zeros(len(own))
    for first in range(0, len(own), _EVENTS_AT_ONCE):
        part = offsets[first : first + _EVENTS_AT_ONCE + 1]
        event = np.repeat(np.arange(len(part) - 1), np.diff(part))
        found = size_of_id[shard.ids[part[0] : part[-1]]]
        sizes[first : first + len(part) - 1] = np.bincount(event, found, minlength=len(part) - 1)
    return np.concatenate([[0.0], np.cumsum(np.where(own, sizes, 0.0))])


def sums_between(running: Floats, first: Ints, stop: Ints) -> npt.NDArray[np.float32]:
    """Sums over some events, from a running sum; equal sums are equal numbers.

    A difference of running sums carries the rounding of all that came before, which would scatter
    equal sums over the bins around them; float32 has no room for it.

    Example:
        >>> running = np.cumsum([0.0, 0.1, 0.2, 0.3])
        >>> float(running[3] - running[2]), float(sums_between(running, np.array(2), np.array(3)))
        (0.30000000000000004, 0.30000001192092896)
    """
    return (running[stop] - running[first]).astype(np.float32)


def values_ahead(
    shard: Any, events: Ints, stop: Ints, class_of_id: Ints, n_classes: int
) -> npt.NDArray[np.bool_]:
    """Which values occur after some events of one entity and before their ends.

    Args:
        shard: Has the events.
        events: Ascending, int64 [n].
        stop: One past the last event of each one's horizon, int64 [n].
        class_of_id: Number of the value that an id is, −1 where it is none, [vocab_size].
        n_classes: Number of values.

    Returns:
        [n, n_classes].
    """
    # Counted between borders of horizons, which are few; events ahead may be many.
    borders = np.unique(np.concatenate([events + 1, stop]))
    ahead = np.arange(borders[0], borders[-1])
    tokens, offsets = gather_ranges(shard.event_offsets, ahead)
    value = class_of_id[shard.ids[tokens]]
    between = np.repeat(np.searchsorted(borders, ahead, side="right"), np.diff(offsets))
    cell = (between * n_classes + value)[value >= 0]
    counts = np.bincount(cell, minlength=len(borders) * n_classes)
    seen = np.cumsum(counts.reshape(len(borders), n_classes), axis=0)
    return seen[np.searchsorted(borders, stop)] > seen[np.searchsorted(borders, events + 1)]


__all__ = [
    "Ahead",
    "count_ids",
    "look_ahead",
    "own_events",
    "sizes_of_events",
    "sums_between",
    "values_ahead",
]
