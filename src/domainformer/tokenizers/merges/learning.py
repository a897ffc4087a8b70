"""Which pairs to merge, heaviest first: the learning loop.

::

    pair ─▶ number ─┬▶ weight      sum over all histories, exact integers
                    └▶ postings    the histories in which it has occurred (inverted index)

    heap of (−weight, key, number): an entry may be out of date, but never too light, so the
    first one that is up to date is the heaviest pair; equal weights fall to the lowest key

One merge visits the postings of its pair. In a history that still has the pair, what stands around
each occurrence is counted out, merged, and counted in again; nothing else is touched. See
``chain.py`` for how this source runs on two machines.
"""

from __future__ import annotations

from heapq import heappush
from typing import Any

from domainformer.tokenizers.merges.chain import (
    Chain,
    Rules,
    link,
    no_numbers,
    no_table,
    no_triples,
)
from domainformer.tokenizers.merges.ledger import (
    Turn,
    count_between,
    count_inside,
    enter_changes,
    heaviest,
    new_ledger,
)
from domainformer.tokenizers.merges.loops import settle


def occurrences(chain: Chain, start: int, stop: int, token: int, rules: Rules, heap: Any) -> None:
    """Put every occurrence of the newest rule in one history on the heap."""
    rule = token - rules.base
    a, b, distance = rules.left[rule], rules.right[rule], rules.distance[rule]
    for node in range(start, stop):
        for p in range(chain.first[node], chain.first[node] + chain.size[node]):
            if chain.tokens[p] != a and chain.tokens[p] != b:
                continue
            offer_partners(chain, node, p, a, b, distance, token, heap)
        if chain.slot[node] >= 0 and (chain.slot[node] == a or chain.slot[node] == b):
            offer_slot_partners(chain, node, a, b, distance, token, heap)


def offer_partners(
    chain: Chain, node: int, p: int, a: int, b: int, distance: int, token: int, heap: Any
) -> None:
    """The partners of one token of a set: in the set, and in the next set."""
    x, begins = chain.tokens[p], chain.begins[p]
    offer_with(chain, node, p + 1, x, begins, a, b, distance, 2 * node, token, heap)
    following = chain.after[node]
    if following >= 0 and chain.slot[node] < 0:
        start = chain.first[following]
        offer_with(chain, following, start, x, begins, a, b, distance, 2 * node + 1, token, heap)


def offer_slot_partners(
    chain: Chain, node: int, a: int, b: int, distance: int, token: int, heap: Any
) -> None:
    """The partners of the token in a slot: in the sets on both sides."""
    x, begins, following = chain.slot[node], chain.slot_begins[node], chain.after[node]
    for side in (node, following):
        start = chain.first[side]
        offer_with(chain, side, start, x, begins, a, b, distance, 2 * node + 1, token, heap)


def offer_with(
    chain: Chain,
    node: int,
    start: int,
    x: int,
    begins: int,
    a: int,
    b: int,
    distance: int,
    place: int,
    token: int,
    heap: Any,
) -> None:
    """Put a token with its partners in a set, from a position on, on the heap."""
    for q in range(start, chain.first[node] + chain.size[node]):
        y, begins_y = chain.tokens[q], chain.begins[q]
        forward = x == a and y == b and begins_y - begins == distance
        backward = x == b and y == a and begins - begins_y == distance
        if forward or backward:
            heappush(heap, (token, min(begins, begins_y), place))


def learn(
    chain: Chain,
    starts: Any,
    stops: Any,
    unit: int,
    base: int,
    most: int,
    clock: Any,
) -> Any:
    """Learn up to ``most`` rules; the chain is left merged.

    Args:
        chain: The histories; those between ``starts[s]`` and ``stops[s]`` are used.
        starts: First event of each history.
        stops: One past its last event.
        unit: What a weight of 1 is.
        base: The first new token.
        most: How many rules to learn.
        clock: ``clock[0]`` tells the number of rules so far; a non-zero ``clock[1]`` stops.

    Returns:
        (keys, weights) of the rules in order, weights in units.
    """
    left, right, distance = no_numbers(), no_numbers(), no_numbers()
    found, weights = no_numbers(), no_numbers()
    rules = Rules(no_table(), left, right, distance, base)
    ledger = new_ledger()
    heap, pairs = no_triples(), no_triples()
    link(chain, starts, stops)
    recount = 0
    for history in range(len(starts)):
        turn = Turn(unit, history, recount, 0)
        for node in range(starts[history], stops[history]):
            if chain.size[node] > 0:
                count_inside(chain, node, 1, ledger, turn)
                count_between(chain, node, 1, ledger, turn)
        recount += 1
    enter_changes(ledger, heap)
    while len(found) < most and clock[1] == 0:
        number = heaviest(ledger, heap)
        if number < 0:
            break
        key, token = ledger.keys[number], base + len(found)
        found.append(key)
        weights.append(ledger.weight[number])
        rules.table[key] = token
        left.append(key >> 40)
        right.append((key >> 16) & 0xFFFFFF)
        distance.append((key & 0xFFFF) - 0x8000)
        posting = ledger.newest[number]
        while posting >= 0:
            history = ledger.history[posting]
            occurrences(chain, starts[history], stops[history], token, rules, pairs)
            if len(pairs) > 0:
                settle(chain, rules, pairs, ledger, Turn(unit, history, recount, len(found)))
                recount += 1
            posting = ledger.older[posting]
        enter_changes(ledger, heap)
        clock[0] = len(found)
    return found, weights
