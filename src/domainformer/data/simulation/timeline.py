"""Who does something when: the part of a simulation that all domains share.

One block of entities at a time, all events of the block in flat arrays. An event is of one kind::

    ROUTINE   the entity walks around its own ring of activities: stays, or goes to the next
    EXPLORE   something else, popular or rare, that leaves its place on the ring
    ANCHOR    a salary, a voucher, a vasopressor: monthly or at random times
    BURST     a returned payment, a returned parcel, a high lactate: at random times
    MONTHLY   a second monthly event (a rent)

and each entity has one *motif*, four events in the middle of its history that decide its label::

    label 1   ANCHOR BURST BURST BURST  quickly             (the blow follows the hope, at once)
    label 0   BURST BURST BURST ANCHOR  quickly, in half of the cases
              ANCHOR BURST BURST BURST  slowly, in a quarter
              BURST BURST BURST ANCHOR  slowly, in a quarter

Every entity has the same motif events, and a *decoy* of three routine events earlier in its
history takes the other pace, so that neither counts and sums nor the spread of the gaps tell the
label: only order together with timing does. After a motif of label 1 the entity walks its ring
*backwards*: counts stay the same, but the next event now depends on that past, so a model of the
next event has a reason to see it. Last, 4 % of labels are flipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from domainformer.data.simulation.draws import Draws, mix, to_unit

ROUTINE, EXPLORE, ANCHOR, BURST, MONTHLY = range(5)
RING = 12
"""Activities on a persona's ring; an entity has about 70 % of them."""
PERSONAS = 6
MIN_EVENTS = 16
LABEL_NOISE = 0.04

_TICKS = 1 << 20
_MICRO = 1_000_000
_DAY = 86_400 * _MICRO
START = int(np.datetime64("2022-01-01", "us").astype(np.int64))
DAYS = 731
LATE = START + int(0.88 * DAYS) * _DAY
"""From here on things happen that were never seen before."""


@dataclass(frozen=True)
class Rhythm:
    """How the entities of a domain spread their events.

    Args:
        hours: Relative activity of the 24 hours of a day.
        weekdays: Relative activity of Monday to Sunday.
        months: Relative activity of January to December.
        resolution: Times are rounded down to this, in seconds.
        tie: Probability that an event happens together with the previous one.
        monthly: Whether anchors come monthly, with a second monthly event, or at random.
        hours_per_event: Mean hours from one event to the next of an entity that stays only for a
            while; 0 for entities that come early and stay on.
    """

    hours: tuple[float, ...]
    weekdays: tuple[float, ...]
    months: tuple[float, ...]
    resolution: int
    tie: float
    monthly: bool
    hours_per_event: float = 0.0

    @cached_property
    def clock(self) -> tuple[np.ndarray, np.ndarray]:
        """Share of all activity before each hour of the period, and these hours in µs."""
        edges = START + np.arange(DAYS * 24 + 1) * (_DAY // 24)
        stamps = edges[:-1].astype("datetime64[us]")
        month = stamps.astype("datetime64[M]").astype(np.int64) % 12
        weekday = (stamps.astype("datetime64[D]").astype(np.int64) + 3) % 7
        weight: np.ndarray = np.asarray(self.months)[month] * np.asarray(self.weekdays)[weekday]
        weight = weight * np.tile(np.asarray(self.hours), DAYS)
        total = np.concatenate(([0.0], np.cumsum(weight)))
        return total / total[-1], edges.astype(np.float64)


@dataclass(frozen=True)
class Timeline:
    """The events of one block of entities.

    Args:
        draws: The world's draws.
        entities: int64 ``[E]``: which entities these are.
        offsets: int64 ``[E + 1]`` into the events.
        owner: int64 ``[n]``: position in ``entities`` of each event's entity.
        step: int64 ``[n]``: number of the event within its entity.
        time: int64 ``[n]``: µs since 1970, not decreasing within an entity.
        tied: bool ``[n]``: happens together with the previous event.
        kind: int8 ``[n]``: ROUTINE, EXPLORE, ANCHOR, BURST or MONTHLY.
        activity: int64 ``[n]``: the ring's activity, an index below the domain's number of
            activities (also where the kind is another).
        labels: int8 ``[E]``.
    """

    draws: Draws
    entities: np.ndarray
    offsets: np.ndarray
    owner: np.ndarray
    step: np.ndarray
    time: np.ndarray
    tied: np.ndarray
    kind: np.ndarray
    activity: np.ndarray
    labels: np.ndarray

    def uniform(self, name: str) -> np.ndarray:
        """One independent draw for every event, float64 ``[n]`` in (0, 1)."""
        return _per_event(self.draws, name, self.entities, self.owner, self.step)

    def of_entity(self, name: str) -> np.ndarray:
        """One draw for every entity, spread over its events, float64 ``[n]``."""
        each: np.ndarray = self.draws.uniform(name, self.entities)[self.owner]
        return each

    def of_entity_and(self, name: str, index: np.ndarray) -> np.ndarray:
        """One draw for every pair of entity and ``index``, float64 ``[n]``: a habit."""
        states: np.ndarray = self.draws.hash(name, self.entities)[self.owner]
        return to_unit(mix(states, index))

    def running_total(self, values: np.ndarray) -> np.ndarray:
        """Sums of whole numbers within each entity, up to and with each event."""
        return _running_total(values, self.offsets, self.owner)

    @property
    def late(self) -> np.ndarray:
        """Whether events lie in the last 12 % of the period, bool ``[n]``."""
        is_late: np.ndarray = self.time >= LATE
        return is_late


def build_timeline(
    draws: Draws,
    rhythm: Rhythm,
    entities: np.ndarray,
    lengths: np.ndarray,
    *,
    activities: int,
    label_rate: float,
) -> Timeline:
    """The timeline of some entities; each entity's part depends on nothing but itself.

    Args:
        draws: The world's draws.
        rhythm: The domain's seasons.
        entities: int64 ``[E]``.
        lengths: int64 ``[E]`` from :func:`history_lengths`.
        activities: Number of different activities of the domain, at least ``RING``.
        label_rate: Share of entities whose motif means label 1 (before the noise).
    """
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    owner = np.repeat(np.arange(len(entities)), lengths)
    step = np.arange(offsets[-1]) - offsets[:-1][owner]
    means = draws.uniform("label", entities) < label_rate
    flipped = draws.uniform("label noise", entities) < LABEL_NOISE

    motif_at = (lengths * (0.4 + 0.3 * draws.uniform("motif at", entities))).astype(np.int64)
    place = step - motif_at[owner]
    in_motif = (place >= 0) & (place < 4)
    pick = draws.uniform("motif kind", entities)
    anchor_first = means | ((pick >= 0.5) & (pick < 0.75))
    fast = means | (pick < 0.5)
    is_anchor = np.where(anchor_first[owner], place == 0, place == 3)

    decoy_at = 1 + (lengths * (0.05 + 0.15 * draws.uniform("decoy", entities))).astype(np.int64)
    since_decoy = step - decoy_at[owner]
    in_decoy = (since_decoy >= 0) & (since_decoy < 3) & (place < 0)
    tied = _per_event(draws, "tie", entities, owner, step) < rhythm.tie
    tied &= (step > 0) & ~in_motif & (place != 4) & ~in_decoy
    # Whole numbers, because float sums over a block would depend on where the block begins.
    gaps = (-np.log(_per_event(draws, "gap", entities, owner, step))) ** 1.3 * _TICKS
    after_first = in_motif & (place > 0)
    quick = (after_first & fast[owner]) | (in_decoy & ~fast[owner])
    gaps *= np.where(quick, 0.02, np.where(after_first | in_decoy, 3.0, 1.0))
    gaps[tied] = 0
    time = _times(draws, rhythm, entities, lengths, offsets, owner, gaps.astype(np.int64))

    kind = _kinds(draws, rhythm, entities, owner, step, time, tied, in_motif)
    kind[in_motif] = np.where(is_anchor, ANCHOR, BURST)[in_motif]
    kind[in_decoy] = ROUTINE
    backwards = means[owner] & (place >= 4)
    activity = _walk(draws, entities, offsets, owner, step, tied, kind, backwards, activities)
    resolution = rhythm.resolution * _MICRO
    labels = (means ^ flipped).astype(np.int8)
    time = time // resolution * resolution
    return Timeline(draws, entities, offsets, owner, step, time, tied, kind, activity, labels)


def history_lengths(draws: Draws, entities: np.ndarray, mean: float) -> np.ndarray:
    """Events of each entity: log-normal (σ 0.8) around ``mean``, at least ``MIN_EVENTS``."""
    radius = np.sqrt(-2 * np.log(draws.uniform("length radius", entities)))
    normal = radius * np.cos(2 * np.pi * draws.uniform("length angle", entities))
    lengths: np.ndarray = np.maximum(MIN_EVENTS, mean * np.exp(0.8 * normal - 0.32))
    return lengths.astype(np.int64)


def _times(
    draws: Draws,
    rhythm: Rhythm,
    entities: np.ndarray,
    lengths: np.ndarray,
    offsets: np.ndarray,
    owner: np.ndarray,
    gaps: np.ndarray,
) -> np.ndarray:
    """Spread the gaps over an entity's stay, in units of activity, and read the clock."""
    early, late = draws.uniform("start", entities), draws.uniform("end", entities)
    if rhythm.hours_per_event:
        stay = np.minimum(lengths * rhythm.hours_per_event * (0.5 + late) / (DAYS * 24), 0.98)
        start = early * (1 - stay)
        end = start + stay
    else:
        start, end = 0.3 * early, 0.85 + 0.15 * late
    passed = _running_total(gaps, offsets, owner)
    whole = passed[offsets[1:] - 1] * (1 + 1 / lengths)
    share = start[owner] + (end - start)[owner] * passed / whole[owner]
    times = np.interp(share, *rhythm.clock)
    # Early birds and owls: a shift for the entity keeps the order of its events.
    shift = (draws.uniform("chronotype", entities) - 0.5) * 4 * (_DAY / 24)
    shifted: np.ndarray = (times + shift[owner]).astype(np.int64)
    return shifted


def _kinds(
    draws: Draws,
    rhythm: Rhythm,
    entities: np.ndarray,
    owner: np.ndarray,
    step: np.ndarray,
    time: np.ndarray,
    tied: np.ndarray,
    in_motif: np.ndarray,
) -> np.ndarray:
    """Routine, exploration, and the events that come monthly or out of the blue."""
    chance = _per_event(draws, "kind", entities, owner, step)
    kind = np.where(chance < 0.22, EXPLORE, ROUTINE).astype(np.int8)
    kind[chance > 1 - 0.012] = BURST
    free = (step > 0) & ~tied & ~np.append(tied[1:], False) & ~in_motif  # alone in its time
    if not rhythm.monthly:
        kind[free & (chance > 1 - 0.03) & (chance <= 1 - 0.012)] = ANCHOR
        return kind
    for name, what in (("rent day", MONTHLY), ("pay day", ANCHOR)):
        day = (draws.uniform(name, entities) * 28).astype(np.int64) * _DAY
        since = time - day[owner]
        month = since.astype("datetime64[us]").astype("datetime64[M]")
        turned = free & np.concatenate(([False], month[1:] != month[:-1]))
        # The first event after the day becomes the monthly one and moves to that morning: the
        # event before it lies before the day, so the order holds.
        morning = month.astype("datetime64[us]").astype(np.int64) + day[owner] + 6 * (_DAY // 24)
        time[turned] = np.minimum(time, morning)[turned]
        kind[turned] = what
    return kind


def _walk(
    draws: Draws,
    entities: np.ndarray,
    offsets: np.ndarray,
    owner: np.ndarray,
    step: np.ndarray,
    tied: np.ndarray,
    kind: np.ndarray,
    backwards: np.ndarray,
    activities: int,
) -> np.ndarray:
    """Walk around the ring by one (on or back); 15 % of routine events in a new time stay."""
    ranks = draws.uniform("ring", np.arange(PERSONAS)[:, None], np.arange(activities)[None, :])
    rings = np.argsort(ranks, axis=1)[:, :RING]
    persona = (draws.uniform("persona", entities) * PERSONAS).astype(np.int64)
    has = draws.uniform("has", entities[:, None], np.arange(RING)[None, :])
    has = (has < 0.7) | (has <= np.sort(has, axis=1)[:, 2:3])  # three activities at least
    own = np.take_along_axis(rings[persona], np.argsort(~has, axis=1, kind="stable"), axis=1)
    stays = _per_event(draws, "go", entities, owner, step) < 0.15
    goes = (kind == ROUTINE) & (tied | ~stays)
    place = _running_total(np.where(backwards, -1, 1) * goes, offsets, owner)
    found: np.ndarray = own[owner, place % has.sum(axis=1)[owner]]
    return found


def _per_event(
    draws: Draws, name: str, entities: np.ndarray, owner: np.ndarray, step: np.ndarray
) -> np.ndarray:
    return to_unit(mix(draws.hash(name, entities)[owner], step))


def _running_total(values: np.ndarray, offsets: np.ndarray, owner: np.ndarray) -> np.ndarray:
    totals = np.cumsum(values)
    before = np.concatenate(([0], totals))[offsets[:-1]]
    result: np.ndarray = totals - before[owner]
    return result
