"""Sparse rows and their truncated SVD, in numpy alone.

Bags of words and co-occurrence counts have a few dozen entries in a row of many thousands. Their
SVD is found from products with a thin matrix (Halko, Martinsson & Tropp 2011, "Finding structure
with randomness", algorithm 4.4), each a gather and a sum over the entries of a row::

    A ≈ U Σ Vᵀ        A: [rows, columns], V: [columns, rank]

The signs of the singular vectors, which the mathematics leaves open, are fixed, and the random
start has a seed, so that the same matrix gives the same vectors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_OVERSAMPLED = 10
_POWER_STEPS = 4
# Entries times columns held by one product: 2²² doubles are 32 MiB.
_HELD = 1 << 22


@dataclass(frozen=True)
class SparseRows:
    """A matrix by its entries, row by row (compressed sparse rows).

    Args:
        starts: Entries ``starts[i]:starts[i + 1]`` belong to row i, ``[rows + 1]``.
        columns: Column of each entry.
        values: Value of each entry.
        width: Number of columns.
    """

    starts: Ints
    columns: Ints
    values: Floats
    width: int

    @classmethod
    def of(cls, rows: Any, columns: Any, values: Any, shape: tuple[int, int]) -> SparseRows:
        """A matrix of entries in any order; entries of one place are added.

        Example:
            >>> SparseRows.of([1, 0, 1], [2, 1, 2], [1.0, 5.0, 2.0], (2, 3)).dense()
            array([[0., 5., 0.],
                   [0., 0., 3.]])
        """
        height, width = shape
        keys = np.asarray(rows, np.int64) * width + np.asarray(columns, np.int64)
        places, inverse = np.unique(keys, return_inverse=True)
        weights: Floats = np.asarray(values, np.float64)
        summed = np.bincount(inverse, weights, len(places)).astype(np.float64)
        starts = np.searchsorted(places, np.arange(height + 1) * width)
        return cls(starts.astype(np.int64), places % width, summed, width)

    @property
    def height(self) -> int:
        """Number of rows."""
        return len(self.starts) - 1

    @property
    def rows(self) -> Ints:
        """Row of each entry."""
        return np.repeat(np.arange(self.height), np.diff(self.starts))

    def transposed(self) -> SparseRows:
        """The matrix with rows and columns exchanged."""
        order = np.argsort(self.columns, kind="stable")
        counts = np.bincount(self.columns, minlength=self.width)
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        return SparseRows(starts, self.rows[order], self.values[order], self.height)

    def times(self, dense: Floats) -> Floats:
        """The product with a thin matrix, ``[rows, k]``.

        Args:
            dense: ``[columns, k]``.
        """
        product = np.zeros((self.height, dense.shape[1]))
        filled = np.flatnonzero(np.diff(self.starts))
        most = max(1, _HELD // max(1, dense.shape[1]))
        first = 0
        while first < len(filled):
            begin = self.starts[filled[first]]
            last = int(np.searchsorted(self.starts[filled + 1], begin + most, side="right"))
            part = filled[first : max(first + 1, last)]
            entries = slice(begin, self.starts[part[-1] + 1])
            terms = dense[self.columns[entries]] * self.values[entries, None]
            product[part] = np.add.reduceat(terms, self.starts[part] - begin, axis=0)
            first += len(part)
        return product

    def dense(self) -> Floats:
        """The matrix with all its zeros (for tests and small data)."""
        matrix = np.zeros((self.height, self.width))
        matrix[self.rows, self.columns] = self.values
        return matrix


def truncated_svd(matrix: SparseRows, rank: int, *, seed: int = 0) -> tuple[Floats, Floats]:
    """The largest singular values and their right vectors.

    Args:
        matrix: ``[rows, columns]``.
        rank: Most values to find.
        seed: Of the random start.

    Returns:
        V, ``[columns, k]``, and the singular values, ``[k]``, descending and above zero;
        k ≤ rank. The coordinates of the rows are ``matrix.times(V)``.

    Example:
        >>> tall = SparseRows.of([0, 1, 2], [0, 1, 0], [3.0, 1.0, 4.0], (3, 2))
        >>> vectors, values = truncated_svd(tall, 2)
        >>> values.round(6).tolist(), abs(vectors.round(6)).tolist()
        ([5.0, 1.0], [[1.0, 0.0], [0.0, 1.0]])
    """
    shorter = min(matrix.height, matrix.width)
    if not shorter or not len(matrix.values):
        return np.zeros((matrix.width, 0)), np.zeros(0)
    across = matrix.transposed()
    random = np.random.default_rng(seed)
    start = random.standard_normal((matrix.width, min(rank + _OVERSAMPLED, shorter)))
    basis = np.linalg.qr(matrix.times(start))[0]
    for _ in range(_POWER_STEPS):
        basis = np.linalg.qr(matrix.times(np.linalg.qr(across.times(basis))[0]))[0]
    vectors, values, _ = np.linalg.svd(across.times(basis), full_matrices=False)
    kept = min(rank, int((values > values[0] * 1e-10).sum()))
    vectors = vectors[:, :kept]
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(kept)]
    return vectors * np.where(largest < 0, -1.0, 1.0), values[:kept]
