"""Undoing merges: by event offsets in one vectorised pass, or backwards from flat ids."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt

from domainformer.data.tokens import Ints, TokenizedEvents, gather_ranges, id_dtype
from domainformer.errors import TokenizerError
from domainformer.tokenizers.merges.table import MergeTable


def decode_events(events: TokenizedEvents, table: MergeTable) -> TokenizedEvents:
    """The events before merging, still named as merged (see `ActionPieceMerges.decode`).

    Raises:
        TokenizerError: A token reaches over the beginning of its history.
    """
    tokens = events.ids.astype(np.int64)
    event = np.repeat(np.arange(events.n_events), np.diff(events.event_offsets))
    begins = event - table.span[tokens] + 1
    history = np.repeat(events.entity_offsets[:-1], np.diff(events.entity_offsets))
    outside = begins < history[event]
    if outside.any():
        token = int(np.argmax(outside))
        raise TokenizerError(
            f"the token {tokens[token]} reaches over the beginning of its history",
            where=f"event {event[token]}",
            why=f"it spans {table.span[tokens[token]]} events, the last of which is this one",
            next_step="decode whole histories, as encode has made them",
        )
    parts, offsets = gather_ranges(table.offsets, tokens)
    ids = table.part_ids[parts]
    target = np.repeat(begins, np.diff(offsets)) + table.part_events[parts]
    order = np.lexsort((table.order[ids], target))
    lengths = np.bincount(target, minlength=events.n_events)
    return TokenizedEvents(
        ids=ids[order].astype(id_dtype(events.vocab_size)),
        event_offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        entity_offsets=events.entity_offsets,
        entity_ids=events.entity_ids,
        times=events.times,
        roles=events.roles,
        tokenizer_fingerprint=events.tokenizer_fingerprint,
        vocab_size=events.vocab_size,
    )


def decode_flat(ids: npt.ArrayLike, table: MergeTable, slot_of_id: Ints) -> list[list[int]]:
    """Base ids of each event of flat merged ids (see `ActionPieceMerges.decode_ids`).

    Tokens stand by the last event that they reach into, and the last event is complete. So the
    last event that still lacks a slot is where the next token, from the end, has its last part.

    Raises:
        TokenizerError: The ids are not whole events.
    """
    flat = np.asarray(ids, dtype=np.int64).ravel()
    wrong = np.flatnonzero((flat < 0) | (flat >= table.size))
    if wrong.size:
        raise TokenizerError(
            f"the id {flat[wrong[0]]} is outside the merged vocabulary of {table.size:,}",
            where=f"position {wrong[0]}",
        )
    n_slots = int(slot_of_id.max(initial=-1)) + 1
    special = (flat < table.base) & (slot_of_id[np.minimum(flat, table.base - 1)] < 0)
    cuts = [-1, *np.flatnonzero(special).tolist(), len(flat)]
    events: list[list[int]] = []
    for start, stop in itertools.pairwise(cuts):
        events += _backwards(flat[start + 1 : stop].tolist(), start + 1, table, slot_of_id, n_slots)
    return events


def _backwards(
    tokens: list[int], start: int, table: MergeTable, slot_of_id: Ints, n_slots: int
) -> list[list[int]]:
    """One history; events are numbered from its end."""
    events: list[dict[int, int]] = []
    current = 0
    for position in range(len(tokens) - 1, -1, -1):
        for back, part in enumerate(reversed(table.parts(tokens[position]))):
            while len(events) <= current + back:
                events.append({})
            for base_id in part:
                slot = int(slot_of_id[base_id])
                if slot in events[current + back]:
                    why = f"slot {slot} of an event would be filled twice"
                    raise _not_whole(start + position, why)
                events[current + back][slot] = base_id
        while current < len(events) and len(events[current]) == n_slots:
            current += 1
    if current < len(events):
        missing = n_slots - len(events[current])
        raise _not_whole(start, f"the event that begins here lacks {missing} of {n_slots} slots")
    return [[event[slot] for slot in sorted(event)] for event in reversed(events)]


def _not_whole(position: int, why: str) -> TokenizerError:
    return TokenizerError(
        "the ids are not whole events",
        where=f"position {position}",
        why=why,
        next_step="decode a whole history; events of different slots need decode with offsets",
    )
