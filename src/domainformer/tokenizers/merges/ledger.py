"""The weight of every pair, and the histories in which it occurs.

See ``chain.py`` for how this source runs on two machines. A pair inside a set of M tokens weighs
2/M, across two sets 1/(M₁M₂), of a set with the slot beside it 1/M. Weights are integers in units
of 1/``unit``, so that sums do not depend on their order.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, NamedTuple

from domainformer.tokenizers.merges.chain import (
    NONE,
    Chain,
    look_up,
    no_numbers,
    no_table,
    pair_key,
)


class Turn(NamedTuple):
    """What is being counted.

    Args:
        unit: What a weight of 1 is.
        history: Number of the history.
        recount: A number for this visit to the history, never used before.
        merge: The merge that causes it.
    """

    unit: int
    history: int
    recount: int
    merge: int


class Ledger(NamedTuple):
    """What is known of each pair, by its number, and the postings.

    Args:
        number: Key → number.
        keys: Key of each pair.
        weight: Its weight in all histories.
        change: What the merge under way adds to it.
        changed: The pairs with an entry in ``change``.
        mark: The merge in which it was last put on ``changed``.
        stamp: The recount in which it was last seen.
        newest: Its newest posting, or −1.
        older: Posting → the pair's previous one, or −1.
        history: Posting → the history concerned.
    """

    number: Any
    keys: Any
    weight: Any
    change: Any
    changed: Any
    mark: Any
    stamp: Any
    newest: Any
    older: Any
    history: Any


def new_ledger() -> Ledger:
    """A ledger without pairs."""
    return Ledger(
        no_table(),
        no_numbers(),
        no_numbers(),
        no_numbers(),
        no_numbers(),
        no_numbers(),
        no_numbers(),
        no_numbers(),
        no_numbers(),
        no_numbers(),
    )


def enter(key: int, weight: int, ledger: Ledger, turn: Turn) -> None:
    """Add one occurrence of a pair (a negative weight takes it away)."""
    if key < 0:
        return
    number = look_up(ledger.number, key)
    if number < 0:
        number = len(ledger.keys)
        ledger.number[key] = number
        ledger.keys.append(key)
        ledger.weight.append(0)
        ledger.change.append(0)
        ledger.mark.append(NONE)
        ledger.stamp.append(NONE)
        ledger.newest.append(NONE)
    if ledger.mark[number] != turn.merge:
        ledger.mark[number] = turn.merge
        ledger.changed.append(number)
    ledger.change[number] += weight
    if ledger.stamp[number] != turn.recount:
        ledger.stamp[number] = turn.recount
        if weight > 0:
            # Not seen when this history was counted out, so it is new here.
            ledger.older.append(ledger.newest[number])
            ledger.history.append(turn.history)
            ledger.newest[number] = len(ledger.history) - 1


def enter_pairs(
    chain: Chain,
    node: int,
    start: int,
    token: int,
    begins: int,
    weight: int,
    ledger: Ledger,
    turn: Turn,
) -> None:
    """One token with those of a set, from a position on."""
    for p in range(start, chain.first[node] + chain.size[node]):
        enter(pair_key(token, begins, chain.tokens[p], chain.begins[p]), weight, ledger, turn)


def count_inside(chain: Chain, node: int, sign: int, ledger: Ledger, turn: Turn) -> None:
    """Enter the pairs inside a set; ``sign`` −1 takes them away."""
    first, size = chain.first[node], chain.size[node]
    if size < 2:
        return
    weight = sign * ((4 * turn.unit + size) // (2 * size))
    for p in range(first, first + size):
        enter_pairs(chain, node, p + 1, chain.tokens[p], chain.begins[p], weight, ledger, turn)


def count_between(chain: Chain, node: int, sign: int, ledger: Ledger, turn: Turn) -> None:
    """Enter the pairs across a node and the next, through the slot where it is taken."""
    following = chain.after[node]
    if following < 0:
        return
    first, size = chain.first[node], chain.size[node]
    then, many = chain.first[following], chain.size[following]
    if chain.slot[node] >= 0:
        token, begins = chain.slot[node], chain.slot_begins[node]
        if size > 0:
            weight = sign * ((2 * turn.unit + size) // (2 * size))
            enter_pairs(chain, node, first, token, begins, weight, ledger, turn)
        if many > 0:
            weight = sign * ((2 * turn.unit + many) // (2 * many))
            enter_pairs(chain, following, then, token, begins, weight, ledger, turn)
    elif size > 0 and many > 0:
        weight = sign * ((2 * turn.unit + size * many) // (2 * size * many))
        for p in range(first, first + size):
            token, begins = chain.tokens[p], chain.begins[p]
            enter_pairs(chain, following, then, token, begins, weight, ledger, turn)


def count_around_set(chain: Chain, node: int, sign: int, ledger: Ledger, turn: Turn) -> None:
    """Enter all pairs of a set: inside it, and with its neighbours."""
    count_inside(chain, node, sign, ledger, turn)
    if chain.before[node] >= 0:
        count_between(chain, chain.before[node], sign, ledger, turn)
    count_between(chain, node, sign, ledger, turn)


def count_around_slot(
    chain: Chain, first: int, node: int, following: int, sign: int, ledger: Ledger, turn: Turn
) -> None:
    """Enter all pairs of two adjacent sets, and those across the nodes from ``first`` on."""
    count_inside(chain, node, sign, ledger, turn)
    count_inside(chain, following, sign, ledger, turn)
    while first != following:
        count_between(chain, first, sign, ledger, turn)
        first = chain.after[first]
    count_between(chain, following, sign, ledger, turn)


def enter_changes(ledger: Ledger, heap: Any) -> None:
    """Apply what one merge has changed; a pair that has become heavier goes on the heap."""
    for number in ledger.changed:
        change = ledger.change[number]
        ledger.change[number] = 0
        ledger.weight[number] += change
        if change > 0:
            heappush(heap, (-ledger.weight[number], ledger.keys[number], number))
    ledger.changed.clear()


def heaviest(ledger: Ledger, heap: Any) -> int:
    """The pair with the largest weight, or −1 where no pair is left."""
    while len(heap) > 0:
        weight, key, number = heappop(heap)
        now = ledger.weight[number]
        if now == -weight:
            if now > 0:
                return number
        elif 0 < now < -weight:
            # It has become lighter since: put it back where it belongs.
            heappush(heap, (-now, key, number))
    return NONE
