"""Entities that stand near each other in histories, as vectors.

::

    history   a b c a      pairs at distance 1: ab bc ca, at distance 2: ac ba, each 1/distance
    counts    symmetric ─▶ positive pointwise mutual information ─▶ truncated SVD

    PPMI(a, b) = max(0, log (c(a, b) Σc^¾ / (c(a) c(b)^¾)))

Frequencies of contexts are raised to ¾, which keeps rare pairs from outweighing all others, and
the vectors are ``U Σ^½`` (Levy, Goldberg & Dagan 2015, "Improving Distributional Similarity with
Lessons Learned from Word Embeddings", TACL 3).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from domainformer.tokenizers.semantic.sparse import Floats, SparseRows, truncated_svd

WINDOW = 5
_SMOOTHING = 0.75


def pair_counts(
    codes: npt.NDArray[np.integer],
    offsets: npt.NDArray[np.integer],
    n_entities: int,
    *,
    window: int = WINDOW,
) -> SparseRows:
    """How often two entities stand near each other, ``[n_entities, n_entities]``, symmetric.

    Args:
        codes: Entity at each event, −1 for none; histories one after the other.
        offsets: History i is ``codes[offsets[i]:offsets[i + 1]]``.
        n_entities: Number of entities.
        window: Largest distance that counts.

    Example:
        >>> pair_counts(np.array([0, 1, 2, 2, 0]), np.array([0, 3, 5]), 3, window=2).dense()
        array([[0. , 1. , 1.5],
               [1. , 0. , 1. ],
               [1.5, 1. , 0. ]])
    """
    codes = np.asarray(codes, np.int64)
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    lefts, rights, weights = [], [], []
    for distance in range(1, window + 1):
        left, right = codes[:-distance], codes[distance:]
        counted = (owner[:-distance] == owner[distance:]) & (left != right)
        counted &= (left >= 0) & (right >= 0)
        lefts += [left[counted], right[counted]]
        rights += [right[counted], left[counted]]
        weights.append(np.full(2 * int(counted.sum()), 1.0 / distance))
    empty = [np.empty(0, np.int64)]
    return SparseRows.of(
        np.concatenate(lefts or empty),
        np.concatenate(rights or empty),
        np.concatenate(weights or [np.empty(0)]),
        (n_entities, n_entities),
    )


def ppmi(counts: SparseRows) -> SparseRows:
    """Positive pointwise mutual information of symmetric counts; zeros are left out."""
    row_sums = np.bincount(counts.rows, counts.values, counts.height)
    context = row_sums**_SMOOTHING
    expected = row_sums[counts.rows] * context[counts.columns]
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(counts.values * context.sum() / expected)
    kept = information > 0
    return SparseRows.of(
        counts.rows[kept],
        counts.columns[kept],
        information[kept],
        (counts.height, counts.width),
    )


def history_vectors(counts: SparseRows, dimensions: int, *, seed: int = 0) -> Floats:
    """A vector per entity, ``[n_entities, ≤ dimensions]``; zeros where it was never near any."""
    information = ppmi(counts)
    vectors, values = truncated_svd(information, dimensions, seed=seed)
    return information.times(vectors) / np.sqrt(values)
