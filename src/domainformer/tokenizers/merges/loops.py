"""The innermost loops of merging, written once for two machines.

Each function takes flat arrays and plain dicts and runs as it stands, on Python lists; numba
compiles the same source for numpy arrays (``compiled.py``). So both give equal results.

A history is a chain of *sets* (one per event) with at most one token in the *slot* between two
neighbours::

    {a b c} ──[ ]── {d e} ──[ ]── {f}       merge c + d      {a b} ──[cd]── {e} ──[ ]── {f}
    {a b} ──[cd]── {e} ──[ ]── {f}          merge cd + e     {a b} ──[ ]── {cde} ──[ ]── {f}

Merging inside a set leaves the new token there; merging across leaves it in the slot, from where
it may merge on with either neighbour. A set that has become empty takes over the slot before it;
where there is none, and the slot after it is empty too, it leaves the chain.

Every token carries the number of the event in which it begins. A rule joins two tokens at a fixed
distance in events, so that a merged token says exactly which part of it belongs to which event.

Source: Hou et al., ActionPiece (arXiv 2502.13581), section 3.2 and appendix; the distance in the
rule is ours, for exact decoding.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, NamedTuple

NONE = -1
MOST_TOKENS = 1 << 23
FARTHEST = 1 << 15
"""Two tokens whose first events are this far apart never merge."""


class Chain(NamedTuple):
    """Histories while they are being merged; event ``i`` of all histories is node ``i``.

    Args:
        first: Where the set of a node begins in ``tokens``.
        size: How many tokens the set has now.
        tokens: The tokens of all sets.
        begins: The event in which each of them begins.
        slot: The token between a node and the next, or −1.
        slot_begins: The event in which that token begins.
        after: The next node of the history, or −1.
        before: The previous one, or −1.
    """

    first: Any
    size: Any
    tokens: Any
    begins: Any
    slot: Any
    slot_begins: Any
    after: Any
    before: Any


class Rules(NamedTuple):
    """Which pairs merge: the table by key, and the parts of each new token.

    Args:
        table: Key of a pair (`pair_key`) → new token; lower tokens merge first.
        left: First part of each new token.
        right: Second part; ``left`` ≤ ``right``.
        distance: Event of the second part minus event of the first.
        base: The first new token.
    """

    table: Any
    left: Any
    right: Any
    distance: Any
    base: int


def no_numbers() -> list[int]:
    """An empty list whose type numba can tell."""
    return [number for number in range(0)]  # noqa: C416


def no_triples() -> list[tuple[int, int, int]]:
    """An empty heap whose type numba can tell."""
    return [(number, number, number) for number in range(0)]


def no_table() -> dict[int, int]:
    """An empty dict whose type numba can tell."""
    return {number: number for number in range(0)}


def look_up(table: Any, key: int) -> int:
    """What a table holds for a key, or −1; always a plain integer to numba, never an optional."""
    return int(table.get(key, NONE))


def pair_key(a: int, begins_a: int, b: int, begins_b: int) -> int:
    """Two tokens and their distance as one integer, whichever comes first; −1 if too far apart.

    Keys sort by the lower token, the higher token, the distance.
    """
    if a > b or (a == b and begins_a > begins_b):
        a, begins_a, b, begins_b = b, begins_b, a, begins_a
    distance = begins_b - begins_a + FARTHEST
    if distance < 0 or distance >= 2 * FARTHEST:
        return NONE
    return (a << 40) | (b << 16) | distance


def rule_table(keys: Any, base: int) -> dict[int, int]:
    """Key → new token, for rules in the order in which they were learned."""
    table = no_table()
    for number in range(len(keys)):
        table[keys[number]] = base + number
    return table


def link(chain: Chain, starts: Any, stops: Any) -> None:
    """Chain the events of each history (``starts[s]`` to ``stops[s]``), without empty ones."""
    for history in range(len(starts)):
        previous = NONE
        for node in range(starts[history], stops[history]):
            chain.before[node] = NONE
            chain.after[node] = NONE
            if chain.size[node] > 0:
                chain.before[node] = previous
                if previous >= 0:
                    chain.after[previous] = node
                previous = node


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


def find(chain: Chain, node: int, token: int, begins: int) -> int:
    """Position of a token in a set, or −1."""
    for p in range(chain.first[node], chain.first[node] + chain.size[node]):
        if chain.tokens[p] == token and chain.begins[p] == begins:
            return p
    return NONE


def take_out(chain: Chain, node: int, position: int) -> None:
    """Remove a token from a set; the last one takes its place."""
    chain.size[node] -= 1
    last = chain.first[node] + chain.size[node]
    chain.tokens[position] = chain.tokens[last]
    chain.begins[position] = chain.begins[last]


def absorb(chain: Chain, node: int) -> None:
    """Give an empty set the token of the slot before it."""
    previous = chain.before[node]
    if chain.size[node] == 0 and previous >= 0 and chain.slot[previous] >= 0:
        chain.tokens[chain.first[node]] = chain.slot[previous]
        chain.begins[chain.first[node]] = chain.slot_begins[previous]
        chain.size[node] = 1
        chain.slot[previous] = NONE


def leave_if_empty(chain: Chain, node: int) -> None:
    """Take a node whose set and next slot are empty out of the chain."""
    if node < 0 or chain.size[node] > 0 or chain.slot[node] >= 0:
        return
    previous, following = chain.before[node], chain.after[node]
    if previous >= 0:
        chain.after[previous] = following
    if following >= 0:
        chain.before[following] = previous


def merge_inside(
    chain: Chain, node: int, a: int, begins_a: int, b: int, begins_b: int, token: int
) -> bool:
    """Merge two tokens of one set; False where they are no longer both there."""
    p = find(chain, node, a, begins_a)
    q = find(chain, node, b, begins_b)
    if p < 0 or q < 0:
        return False
    chain.tokens[p] = token
    chain.begins[p] = min(begins_a, begins_b)
    take_out(chain, node, q)
    return True


def merge_between(
    chain: Chain, node: int, a: int, begins_a: int, b: int, begins_b: int, token: int
) -> bool:
    """Merge across a node and the next; False where the two are no longer there."""
    following = chain.after[node]
    if following < 0:
        return False
    if chain.slot[node] >= 0:
        if chain.slot[node] == b and chain.slot_begins[node] == begins_b:
            other, begins = a, begins_a
        elif chain.slot[node] == a and chain.slot_begins[node] == begins_a:
            other, begins = b, begins_b
        else:
            return False
        side = node
        p = find(chain, node, other, begins)
        if p < 0:
            side = following
            p = find(chain, following, other, begins)
        if p < 0:
            return False
        take_out(chain, side, p)
    else:
        p = find(chain, node, a, begins_a)
        q = find(chain, following, b, begins_b)
        if p < 0 or q < 0:
            p = find(chain, node, b, begins_b)
            q = find(chain, following, a, begins_a)
        if p < 0 or q < 0:
            return False
        take_out(chain, node, p)
        take_out(chain, following, q)
    chain.slot[node] = token
    chain.slot_begins[node] = min(begins_a, begins_b)
    return True


def settle(chain: Chain, rules: Rules, heap: Any) -> int:
    """Merge until no rule applies: the lowest rule first, then the oldest event.

    Args:
        chain: The histories.
        rules: Which pairs merge.
        heap: The pairs to begin with; empty afterwards.

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
        node = place >> 1
        if place & 1 == 0:
            if not merge_inside(chain, node, a, begins_a, b, begins_b, token):
                continue
            offer_against(chain, node, token, begins, place, rules, heap)
            if chain.before[node] >= 0:
                offer_between(chain, chain.before[node], rules, heap)
            offer_between(chain, node, rules, heap)
        else:
            following = chain.after[node]
            if not merge_between(chain, node, a, begins_a, b, begins_b, token):
                continue
            tidy_and_offer(chain, node, following, rules, heap)
        merged += 1
    return merged


def tidy_and_offer(chain: Chain, node: int, following: int, rules: Rules, heap: Any) -> None:
    """After a merge across two nodes: absorb, drop empty nodes, offer the new neighbours."""
    absorb(chain, node)
    absorb(chain, following)
    leave_if_empty(chain, chain.before[node])
    leave_if_empty(chain, node)
    # ``following`` is never empty here: it could absorb the new token. What changed lies between
    # the two nodes before it and the one after.
    previous = chain.before[following]
    if previous >= 0:
        if chain.before[previous] >= 0:
            offer_between(chain, chain.before[previous], rules, heap)
        offer_between(chain, previous, rules, heap)
    offer_between(chain, following, rules, heap)


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
        merged += settle(chain, rules, heap)
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
