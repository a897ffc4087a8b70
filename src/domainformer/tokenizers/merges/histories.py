"""Histories as the merging loops take them: stretches of events, and their tokens as a chain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from domainformer.data.tokens import Ids, Ints, TokenizedEvents
from domainformer.errors import TokenizerError
from domainformer.tokenizers.merges.chain import Chain

# Tokens per block while encoding: its arrays stay within some MiB, whatever the size of the input.
_BLOCK_TOKENS = 1 << 18


class Stretches(NamedTuple):
    """Runs of events of one entity and one split role; merges stay within.

    ``starts[s]`` to ``stops[s]`` are the events of stretch ``s``.
    """

    starts: Ints
    stops: Ints

    @classmethod
    def of(cls, events: TokenizedEvents, roles: frozenset[int] | None = None) -> Stretches:
        """The stretches of all entities, or those of some split roles."""
        cuts = [events.entity_offsets]
        if events.roles is not None:
            cuts.append(np.flatnonzero(np.diff(events.roles)) + 1)
        bounds = np.unique(np.concatenate(cuts))
        starts, stops = bounds[:-1], bounds[1:]
        if events.roles is not None and roles is not None:
            kept = np.isin(events.roles[starts], list(roles))
            starts, stops = starts[kept], stops[kept]
        return cls(starts, stops)

    def alone(self) -> Stretches:
        """The same events, each a stretch of its own.

        Example:
            >>> Stretches(np.array([0, 5]), np.array([2, 6])).alone().starts.tolist()
            [0, 1, 5]
        """
        lengths = self.stops - self.starts
        begins = self.starts - np.cumsum(lengths) + lengths
        events = np.arange(int(lengths.sum())) + np.repeat(begins, lengths)
        return Stretches(events, events + 1)


def field_order(base: int, slot_of_id: Ints | None) -> Ints:
    """Place of each id among the tokens of an event: by slot, then by id.

    Raises:
        TokenizerError: ``slot_of_id`` has another length than the vocabulary.

    Example:
        >>> field_order(4, np.array([-2, 1, 0, 1])).tolist()
        [0, 2, 1, 3]
    """
    if slot_of_id is None:
        return np.arange(base)
    if slot_of_id.shape != (base,):
        raise TokenizerError(
            f"slot_of_id has shape {slot_of_id.shape}",
            why=f"the vocabulary has {base:,} ids",
            next_step="take layout.slot_of_id of the tokenizer that made the ids",
        )
    order = np.empty(base, dtype=np.int64)
    order[np.lexsort((np.arange(base), slot_of_id))] = np.arange(base)
    return order


def check_sets(events: TokenizedEvents, order: Ints, slot_of_id: Ints | None) -> None:
    """Check that events are sets in their one order: no text, no token twice, ascending.

    Raises:
        TokenizerError: One is not; the event is named.
    """
    if not events.n_tokens:
        return
    if int(events.ids.max()) >= len(order):
        token = int(np.argmax(events.ids >= len(order)))
        raise _not_a_set(
            events, token, f"the id {events.ids[token]} is outside the vocabulary", "validate()"
        )
    if slot_of_id is not None:
        outside = slot_of_id[events.ids] < 0
        if outside.any():
            raise _not_a_set(
                events,
                int(np.argmax(outside)),
                "the token belongs to no slot: it is a piece of text, or a special token",
                "leave text fields out of the schema that is merged (the order of their pieces "
                "matters), or encode them as categories",
            )
    place = order[events.ids]
    falling = np.zeros(events.n_tokens, dtype=bool)
    falling[1:] = np.diff(place) <= 0
    first = events.event_offsets[:-1]
    falling[first[first < events.n_tokens]] = False
    if falling.any():
        token = int(np.argmax(falling))
        twice = events.ids[token] == events.ids[token - 1]
        raise _not_a_set(
            events,
            token,
            "the token stands twice" if twice else "tokens do not ascend, as if order mattered",
            "merge events without text; where the tokenizer was extended, pass slot_of_id; "
            "where the schema has sources, name the fields of each in the schema's order",
        )


def _not_a_set(events: TokenizedEvents, token: int, why: str, next_step: str) -> TokenizerError:
    event = int(np.searchsorted(events.event_offsets, token, side="right")) - 1
    return TokenizerError(
        "an event is not a set of field tokens",
        where=f"event {event}, token {events.ids[token]}",
        why=why,
        next_step=next_step,
    )


def chain_of(ids: Ids, event_offsets: Ints, *, compiled: bool) -> Chain:
    """The unmerged chain of some events, as arrays, or as lists for plain Python."""
    n_events = len(event_offsets) - 1
    sizes = np.diff(event_offsets)
    arrays = Chain(
        first=event_offsets[:-1].astype(np.int64),
        size=sizes.astype(np.int64),
        tokens=ids.astype(np.int64),
        begins=np.repeat(np.arange(n_events), sizes),
        slot=np.full(n_events, -1, dtype=np.int64),
        slot_begins=np.zeros(n_events, dtype=np.int64),
        after=np.full(n_events, -1, dtype=np.int64),
        before=np.full(n_events, -1, dtype=np.int64),
    )
    return arrays if compiled else Chain(*(array.tolist() for array in arrays))


class Merged(NamedTuple):
    """Tokens of a merged chain, and the event in which each begins."""

    tokens: Ints
    begins: Ints


def tokens_of(chain: Chain) -> Merged:
    """What is left in the sets and slots of a merged chain."""
    first, size, tokens, begins, slot, slot_begins, _, _ = (
        np.asarray(part, dtype=np.int64) for part in chain
    )
    in_set = np.arange(len(tokens)) - np.repeat(first, np.diff(np.append(first, len(tokens))))
    alive = in_set < np.repeat(size, np.diff(np.append(first, len(tokens))))
    taken = slot >= 0
    return Merged(
        np.concatenate([tokens[alive], slot[taken]]),
        np.concatenate([begins[alive], slot_begins[taken]]),
    )


def blocks(events: TokenizedEvents) -> Iterator[tuple[int, int]]:
    """Ranges of entities of some hundred thousand tokens each, at least one entity."""
    ends = events.event_offsets[events.entity_offsets]
    first = 0
    while first < events.n_entities:
        last = int(np.searchsorted(ends, ends[first] + _BLOCK_TOKENS, side="right")) - 1
        last = min(max(last, first + 1), events.n_entities)
        yield first, last
        first = last


def on_machine(array: Any, *, compiled: bool) -> Any:
    """An array for compiled loops, a list for plain Python."""
    return np.ascontiguousarray(array, dtype=np.int64) if compiled else np.asarray(array).tolist()
