"""Which pairs to merge, heaviest first: the learning loop, for Python and for numba.

::

    pair ─▶ number ─┬▶ weight      sum over all histories, exact integers
                    └▶ postings    the histories in which it has occurred (inverted index)

    heap of (−weight, key, number): an entry may be out of date, but never too light, so the
    first one that is up to date is the heaviest pair; equal weights fall to the lowest key

One merge visits the postings of its pair. A history that still has the pair is counted out,
merged, and counted in again; all others are not touched. As in ``loops.py``, the source runs as it
stands on lists, or compiled by numba.

A pair inside a set of M tokens weighs 2/M, across two sets 1/(M₁M₂), across a set and a slot 1/M.
Weights are integers in units of 1/``unit``, so that sums do not depend on their order.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any, NamedTuple

from domainformer.tokenizers.merges.loops import (
    NONE,
    Chain,
    Rules,
    link,
    look_up,
    no_numbers,
    no_table,
    no_triples,
    pair_key,
    settle,
)


class Books(NamedTuple):
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


def enter(key: int, weight: int, history: int, recount: int, merge: int, books: Books) -> None:
    """Add one occurrence of a pair (a negative weight takes it away)."""
    if key < 0:
        return
    number = look_up(books.number, key)
    if number < 0:
        number = len(books.keys)
        books.number[key] = number
        books.keys.append(key)
        books.weight.append(0)
        books.change.append(0)
        books.mark.append(NONE)
        books.stamp.append(NONE)
        books.newest.append(NONE)
    if books.mark[number] != merge:
        books.mark[number] = merge
        books.changed.append(number)
    books.change[number] += weight
    if books.stamp[number] != recount:
        books.stamp[number] = recount
        if weight > 0:
            # Not seen when this history was counted out, so it is new here.
            books.older.append(books.newest[number])
            books.history.append(history)
            books.newest[number] = len(books.history) - 1


def count(
    chain: Chain,
    start: int,
    stop: int,
    unit: int,
    sign: int,
    history: int,
    recount: int,
    merge: int,
    books: Books,
) -> None:
    """Enter every pair of one history; ``sign`` −1 counts it out."""
    for node in range(start, stop):
        first, size = chain.first[node], chain.size[node]
        if size > 1:
            weight = sign * ((4 * unit + size) // (2 * size))
            for p in range(first, first + size):
                for q in range(p + 1, first + size):
                    key = pair_key(
                        chain.tokens[p], chain.begins[p], chain.tokens[q], chain.begins[q]
                    )
                    enter(key, weight, history, recount, merge, books)
        following = chain.after[node]
        if following < 0 or (size == 0 and chain.slot[node] < 0):
            continue
        then, many = chain.first[following], chain.size[following]
        if chain.slot[node] >= 0:
            token, begins = chain.slot[node], chain.slot_begins[node]
            for p in range(first, first + size):
                weight = sign * ((2 * unit + size) // (2 * size))
                key = pair_key(chain.tokens[p], chain.begins[p], token, begins)
                enter(key, weight, history, recount, merge, books)
            for q in range(then, then + many):
                weight = sign * ((2 * unit + many) // (2 * many))
                key = pair_key(token, begins, chain.tokens[q], chain.begins[q])
                enter(key, weight, history, recount, merge, books)
        else:
            for p in range(first, first + size):
                for q in range(then, then + many):
                    weight = sign * ((2 * unit + size * many) // (2 * size * many))
                    key = pair_key(
                        chain.tokens[p], chain.begins[p], chain.tokens[q], chain.begins[q]
                    )
                    enter(key, weight, history, recount, merge, books)


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
    books = Books(
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
    heap, pairs = no_triples(), no_triples()
    link(chain, starts, stops)
    recount = 0
    for history in range(len(starts)):
        count(chain, starts[history], stops[history], unit, 1, history, recount, 0, books)
        recount += 1
    enter_changes(books, heap)
    while len(found) < most and clock[1] == 0:
        number = heaviest(books, heap)
        if number < 0:
            break
        key, token, merge = books.keys[number], base + len(found), len(found) + 1
        found.append(key)
        weights.append(books.weight[number])
        rules.table[key] = token
        left.append(key >> 40)
        right.append((key >> 16) & 0xFFFFFF)
        distance.append((key & 0xFFFF) - 0x8000)
        posting = books.newest[number]
        while posting >= 0:
            history = books.history[posting]
            start, stop = starts[history], stops[history]
            occurrences(chain, start, stop, token, rules, pairs)
            if len(pairs) > 0:
                count(chain, start, stop, unit, -1, history, recount, merge, books)
                settle(chain, rules, pairs)
                count(chain, start, stop, unit, 1, history, recount, merge, books)
                recount += 1
            posting = books.older[posting]
        enter_changes(books, heap)
        clock[0] = len(found)
    return found, weights


def enter_changes(books: Books, heap: Any) -> None:
    """Apply what one merge has changed; a pair that has become heavier goes on the heap."""
    for number in books.changed:
        change = books.change[number]
        books.change[number] = 0
        books.weight[number] += change
        if change > 0:
            heappush(heap, (-books.weight[number], books.keys[number], number))
    books.changed.clear()


def heaviest(books: Books, heap: Any) -> int:
    """The pair with the largest weight, or −1 where no pair is left."""
    while len(heap) > 0:
        weight, key, number = heappop(heap)
        now = books.weight[number]
        if now == -weight:
            if now > 0:
                return number
        elif 0 < now < -weight:
            # It has become lighter since: put it back where it belongs.
            heappush(heap, (-now, key, number))
    return NONE
