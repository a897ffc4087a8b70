"""Budgets: what each source may take of a context when a history is cut to it.

Without budgets the newest events stay, whatever they are, and a talkative source (app visits)
leaves no place for a quiet one (transfers). With budgets each source is kept a share::

    history     a a t a a a a t a a a a a a a        context: 6 events
    newest                        a a a a a a        no budget
    t: ⅓            t         t       a a a a        two places for t, the rest for all

Two steps, both newest first, neither ever dividing an event:

1. Each source takes its newest events, as many as fit its share.
2. What is left of the context goes to the newest of all other events, up to the first that does
   not fit. So a share that a source cannot fill is used by the others.

What a source keeps are therefore always its newest events. `plan_budgeted` cuts a whole history:
the first window holds the newest events as above, the next is cut from what that one left, until
every event is in exactly one window. All entities advance together, and each step costs a few
binary searches per entity and source, not a visit to each event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from domainformer.data.packing import Keep
from domainformer.data.tokens import Ints, Mask, RaggedTokens, TokenizedEvents, gather_ranges
from domainformer.errors import ConfigError, DataError


@dataclass(frozen=True)
class Budgets:
    """The sources of events, and the share of a context that is kept for each.

    An event's source is told by its first id.

    Args:
        shares: For each id that opens an event of a source, the share kept for it; 0 where it
            competes for what is left. Events that begin with other ids compete, too.

    Raises:
        ConfigError: A share is not in [0, 1], or they add up to more than 1.

    Example:
        >>> Budgets({5: 0.5, 6: 0.0}).quotas(101).tolist()
        [50, 0]
    """

    shares: Mapping[int, float]

    def __post_init__(self) -> None:
        values = list(self.shares.values())
        if any(not 0 <= share <= 1 for share in values) or sum(values) > 1 + 1e-9:
            raise ConfigError(
                "the shares of the sources are impossible",
                why=f"they are {', '.join(f'{share:g}' for share in values)}",
                next_step="give numbers from 0 to 1 that add up to at most 1",
            )

    def quotas(self, room: int) -> Ints:
        """Tokens kept for each source in ``room`` tokens, rounded down, ``[sources]``."""
        # A share such as 0.29 of 100 shall be 29 and not 28, however it is stored.
        return np.array([int(share * room + 1e-6) for share in self.shares.values()], np.int64)

    def sources_of(self, events: RaggedTokens) -> Ints:
        """The source of each event, ``[n_events]``; the number of sources for any other."""
        offsets = np.asarray(events.event_offsets)
        found = np.full(len(offsets) - 1, len(self.shares), np.int64)
        filled = np.flatnonzero(np.diff(offsets))
        first = np.asarray(events.ids)[offsets[filled]]
        for number, index in enumerate(self.shares):
            found[filled[first == index]] = number
        return found


@dataclass(frozen=True, eq=False)
class BudgetedWindows:
    """Windows that need not be runs of events, sorted by entity and by their newest event.

    Args:
        entity: Index of the entity, int64 [n_windows].
        events: The events of all windows, each window's ascending.
        offsets: Where windows begin in ``events``, int64 [n_windows + 1].
        n_tokens: Tokens of the window, its prefix included.
    """

    entity: Ints
    events: Ints
    offsets: Ints
    n_tokens: Ints

    def __len__(self) -> int:
        return len(self.entity)

    def having(self, wanted: Mask) -> BudgetedWindows:
        """The windows that hold one of some events at least.

        Args:
            wanted: Events, [n_events].
        """
        if not len(self):
            return self
        chosen = np.flatnonzero(np.add.reduceat(wanted[self.events], self.offsets[:-1]))
        index, offsets = gather_ranges(self.offsets, chosen)
        return BudgetedWindows(
            self.entity[chosen], self.events[index], offsets, self.n_tokens[chosen]
        )


def plan_budgeted(
    events: RaggedTokens,
    budgets: Budgets,
    context: int,
    *,
    keep: Keep = "all",
    prefix: int = 1,
    select: Mask | None = None,
) -> BudgetedWindows:
    """Cut every history into windows within a context and its budgets.

    Args:
        events: Histories; the first id of an event tells its source.
        budgets: The shares of the sources.
        context: Most tokens of a window.
        keep: ``"all"`` has each event in one window, ``"newest"`` keeps each entity's first.
        prefix: Tokens set before each window (BOS); they count.
        select: Events that may be used, [n_events].

    Raises:
        DataError: An event is longer than the context.
        ConfigError: The context leaves no place for events.

    Example:
        >>> import polars as pl
        >>> history = TokenizedEvents(
        ...     ids=np.array([5, 9, 4, 9, 4, 9, 4, 9], np.uint8),
        ...     event_offsets=np.array([0, 2, 4, 6, 8]), entity_offsets=np.array([0, 4]),
        ...     entity_ids=pl.Series(["anna"]), times=np.arange(4), roles=None,
        ...     tokenizer_fingerprint="f00d", vocab_size=10)
        >>> windows = plan_budgeted(history, Budgets({4: 0.0, 5: 0.5}), context=5)
        >>> windows.events.tolist(), windows.offsets.tolist()
        ([1, 2, 0, 3], [0, 2, 4])
    """
    room = context - prefix
    if room < 1:
        raise ConfigError(
            f"a context of {context} has no place for events",
            why=f"{prefix} of it is taken by the prefix" if prefix else None,
        )
    cut = _Cut.of(events, budgets, room, select)
    _check_lengths(events, cut.event, room, context)
    entity = np.flatnonzero(np.diff(np.asarray(events.entity_offsets)))
    rounds: list[tuple[Ints, Ints, Ints]] = []
    while len(entity):
        entity = entity[(cut.high[entity] > cut.low[entity]).any(axis=1)]
        if not len(entity):
            break
        high = cut.take(entity)
        rounds.append((entity, cut.high[entity], high))
        cut.high[entity] = high
        if keep == "newest":
            break
    return _windows(cut, rounds, prefix)


def keep_within_budgets(
    events: TokenizedEvents, budgets: Budgets, context: int, *, prefix: int = 1
) -> TokenizedEvents:
    """The events that each entity's newest window keeps; the others are left out.

    All that is kept of an entity fits into ``context`` together, so that whatever cuts histories
    afterwards keeps it whole.

    Args:
        events: Histories.
        budgets: The shares of the sources.
        context: Most tokens of a window.
        prefix: Tokens set before each window (BOS); they count.

    Raises:
        DataError: An event is longer than the context.
        ConfigError: The context leaves no place for events.
    """
    windows = plan_budgeted(events, budgets, context, keep="newest", prefix=prefix)
    kept = np.sort(windows.events)
    tokens, event_offsets = gather_ranges(np.asarray(events.event_offsets), kept)
    before = np.searchsorted(kept, np.asarray(events.entity_offsets))
    return TokenizedEvents(
        ids=np.asarray(events.ids)[tokens],
        event_offsets=event_offsets,
        entity_offsets=before.astype(np.int64),
        entity_ids=events.entity_ids,
        times=np.asarray(events.times)[kept],
        roles=None if events.roles is None else np.asarray(events.roles)[kept],
        tokenizer_fingerprint=events.tokenizer_fingerprint,
        vocab_size=events.vocab_size,
    )


@dataclass
class _Cut:
    """Events in groups by (entity, source), and how far each group has been used up.

    ``event`` lists all usable events group by group, ascending within each; a group's unused
    events are ``event[low:high]``, its newest at the end. ``tokens[i]`` counts the tokens of
    ``event[:i]``. ``key`` grows with the group and, within it, with the event.
    """

    event: Ints
    tokens: Ints
    key: Ints
    low: Ints
    high: Ints
    quotas: Ints
    room: int
    first: Ints
    stop: Ints

    @classmethod
    def of(cls, events: RaggedTokens, budgets: Budgets, room: int, select: Mask | None) -> _Cut:
        offsets = np.asarray(events.entity_offsets)
        n_events, groups = int(offsets[-1]), len(budgets.shares) + 1
        if select is not None and select.shape != (n_events,):
            raise DataError(f"select has shape {select.shape} and should have ({n_events},)")
        usable = np.arange(n_events) if select is None else np.flatnonzero(select)
        owner = np.searchsorted(offsets, usable, side="right") - 1
        group = owner * groups + budgets.sources_of(events)[usable]
        order = np.argsort(group, kind="stable")
        event, group = usable[order], group[order]
        lengths = np.diff(np.asarray(events.event_offsets))[event]
        borders = np.searchsorted(group, np.arange((len(offsets) - 1) * groups + 1))
        return cls(
            event=event,
            tokens=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            key=group * n_events + event,
            low=borders[:-1].reshape(-1, groups),
            high=borders[1:].reshape(-1, groups).copy(),
            quotas=np.append(budgets.quotas(room), 0),
            room=room,
            first=offsets[:-1],
            stop=offsets[1:],
        )

    def take(self, entity: Ints) -> Ints:
        """Where the unused events of each group end after one more window, ``[entities, groups]``.

        Args:
            entity: Entities that have unused events.
        """
        low, high = self.low[entity], self.high[entity]
        reserved = np.maximum(
            np.searchsorted(self.tokens, self.tokens[high] - self.quotas, side="left"), low
        )
        left = self.room - (self.tokens[high] - self.tokens[reserved]).sum(axis=1)
        # The oldest event such that it and all newer unused ones fit into what is left: the
        # number of tokens from an event on only falls as the event gets newer.
        early, late = self.first[entity].copy(), self.stop[entity].copy()
        while (early < late).any():
            middle = (early + late) // 2
            end = self._from(entity, middle, low, reserved)
            fits = (self.tokens[reserved] - self.tokens[end]).sum(axis=1) <= left
            late = np.where(fits, middle, late)
            early = np.where(fits, early, np.minimum(middle + 1, late))
        return self._from(entity, late, low, reserved)

    def _from(self, entity: Ints, event: Ints, low: Ints, high: Ints) -> Ints:
        """For each group, where in ``event[low:high]`` the events from a given one on begin."""
        groups = self.low.shape[1]
        group = entity[:, None] * groups + np.arange(groups)
        n_events = int(self.stop[-1])
        found: Ints = np.searchsorted(self.key, group * n_events + event[:, None])
        inside: Ints = np.minimum(np.maximum(found, low), high)
        return inside


def _windows(cut: _Cut, rounds: list[tuple[Ints, Ints, Ints]], prefix: int) -> BudgetedWindows:
    """Collect the events that each round has taken, and sort them by window and time."""
    if not rounds:
        none = np.empty(0, np.int64)
        return BudgetedWindows(none, none, np.zeros(1, np.int64), none)
    entity = np.concatenate([of_round for of_round, _, _ in rounds])
    high = np.concatenate([before for _, before, _ in rounds])
    low = np.concatenate([after for _, _, after in rounds])
    counts = (high - low).sum(axis=1)
    n_tokens = (cut.tokens[high] - cut.tokens[low]).sum(axis=1)
    lengths = (high - low).reshape(-1)
    ends = np.cumsum(lengths)
    taken = np.arange(ends[-1]) + np.repeat(low.reshape(-1) - (ends - lengths), lengths)
    events = cut.event[taken]
    window = np.repeat(np.arange(len(entity)), counts)
    events = events[np.lexsort((events, window))]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    # No two windows share an event, so the newest one puts them in order.
    order = np.argsort(events[offsets[1:] - 1], kind="stable")
    index, new_offsets = gather_ranges(offsets, order)
    return BudgetedWindows(entity[order], events[index], new_offsets, n_tokens[order] + prefix)


def _check_lengths(events: RaggedTokens, used: Ints, room: int, context: int) -> None:
    offsets = np.asarray(events.event_offsets)
    lengths = np.diff(offsets)[used]
    if not len(lengths) or int(lengths.max()) <= room:
        return
    number = int(used[np.argmax(lengths)])
    owner = int(np.searchsorted(np.asarray(events.entity_offsets), number, side="right")) - 1
    raise DataError(
        f"an event of {int(lengths.max())} tokens is longer than the context of {context}",
        where=f"event {number}, entity {owner} (counted from 0)",
        why="a window never cuts through an event",
        next_step="raise the context, or give the source a max_tokens_per_event",
    )
