"""Histories while they are being merged: sets of tokens, and the slots between them.

The loops (this file, ``ledger.py``, ``loops.py``, ``learning.py``) are written once for two
machines: they run as they stand on Python lists and dicts, and numba compiles the same source for
numpy arrays (``compiled.py``). So both give equal results.

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


def locate(
    chain: Chain, place: int, a: int, begins_a: int, b: int, begins_b: int
) -> tuple[int, int, int, int]:
    """Where two tokens stand: (node, position) of one and of the other, node −1 for the slot.

    All four are −1 where they no longer stand at this place.
    """
    nowhere = (NONE, NONE, NONE, NONE)
    node = place >> 1
    if place & 1 == 0:
        p, q = find(chain, node, a, begins_a), find(chain, node, b, begins_b)
        return (node, p, node, q) if p >= 0 and q >= 0 else nowhere
    following = chain.after[node]
    if following < 0:
        return nowhere
    if chain.slot[node] < 0:
        p, q = find(chain, node, a, begins_a), find(chain, following, b, begins_b)
        if p < 0 or q < 0:
            p, q = find(chain, node, b, begins_b), find(chain, following, a, begins_a)
        return (node, p, following, q) if p >= 0 and q >= 0 else nowhere
    if chain.slot[node] == b and chain.slot_begins[node] == begins_b:
        other, begins = a, begins_a
    elif chain.slot[node] == a and chain.slot_begins[node] == begins_a:
        other, begins = b, begins_b
    else:
        return nowhere
    p = find(chain, node, other, begins)
    if p >= 0:
        return (node, p, NONE, NONE)
    p = find(chain, following, other, begins)
    return (following, p, NONE, NONE) if p >= 0 else nowhere


def replace_pair(
    chain: Chain, place: int, where: tuple[int, int, int, int], token: int, begins: int
) -> None:
    """Put the merged token in the place of the two that `locate` has found."""
    one, p, other, q = where
    if place & 1 == 0:
        chain.tokens[p] = token
        chain.begins[p] = begins
        take_out(chain, one, q)
        return
    take_out(chain, one, p)
    if other >= 0:
        take_out(chain, other, q)
    chain.slot[place >> 1] = token
    chain.slot_begins[place >> 1] = begins


def tidy(chain: Chain, node: int, following: int) -> None:
    """After a merge across two nodes: absorb, and let empty nodes leave.

    ``following`` stays: where it is empty, it takes over the new token.
    """
    absorb(chain, node)
    absorb(chain, following)
    leave_if_empty(chain, chain.before[node])
    leave_if_empty(chain, node)
