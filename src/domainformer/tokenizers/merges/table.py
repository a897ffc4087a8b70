"""What each merged token is made of: its rule, its parts, the events they lie in.

::

    token 71 = (12, 40, +1)     12 in one event, 40 in the next
    token 90 = (7, 71, −1)      71 begins one event before 7

    parts of 90     event  +0   +1  +1
                    id     12   7   40       span 2: the token begins in one event, ends in the next
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from domainformer.data.tokens import Ints
from domainformer.errors import TokenizerError


@dataclass(frozen=True, eq=False)
class MergeTable:
    """Rules in the order in which they were learned, and what follows from them.

    Args:
        base: Size of the vocabulary that is merged; rule ``r`` makes the token ``base + r``.
        left: First part of each rule, int64 [n_rules].
        right: Second part; ``left`` ≤ ``right``.
        distance: Event in which the second part begins, minus that of the first.
        order: Place of each base id among the tokens of its event, int64 [base]; distinct.

    Example:
        >>> table = MergeTable.of(4, [[1, 2, 0], [0, 4, -1]])
        >>> table.size, table.span.tolist()
        (6, [1, 1, 1, 1, 1, 2])
        >>> table.parts(5)
        [[1, 2], [0]]
    """

    base: int
    left: Ints
    right: Ints
    distance: Ints
    order: Ints

    @classmethod
    def of(cls, base: int, rules: object, order: Ints | None = None) -> MergeTable:
        """A table from rules of (left, right, distance).

        Raises:
            TokenizerError: A rule names a token that does not exist before it.
        """
        array = np.asarray(rules, dtype=np.int64).reshape(-1, 3)
        left, right, distance = (np.ascontiguousarray(column) for column in array.T)
        made = base + np.arange(len(array))
        wrong = np.flatnonzero((left < 0) | (left > right) | (right >= made))
        wrong_twin = np.flatnonzero((left == right) & (distance <= 0))
        if wrong.size or wrong_twin.size:
            rule = int(min([*wrong[:1], *wrong_twin[:1]]))
            raise TokenizerError(
                f"merge {rule} joins {left[rule]} and {right[rule]} at {distance[rule]}",
                why=f"a merge joins a lower and a higher token, both below {made[rule]}",
                next_step="restore the file from a copy, or learn the merges again",
            )
        return cls(base, left, right, distance, np.arange(base) if order is None else order)

    @property
    def n_rules(self) -> int:
        """Number of rules."""
        return len(self.left)

    @property
    def size(self) -> int:
        """Number of tokens, base vocabulary and merges."""
        return self.base + self.n_rules

    @cached_property
    def keys(self) -> Ints:
        """`chain.pair_key` of each rule."""
        return (self.left << 40) | (self.right << 16) | (self.distance + 0x8000)

    @cached_property
    def _expanded(self) -> tuple[Ints, Ints, Ints, Ints]:
        """(offsets, base ids, events counted from the first) of all tokens, and their spans."""
        ids = [[token] for token in range(self.base)]
        events = [[0] for _ in range(self.base)]
        span = [1] * self.base
        rules = zip(self.left.tolist(), self.right.tolist(), self.distance.tolist(), strict=True)
        for a, b, distance in rules:
            shift_a, shift_b = max(0, -distance), max(0, distance)
            ids.append(ids[a] + ids[b])
            events.append([e + shift_a for e in events[a]] + [e + shift_b for e in events[b]])
            span.append(max(shift_a + span[a], shift_b + span[b]))
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        flat_ids = np.fromiter((i for row in ids for i in row), np.int64, int(offsets[-1]))
        flat_events = np.fromiter((e for row in events for e in row), np.int64, int(offsets[-1]))
        return offsets, flat_ids, flat_events, np.array(span, dtype=np.int64)

    @property
    def offsets(self) -> Ints:
        """Where the parts of each token begin in ``part_ids``, int64 [size + 1]."""
        return self._expanded[0]

    @property
    def part_ids(self) -> Ints:
        """Base ids of all tokens, one after the other."""
        return self._expanded[1]

    @property
    def part_events(self) -> Ints:
        """Event of each of ``part_ids``, counted from the event in which its token begins."""
        return self._expanded[2]

    @property
    def span(self) -> Ints:
        """How many events each token reaches over, from first to last, int64 [size]."""
        return self._expanded[3]

    @cached_property
    def lead(self) -> Ints:
        """Place of each token among others: that of the first of its parts, int64 [size]."""
        place = np.where(self.part_events == 0, self.order[self.part_ids], self.base)
        return np.minimum.reduceat(place, self.offsets[:-1]) if self.base else place

    def parts(self, token: int) -> list[list[int]]:
        """Base ids of one token, event by event.

        Raises:
            TokenizerError: There is no such token.
        """
        if not 0 <= token < self.size:
            raise TokenizerError(
                f"there is no token {token}", why=f"the merged vocabulary has {self.size:,}"
            )
        own = slice(int(self.offsets[token]), int(self.offsets[token + 1]))
        events: list[list[int]] = [[] for _ in range(int(self.span[token]))]
        for event, base_id in zip(self.part_events[own], self.part_ids[own], strict=True):
            events[event].append(int(base_id))
        return [sorted(event, key=lambda base_id: int(self.order[base_id])) for event in events]
