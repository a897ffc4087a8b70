"""Applying merges: greedily, or after permuting each event's tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data.tokens import Ints, TokenizedEvents, id_dtype
from domainformer.tokenizers.kernels import numba_available
from domainformer.tokenizers.merges.chain import Rules
from domainformer.tokenizers.merges.compiled import Machine, machine
from domainformer.tokenizers.merges.histories import (
    Merged,
    Stretches,
    blocks,
    chain_of,
    on_machine,
    tokens_of,
)
from domainformer.tokenizers.merges.table import MergeTable

_Step = Callable[[Machine, TokenizedEvents, Rules], Merged]
# Rules as the loops take them, by whether those are compiled; beside the table, which is pickled.
_KNOWN_RULES: WeakKeyDictionary[MergeTable, dict[bool, Rules]] = WeakKeyDictionary()


def encode_greedy(
    events: TokenizedEvents, table: MergeTable, name: str, *, compiled: bool | None
) -> TokenizedEvents:
    """Events with the lowest rule applied first (see `ActionPieceMerges.encode`)."""

    def step(loops: Machine, part: TokenizedEvents, rules: Rules) -> Merged:
        merged = _greedy(loops, part.ids, part.event_offsets, Stretches.of(part), rules)
        # By last event, then the oldest first, then where the first part stands in its event.
        last = merged.begins + table.span[merged.tokens]
        order = np.lexsort((table.lead[merged.tokens], merged.begins, last))
        return Merged(merged.tokens[order], merged.begins[order])

    return _in_blocks(events, table, name, step, compiled=compiled)


def encode_permuted(
    events: TokenizedEvents,
    table: MergeTable,
    name: str,
    *,
    key: tuple[int, int],
    compiled: bool | None,
) -> TokenizedEvents:
    """Events with neighbours merged after permuting sets (`ActionPieceMerges.encode_permuted`)."""

    def step(loops: Machine, part: TokenizedEvents, rules: Rules) -> Merged:
        event = np.repeat(np.arange(part.n_events), np.diff(part.event_offsets))
        order = np.lexsort((_draws(part, event, key), event))
        stretches = Stretches.of(part)
        ends = [part.event_offsets[side] for side in stretches]
        tokens = on_machine(part.ids[order], compiled=loops.compiled)
        begins = on_machine(event[order], compiled=loops.compiled)
        starts, stops = (on_machine(end, compiled=loops.compiled) for end in ends)
        loops.encode_flat(tokens, begins, starts, stops, rules)
        merged = Merged(np.asarray(tokens, dtype=np.int64), np.asarray(begins, dtype=np.int64))
        alive = merged.tokens >= 0
        return Merged(merged.tokens[alive], merged.begins[alive])

    return _in_blocks(events, table, name, step, compiled=compiled)


def encode_sets(sets: Sequence[Sequence[int]], table: MergeTable) -> list[list[int]]:
    """Each set merged alone, as a label is."""
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in sets])]).astype(np.int64)
    ids = np.array([token for one in sets for token in one], dtype=np.uint32)
    loops = machine(compiled=False)
    alone = Stretches(np.arange(len(sets)), np.arange(1, len(sets) + 1))
    merged = _greedy(loops, ids, offsets, alone, rules_of(loops, table))
    order = np.lexsort((table.lead[merged.tokens], merged.begins))
    rows: list[list[int]] = [[] for _ in sets]
    for position in order:
        rows[int(merged.begins[position])].append(int(merged.tokens[position]))
    return rows


def _greedy(
    loops: Machine, ids: Any, event_offsets: Ints, stretches: Stretches, rules: Rules
) -> Merged:
    chain = chain_of(ids, event_offsets, compiled=loops.compiled)
    starts, stops = (on_machine(side, compiled=loops.compiled) for side in stretches)
    loops.encode_chain(chain, starts, stops, rules)
    return tokens_of(chain)


def _in_blocks(
    events: TokenizedEvents, table: MergeTable, name: str, step: _Step, *, compiled: bool | None
) -> TokenizedEvents:
    """Encode blocks of entities, one after the other, and put them together."""
    loops = machine(compiled=numba_available() if compiled is None else compiled)
    rules = rules_of(loops, table)
    dtype = id_dtype(table.size)
    ids = [np.empty(0, dtype)]
    lengths = [np.empty(0, np.int64)]
    for first, last in blocks(events):
        part = _entities(events, first, last)
        tokens, begins = step(loops, part, rules)
        event = begins + table.span[tokens] - 1
        ids.append(tokens.astype(dtype))
        lengths.append(np.bincount(event, minlength=part.n_events))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
    return TokenizedEvents(
        ids=np.concatenate(ids),
        event_offsets=offsets,
        entity_offsets=np.asarray(events.entity_offsets),
        entity_ids=events.entity_ids,
        times=np.asarray(events.times),
        roles=None if events.roles is None else np.asarray(events.roles),
        tokenizer_fingerprint=name,
        vocab_size=table.size,
    )


def _entities(events: TokenizedEvents, first: int, last: int) -> TokenizedEvents:
    """Entities ``first`` to ``last`` as views."""
    start, stop = int(events.entity_offsets[first]), int(events.entity_offsets[last])
    offsets = events.event_offsets[start : stop + 1]
    return TokenizedEvents(
        ids=events.ids[int(offsets[0]) : int(offsets[-1])],
        event_offsets=offsets - offsets[0],
        entity_offsets=events.entity_offsets[first : last + 1] - start,
        entity_ids=events.entity_ids[first:last],
        times=events.times[start:stop],
        roles=None if events.roles is None else events.roles[start:stop],
        tokenizer_fingerprint=events.tokenizer_fingerprint,
        vocab_size=events.vocab_size,
    )


def rules_of(loops: Machine, table: MergeTable) -> Rules:
    """The rules as the loops take them; made once per table."""
    known = _KNOWN_RULES.setdefault(table, {})
    if loops.compiled not in known:
        known[loops.compiled] = _make_rules(loops, table)
    return known[loops.compiled]


def _make_rules(loops: Machine, table: MergeTable) -> Rules:
    columns = (table.keys, table.left, table.right, table.distance)
    keys, left, right, distance = (on_machine(c, compiled=loops.compiled) for c in columns)
    return Rules(loops.rule_table(keys, table.base), left, right, distance, table.base)


def _draws(events: TokenizedEvents, event: Ints, key: tuple[int, int]) -> npt.NDArray[np.uint64]:
    """A random number for each token, from (seed, epoch), its entity, and its place there."""
    per_entity = _entity_seeds(events.entity_ids, key)
    owner = np.repeat(np.arange(events.n_entities), events.lengths)
    begin = events.event_offsets[events.entity_offsets[:-1]]
    place = (np.arange(events.n_tokens) - begin[owner]).astype(np.uint64)
    # splitmix64: the entity's own sequence, at the token's place (Steele et al. 2014).
    mixed = per_entity[owner] + (place + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _entity_seeds(entity_ids: pl.Series, key: tuple[int, int]) -> npt.NDArray[np.uint64]:
    secret = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    digests = b"".join(
        hashlib.blake2b(str(entity).encode(), digest_size=8, key=secret).digest()
        for entity in entity_ids.to_list()
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)
