"""Applying rules: greedily on chains of sets, or to neighbours in flat sequences.

See ``chain.py`` for what a chain is, and for how this source runs on two machines.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

from domainformer.tokenizers.merges.chain import (
    NONE,
    Chain,
    Rules,
    link,
    locate,
    look_up,
    no_table,
    no_triples,
    pair_key,
    replace_pair,
    tidy,
)
from domainformer.tokenizers.merges.ledger import count_around_set, count_around_slot


def rule_table(keys: Any, base: int) -> dict[int, int]:
    """Key → new token, for rules in the order in which they were learned."""
    table = no_table()
    for number in range(len(keys)):
        table[keys[number]] = base + number
    return table


# Places: 2·node is inside the set of a node, 2·node + 1 lies between it and the next.


def offer(
    a: int, begins_a: int, b: int, begins_b: int, place: int, rules: Rules, heap: Any
) -> None:
    """Put a pair that a rule merges on the heap: lowest rule first, then oldest event."""
    token = look_up(rules.table, pair_key(a, begins_a, b, begins_b))
    if token >= 0:
        heappush(heap, (token, min(begins_a, begins_b), place))


def offer_inside(chain: Chain, node: int, rules: Rules, heap: Any) -> None:
    """All pairs inside a set."""
    start = chain.first[node]
    stop = start + chain.size[node]
    for p in range(start, stop):
        for q in range(p + 1, stop):
            offer(
                chain.tokens[p],
                chain.begins[p],
                chain.tokens[q],
                chain.begins[q],
                2 * node,
                rules,
                heap,
            )


def offer_against(
    chain: Chain, node: int, token: int, begins: int, place: int, rules: Rules, heap: Any
) -> None:
    """All pairs of one token with a set."""
    for p in range(chain.first[node], chain.first[node] + chain.size[node]):
        offer(chain.tokens[p], chain.begins[p], token, begins, place, rules, heap)


def offer_token(chain: Chain, node: int, token: int, begins: int, rules: Rules, heap: Any) -> None:
    """All pairs of a token that is new in a set; the other pairs are known already."""
    offer_against(chain, node, token, begins, 2 * node, rules, heap)
    previous, following = chain.before[node], chain.after[node]
    if previous >= 0:
        place = 2 * previous + 1
        if chain.slot[previous] >= 0:
            x, begins_x = chain.slot[previous], chain.slot_begins[previous]
            offer(x, begins_x, token, begins, place, rules, heap)
        else:
            offer_against(chain, previous, token, begins, place, rules, heap)
    if following >= 0:
        place = 2 * node + 1
        if chain.slot[node] >= 0:
            x, begins_x = chain.slot[node], chain.slot_begins[node]
            offer(x, begins_x, token, begins, place, rules, heap)
        else:
            offer_against(chain, following, token, begins, place, rules, heap)


def offer_between(chain: Chain, node: int, rules: Rules, heap: Any) -> None:
    """All pairs across a node and the next: through the slot where it is taken."""
    following = chain.after[node]
    if following < 0:
        return
    place = 2 * node + 1
    if chain.slot[node] >= 0:
        token, begins = chain.slot[node], chain.slot_begins[node]
        offer_against(chain, node, token, begins, place, rules, heap)
        offer_against(chain, following, token, begins, place, rules, heap)
        return
    for p in range(chain.first[node], chain.first[node] + chain.size[node]):
        token, begins = chain.tokens[p], chain.begins[p]
        offer_against(chain, following, token, begins, place, rules, heap)


def settle(chain: Chain, rules: Rules, heap: Any, ledger: Any, turn: Any) -> int:
    """Merge until no rule applies: the lowest rule first, then the oldest event.

    Args:
        chain: The histories.
        rules: Which pairs merge.
        heap: The pairs to begin with; empty afterwards.
        ledger: Where the weights of pairs are kept up to date, or None.
        turn: Which history is being merged, for the ledger, or None.

    Returns:
        How many merges were made.
    """
    merged = 0
    while len(heap) > 0:
        token, begins, place = heappop(heap)
        rule = token - rules.base
        a, b, distance = rules.left[rule], rules.right[rule], rules.distance[rule]
        begins_a = begins - min(0, distance)
        begins_b = begins + max(0, distance)
        where = locate(chain, place, a, begins_a, b, begins_b)
        if where[0] < 0:
            continue
        node = place >> 1
        if place & 1 == 0:
            if ledger is not None:
                count_around_set(chain, node, -1, ledger, turn)
            replace_pair(chain, place, where, token, begins)
            if ledger is not None:
                count_around_set(chain, node, 1, ledger, turn)
            offer_token(chain, node, token, begins, rules, heap)
        else:
            following = chain.after[node]
            first = reach_back(chain, node)
            if ledger is not None:
                count_around_slot(chain, first, node, following, -1, ledger, turn)
            replace_pair(chain, place, where, token, begins)
            tidy(chain, node, following)
            first = earliest_left(chain, first, following)
            if ledger is not None:
                count_around_slot(chain, first, node, following, 1, ledger, turn)
            while first != following:
                offer_between(chain, first, rules, heap)
                first = chain.after[first]
            offer_between(chain, following, rules, heap)
        merged += 1
    return merged


def reach_back(chain: Chain, node: int) -> int:
    """The first node whose neighbours a merge across ``node`` and the next may change."""
    previous = chain.before[node]
    if previous < 0:
        return node
    if chain.size[previous] > 0 or chain.before[previous] < 0:
        return previous
    # An empty node may leave the chain, and bring the one before it together with this one.
    return chain.before[previous]


def earliest_left(chain: Chain, first: int, following: int) -> int:
    """That node, or where it has left the chain, the first one up to ``following``."""
    node = following
    while node != first and chain.before[node] >= 0:
        node = chain.before[node]
    return node


def encode_chain(chain: Chain, starts: Any, stops: Any, rules: Rules) -> int:
    """Merge all histories, one after the other; returns the number of merges."""
    link(chain, starts, stops)
    heap = no_triples()
    merged = 0
    for history in range(len(starts)):
        for node in range(starts[history], stops[history]):
            if chain.size[node] > 0:
                offer_inside(chain, node, rules, heap)
                offer_between(chain, node, rules, heap)
        merged += settle(chain, rules, heap, None, None)
    return merged


def encode_flat(tokens: Any, begins: Any, starts: Any, stops: Any, rules: Rules) -> int:
    """Plain byte-pair merging of flat sequences: neighbours, lowest rule first, then leftmost.

    ``tokens`` and ``begins`` are changed in place; what has been merged away becomes −1.
    """
    after = [0] * len(tokens)
    before = [0] * len(tokens)
    heap = no_triples()
    merged = 0
    for sequence in range(len(starts)):
        start, stop = starts[sequence], stops[sequence]
        for p in range(start, stop):
            before[p] = p - 1 if p > start else NONE
            after[p] = p + 1 if p + 1 < stop else NONE
            if p + 1 < stop:
                offer_neighbours(tokens, begins, p, p + 1, rules, heap)
        while len(heap) > 0:
            token, p, right = heappop(heap)
            if tokens[p] < 0 or tokens[right] < 0 or after[p] != right:
                continue
            key = pair_key(tokens[p], begins[p], tokens[right], begins[right])
            if look_up(rules.table, key) != token:
                continue
            tokens[p] = token
            begins[p] = min(begins[p], begins[right])
            tokens[right] = NONE
            after[p] = after[right]
            if after[p] >= 0:
                before[after[p]] = p
                offer_neighbours(tokens, begins, p, after[p], rules, heap)
            if before[p] >= 0:
                offer_neighbours(tokens, begins, before[p], p, rules, heap)
            merged += 1
    return merged


def offer_neighbours(
    tokens: Any, begins: Any, left: int, right: int, rules: Rules, heap: Any
) -> None:
    """Put two neighbours that a rule merges on the heap."""
    key = pair_key(tokens[left], begins[left], tokens[right], begins[right])
    token = look_up(rules.table, key)
    if token >= 0:
        heappush(heap, (token, left, right))
