"""Merging in the plainest way: whole histories, one rule at a time, everything recounted.

Written from the paper and its public code (linked list, `_merge_empty_nodes`), with fractions.
"""

from fractions import Fraction
from itertools import combinations, product


def key_of(x, y):
    (a, at_a), (b, at_b) = x, y
    if a > b or (a == b and at_a > at_b):
        (a, at_a), (b, at_b) = y, x
    return (a, b, at_b - at_a)


def chain(sets, first_event=0):
    """[[set, slot], …]: tokens are (id, event in which they begin)."""
    nodes = [[[(t, first_event + e) for t in one], None] for e, one in enumerate(sets)]
    return tidied(nodes)


def tidied(nodes):
    changed = True
    while changed:
        changed = False
        for i in range(1, len(nodes)):
            if not nodes[i][0] and nodes[i - 1][1] is not None:
                nodes[i][0], nodes[i - 1][1] = [nodes[i - 1][1]], None
                changed = True
        for i, (tokens, slot) in enumerate(nodes):
            if not tokens and slot is None:
                del nodes[i]
                changed = True
                break
    return nodes


def pairs(nodes):
    """(x, y, weight, apply) of all pairs; apply(new) changes the nodes."""
    for i, node in enumerate(nodes):
        tokens, slot = node
        for x, y in combinations(tokens, 2):
            yield x, y, Fraction(2, len(tokens)), (node, node, None)
        if i + 1 == len(nodes):
            continue
        then = nodes[i + 1]
        if slot is not None:
            for x in tokens:
                yield x, slot, Fraction(1, len(tokens)), (node, None, node)
            for y in then[0]:
                yield y, slot, Fraction(1, len(then[0])), (then, None, node)
        else:
            for x, y in product(tokens, then[0]):
                yield x, y, Fraction(1, len(tokens) * len(then[0])), (node, then, node)


def settle(nodes, rules):
    """Apply rules, lowest first, then oldest event, until none applies."""
    while True:
        best = None
        for x, y, _, where in pairs(nodes):
            token = rules.get(key_of(x, y))
            if token is not None:
                rank = (token, min(x[1], y[1]))
                if best is None or rank < best[0]:
                    best = (rank, x, y, where)
        if best is None:
            return nodes
        new, x, y, (one, other, slot_of) = best
        one[0].remove(x)
        if other is not None:
            other[0].remove(y)
        if slot_of is None:
            one[0].append(new)
        else:
            slot_of[1] = new
        tidied(nodes)


def learn(histories, base, most):
    """(rules in order as (a, b, distance), weights, merged histories)."""
    chains, found, weights = [chain(sets) for sets in histories], {}, []
    while len(found) < most:
        totals = {}
        for nodes in chains:
            for x, y, weight, _ in pairs(nodes):
                totals[key_of(x, y)] = totals.get(key_of(x, y), 0) + weight
        if not totals:
            break
        key, weight = min(totals.items(), key=lambda item: (-item[1], item[0]))
        found[key] = base + len(found)
        weights.append(weight)
        chains = [settle(nodes, found) for nodes in chains]
    return list(found), weights, chains


def tokens_of(nodes):
    """All (id, event in which it begins) of a chain, sorted by event and id."""
    found = [token for tokens, _ in nodes for token in tokens]
    found += [slot for _, slot in nodes if slot is not None]
    return sorted(found, key=lambda token: (token[1], token[0]))


def flat_bpe(sequence, rules):
    """Plain BPE on a list of (id, event): the lowest rule, leftmost, until none applies."""
    sequence = list(sequence)
    while True:
        best = None
        for p in range(len(sequence) - 1):
            token = rules.get(key_of(sequence[p], sequence[p + 1]))
            if token is not None and (best is None or token < best[0]):
                best = (token, p)
        if best is None:
            return sequence
        token, p = best
        sequence[p : p + 2] = [(token, min(sequence[p][1], sequence[p + 1][1]))]
