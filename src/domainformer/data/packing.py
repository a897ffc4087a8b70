"""Cutting long histories into windows, and packing short ones into rows.

Windows lie between events, never inside one, and end at the newest event; what does not fit
goes to earlier windows::

    events of one entity   ──1──┬──2──┬───3───┬─4─┬──5──
    windows                [ short ][──────────][───────]      context ▲ newest

Rows of one fixed length take several windows each, by best fit, so that hardly a place is lost::

    row 0   aaaaaaaaaaaaaabbbbbbbbcccc          row 1   dddddddddddddddddddddeeeee

Both are vectorised: windows over entities, rows over windows of equal length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from domainformer.data.tokens import Ints, Mask
from domainformer.errors import ConfigError, DataError

Keep = Literal["all", "newest"]


@dataclass(frozen=True, eq=False)
class Windows:
    """Runs of events that each fit into one context, sorted by entity and time.

    Args:
        entity: Index of the entity, int64 [n_windows].
        event_start: First event, int64 [n_windows].
        event_stop: Last event plus one.
        n_tokens: Tokens of the window, its prefix included.
        score_start: First event that may be scored; those before it are history for it. Equal to
            ``event_start`` in windows for training.
    """

    entity: Ints
    event_start: Ints
    event_stop: Ints
    n_tokens: Ints
    score_start: Ints

    def __len__(self) -> int:
        return len(self.entity)


@dataclass(frozen=True, eq=False)
class Packing:
    """Which windows share a row.

    Args:
        row_offsets: int64 [n_rows + 1], where rows begin in ``order``.
        order: Window indices, int64 [n_windows], row after row.
    """

    row_offsets: Ints
    order: Ints

    def __len__(self) -> int:
        return len(self.row_offsets) - 1

    def row(self, index: int) -> Ints:
        """The windows of one row."""
        return self.order[self.row_offsets[index] : self.row_offsets[index + 1]]

    def row_lengths(self, lengths: Ints) -> Ints:
        """Tokens of each row, [n_rows]."""
        ends = np.concatenate([[0], np.cumsum(lengths[self.order])])
        return np.diff(ends[self.row_offsets])


def plan_windows(
    event_offsets: Ints,
    entity_offsets: Ints,
    context: int,
    *,
    keep: Keep = "all",
    prefix: int = 1,
    select: Mask | None = None,
) -> Windows:
    """Cut every history into windows of whole events that fit into the context.

    Args:
        event_offsets: Where events begin among the tokens, [n_events + 1].
        entity_offsets: Where entities begin among the events, [n_entities + 1].
        context: Most tokens of a window.
        keep: ``"all"`` covers each event once, ``"newest"`` keeps one window per entity: its
            newest events, as many as fit.
        prefix: Tokens set before each window (BOS); they count.
        select: Events that may be used, [n_events]. Windows hold selected events only, and never
            reach across one that is not selected.

    Raises:
        DataError: An event is longer than the context.
        ConfigError: The context leaves no place for events.

    Example:
        >>> windows = plan_windows(np.array([0, 3, 6, 9, 12]), np.array([0, 3, 4]), context=7)
        >>> windows.event_start.tolist(), windows.event_stop.tolist(), windows.n_tokens.tolist()
        ([0, 1, 3], [1, 3, 4], [4, 7, 4])
    """
    offsets = np.asarray(event_offsets)
    budget = _budget(context, prefix)
    entity, first, stop = _runs(np.asarray(entity_offsets), select)
    if keep == "newest":
        last = np.flatnonzero(np.diff(entity, append=-1) != 0)
        entity, first, stop = entity[last], first[last], stop[last]
    rounds: list[tuple[Ints, Ints, Ints]] = []
    # One round cuts the newest window of every history that has events left.
    while entity.size:
        start = np.maximum(np.searchsorted(offsets, offsets[stop] - budget), first)
        _check_progress(start == stop, stop - 1, entity, offsets, context)
        rounds.append((entity, start, stop))
        left = (start > first) if keep == "all" else np.zeros(start.size, np.bool_)
        entity, first, stop = entity[left], first[left], start[left]
    return _windows(rounds, offsets, prefix)


def plan_scoring_windows(
    event_offsets: Ints,
    entity_offsets: Ints,
    context: int,
    *,
    score: Mask,
    min_history: float = 0.5,
    prefix: int = 1,
) -> Windows:
    """Windows that score each chosen event once, with as much history before it as fits.

    Windows overlap: each scores a stretch of at most ``1 - min_history`` of the context and
    fills the rest with the events before it, chosen or not. Where a history up to an event fits
    whole, it is given whole::

        events    1  2  3  4  5  6  7  8  9        (all scored, five fit, min_history 0.6)
        window 0  S  S  S  S  S
        window 1           h  h  h  S  S           h: history, S: scored here
        window 2                    h  h  h  S  S  …

    Args:
        event_offsets: Where events begin among the tokens, [n_events + 1].
        entity_offsets: Where entities begin among the events, [n_entities + 1].
        context: Most tokens of a window.
        score: Events to be scored, [n_events].
        min_history: Share of the context, in [0, 1], that an event has before it at least where
            its entity has so much. 0 cuts without overlap; 1 gives each event its own window.
        prefix: Tokens set before each window (BOS); they count.

    Raises:
        DataError: A scored event is longer than the context.
        ConfigError: The context leaves no place for events, or ``min_history`` is out of range.

    Example:
        >>> windows = plan_scoring_windows(np.arange(10), np.array([0, 9]), context=6,
        ...                                score=np.ones(9, bool), min_history=0.6)
        >>> windows.event_start.tolist(), windows.score_start.tolist(), windows.event_stop.tolist()
        ([0, 2, 4], [0, 5, 7], [5, 7, 9])
    """
    if not 0 <= min_history <= 1:
        raise ConfigError(f"min_history must be between 0 and 1, not {min_history}")
    offsets, ends = np.asarray(event_offsets), np.asarray(entity_offsets)
    budget = _budget(context, prefix)
    _check_mask("score", score, len(offsets) - 1)
    stretch = int(budget * (1 - min_history))
    scored = np.flatnonzero(score)
    owner = np.searchsorted(ends, scored, side="right") - 1
    # Per entity, a cursor into `scored` and the end of its part of it.
    entity, cursor, counts = np.unique(owner, return_index=True, return_counts=True)
    end = cursor + counts
    rounds: list[tuple[Ints, Ints, Ints, Ints]] = []
    while entity.size:
        first, event = ends[entity], scored[cursor]
        reach = np.maximum(offsets[event] + stretch, offsets[first] + budget)
        limit = np.minimum(np.searchsorted(offsets, reach, side="right") - 1, ends[entity + 1])
        # At least one event is scored, and events after the last scored one are of no use.
        next_cursor = np.minimum(np.searchsorted(scored, np.maximum(limit, event + 1)), end)
        stop = scored[next_cursor - 1] + 1
        start = np.maximum(np.searchsorted(offsets, offsets[stop] - budget), first)
        _check_progress(start > event, event, entity, offsets, context)
        rounds.append((entity, start, stop, event))
        left = next_cursor < end
        entity, cursor, end = entity[left], next_cursor[left], end[left]
    return _windows(rounds, offsets, prefix)


def pack(lengths: npt.ArrayLike, capacity: int, *, seed: int | Sequence[int] = 0) -> Packing:
    """Put windows into as few rows as best fit, longest first, finds; the seed mixes equals.

    Windows of equal length are interchangeable, so whole groups are placed at once: the plan
    costs O(distinct lengths × distinct gaps), whatever the number of windows. The number of rows
    depends on the lengths alone; the seed decides which of equal windows go together and the
    order of the rows.

    Args:
        lengths: Tokens of each window, [n_windows], each from 1 to ``capacity``.
        capacity: Tokens of a row.
        seed: One non-negative integer or several (seed, epoch).

    Raises:
        DataError: A window is empty or longer than a row.

    Source: D. S. Johnson, "Near-optimal bin packing algorithms" (1973), best fit decreasing.

    Example:
        >>> packing = pack([6, 3, 7, 4, 5, 5], capacity=10)
        >>> len(packing), sorted(packing.row_lengths(np.array([6, 3, 7, 4, 5, 5])).tolist())
        (3, [10, 10, 10])
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    _check_lengths(sizes, capacity)
    generator = np.random.default_rng(seed)
    shuffled = generator.permutation(sizes.size)
    by_length = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    row_of, n_rows = _best_fit(sizes[by_length], capacity)
    rows = generator.permutation(n_rows)[row_of]
    order = by_length[np.argsort(rows, kind="stable")]
    row_offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_rows))])
    return Packing(row_offsets=row_offsets.astype(np.int64), order=order)


def _best_fit(falling: Ints, capacity: int) -> tuple[Ints, int]:
    """The row of each window, given lengths in falling order, and the number of rows.

    ``gaps[g]`` holds runs of rows with g free places; bit g of ``open_gaps`` says that there are
    any, so that the tightest gap is one shift away. Best fit fills a row as often as it can
    before it takes the next of the same gap, hence ``g // length`` windows per row.
    """
    row_of = np.empty(falling.size, np.int64)
    gaps: dict[int, list[Ints]] = {}
    open_gaps = n_rows = 0

    def leave(rows: Ints, gap: int) -> None:
        nonlocal open_gaps
        if rows.size and gap:
            gaps.setdefault(gap, []).append(rows)
            open_gaps |= 1 << gap

    starts = np.flatnonzero(np.diff(falling, prepend=-1))
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), falling.size], strict=False):
        length = int(falling[start])
        while start < stop:
            fitting = open_gaps >> length
            if fitting:
                gap = length + (fitting & -fitting).bit_length() - 1
                rows = gaps[gap].pop()
                if not gaps[gap]:
                    open_gaps ^= 1 << gap
            else:
                gap = capacity
                rows = np.arange(n_rows, n_rows - (start - stop) // (capacity // length))
                n_rows += rows.size
            each = gap // length
            full, rest = divmod(min(stop - start, each * rows.size), each)
            taken = full * each + rest
            row_of[start : start + full * each] = np.repeat(rows[:full], each)
            row_of[start + full * each : start + taken] = rows[full : full + 1]
            start += taken
            leave(rows[full + (rest > 0) :], gap)
            leave(rows[:full], gap - each * length)
            if rest:
                leave(rows[full : full + 1], gap - rest * length)
    return row_of, n_rows


def _runs(entity_offsets: Ints, select: Mask | None) -> tuple[Ints, Ints, Ints]:
    """Entity, first event and last-plus-one of each stretch of selected events."""
    if select is None:
        entity = np.flatnonzero(np.diff(entity_offsets))
        return entity, entity_offsets[entity], entity_offsets[entity + 1]
    n_events = int(entity_offsets[-1])
    _check_mask("select", select, n_events)
    begins = np.zeros(n_events + 1, np.bool_)
    begins[entity_offsets] = True
    begins = begins[:-1]
    chosen = select.astype(np.bool_, copy=False)
    before = np.concatenate([[False], chosen[:-1]])[:n_events]
    after = np.concatenate([chosen[1:], [False]])[:n_events]
    next_begins = np.concatenate([begins[1:], [True]])[:n_events]
    first = np.flatnonzero(chosen & (begins | ~before))
    stop = np.flatnonzero(chosen & (next_begins | ~after)) + 1
    return np.searchsorted(entity_offsets, first, side="right") - 1, first, stop


def _windows(rounds: Sequence[tuple[Ints, ...]], offsets: Ints, prefix: int) -> Windows:
    """Join the rounds, sort by time, and count tokens."""
    if not rounds:
        none = np.empty(0, np.int64)
        return Windows(none, none, none, none, none)
    entity, start, stop, *scored = (np.concatenate(part) for part in zip(*rounds, strict=True))
    order = np.argsort(stop, kind="stable")
    entity, start, stop = entity[order], start[order], stop[order]
    score_start = scored[0][order] if scored else start
    return Windows(entity, start, stop, offsets[stop] - offsets[start] + prefix, score_start)


def _budget(context: int, prefix: int) -> int:
    if context - prefix < 1:
        raise ConfigError(
            f"a context of {context} has no place for events",
            why=f"{prefix} of it is taken by the prefix" if prefix else None,
        )
    return context - prefix


def _check_mask(name: str, mask: Mask, n_events: int) -> None:
    if mask.shape != (n_events,):
        raise DataError(f"{name} has shape {mask.shape} and should have ({n_events},)")


def _check_progress(stuck: Mask, event: Ints, entity: Ints, offsets: Ints, context: int) -> None:
    if not stuck.any():
        return
    which = int(np.argmax(stuck))
    number = int(event[which])
    raise DataError(
        f"an event of {int(offsets[number + 1] - offsets[number])} tokens is longer than the "
        f"context of {context}",
        where=f"event {number}, entity {int(entity[which])} (counted from 0)",
        why="a window never cuts through an event",
        next_step="raise the context, or give the text fields a smaller token budget (max_tokens)",
    )


def _check_lengths(sizes: Ints, capacity: int) -> None:
    wrong = (sizes < 1) | (sizes > capacity)
    if wrong.any():
        which = int(np.argmax(wrong))
        raise DataError(
            f"a window of {int(sizes[which])} tokens cannot be packed into rows of {capacity}",
            where=f"window {which}",
        )
