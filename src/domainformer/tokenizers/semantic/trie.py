"""A prefix trie of fixed-length ids as sorted arrays: which ids exist, and what may come next.

::

    ids  0 3 1      depth 0     depth 1       depth 2
         0 5 0      root ─0─▶ A ─3─▶ C ─1─▶ leaf 0
         2 3 1           │     ╰─5─▶ D ─0─▶ leaf 1
                         ╰─2─▶ B ─3─▶ E ─1─▶ leaf 2

A node is a number within its depth. The edges of a depth are one sorted array of
``node · labels + label``, so that a step for many rows at once is one binary search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

NOWHERE = -1
"""The node of what does not exist."""


@dataclass(frozen=True)
class PrefixTrie:
    """The ids that exist.

    Args:
        edges: Per depth ``node · labels + label`` of every edge, ascending; edge i leads to node i
            of the next depth.
        labels: Number of labels at each depth.
        rows: Per leaf, the row of the array that `of` was given.
    """

    edges: tuple[Ints, ...]
    labels: tuple[int, ...]
    rows: Ints

    @classmethod
    def of(cls, ids: npt.ArrayLike, labels: tuple[int, ...]) -> Self:
        """The trie of the rows of an array.

        Args:
            ids: ``[n, depth]``; of equal rows the first counts.
            labels: Position p holds values from 0 to ``labels[p] − 1``.

        Example:
            >>> trie = PrefixTrie.of([[0, 3, 1], [0, 5, 0], [2, 3, 1]], (4, 6, 2))
            >>> trie.find(np.array([[0, 5, 0], [2, 5, 0]])).tolist()
            [1, -1]
        """
        table = np.asarray(ids, np.int64).reshape(-1, len(labels))
        rows, first = np.unique(table, axis=0, return_index=True)
        node = np.zeros(len(rows), np.int64)
        edges = []
        for depth, count in enumerate(labels):
            found, node = np.unique(node * count + rows[:, depth], return_inverse=True)
            edges.append(found)
        return cls(tuple(edges), labels, first.astype(np.int64))

    def step(self, depth: int, nodes: Ints, labels: npt.NDArray[Any]) -> Ints:
        """The children of nodes by labels; `NOWHERE` where there is none.

        Args:
            depth: Depth of the nodes, from 0.
            nodes: ``[n]``; `NOWHERE` stays there.
            labels: ``[n]``.
        """
        edges, count = self.edges[depth], self.labels[depth]
        labels = np.asarray(labels, np.int64)
        keys = nodes * count + labels
        place = np.minimum(np.searchsorted(edges, keys), max(len(edges) - 1, 0))
        known = (nodes >= 0) & (labels >= 0) & (labels < count)
        if not len(edges):
            return np.full(len(keys), NOWHERE)
        return np.where(known & (edges[place] == keys), place, NOWHERE)

    def allowed(self, depth: int, nodes: Ints) -> npt.NDArray[np.bool_]:
        """Which labels lead on from each node, ``[n, labels[depth]]``."""
        edges, count = self.edges[depth], self.labels[depth]
        first = np.searchsorted(edges, nodes * count)
        lengths = np.searchsorted(edges, (nodes + 1) * count) - first
        lengths = np.where(nodes >= 0, lengths, 0)
        ends = np.cumsum(lengths)
        # Edge j of row i stands at first[i] + j.
        places = np.arange(int(lengths.sum())) + np.repeat(first - (ends - lengths), lengths)
        mask = np.zeros((len(nodes), count), np.bool_)
        mask[np.repeat(np.arange(len(nodes)), lengths), edges[places] % count] = True
        return mask

    def find(self, ids: npt.NDArray[Any]) -> Ints:
        """The row that each id came from, ``[n]``; `NOWHERE` for ids that do not exist."""
        nodes = np.zeros(len(ids), np.int64)
        for depth in range(len(self.labels)):
            nodes = self.step(depth, nodes, ids[:, depth])
        if not len(self.rows):
            return nodes
        return np.where(nodes >= 0, self.rows[nodes], NOWHERE)
