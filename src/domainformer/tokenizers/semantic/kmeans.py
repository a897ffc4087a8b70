"""Residual k-means: cluster, subtract the centres, cluster what is left, and so on.

The light way to semantic ids, in numpy alone (GRID, arXiv 2507.22224, uses it by default)::

    r₁ = x      code_l, centre_l = k-means of r_l      r_{l+1} = r_l − centre_l

Centres start by k-means++ (Arthur & Vassilvitskii 2007): each next one is drawn in proportion to
the squared distance from those before. A cluster that loses all its rows takes the row that lies
farthest from its own centre. Everything is drawn from one seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from domainformer.tokenizers.semantic.quantizer import Floats, Quantizer, nearest_rows

Progress = Callable[[int, int, str], None]

ITERATIONS = 50
# More rows than this tell k-means nothing new about a few hundred centres.
_ROWS_PER_CENTRE = 256


def residual_kmeans(
    features: Floats,
    *,
    levels: int = 3,
    codes: int = 256,
    seed: int = 0,
    iterations: int = ITERATIONS,
    progress: Progress | None = None,
) -> Quantizer:
    """Fit a codebook per level.

    Args:
        features: Standardised features, ``[n, d]``.
        levels: Number of levels.
        codes: Centres of each.
        seed: Of the draws.
        iterations: Most rounds of assignment and averaging in a level.
        progress: Called with (levels done, levels in all, what is being done).

    Example:
        >>> x = np.array([[0.0], [0.2], [5.0], [5.2]])
        >>> residual_kmeans(x, levels=2, codes=2).codebooks.round(6).ravel().tolist()
        [5.1, 0.1, -0.1, 0.1]
    """
    random = np.random.default_rng(seed)
    most = _ROWS_PER_CENTRE * codes
    residual = np.asarray(features, np.float64)
    if len(residual) > most:
        residual = residual[np.sort(random.choice(len(residual), most, replace=False))]
    books = []
    for level in range(levels):
        if progress is not None:
            progress(level, levels, "k-means")
        centres = kmeans(residual, codes, random, iterations=iterations)
        residual = residual - centres[nearest_rows(residual, centres)]
        books.append(centres)
    return Quantizer((), np.stack(books))


def kmeans(
    rows: Floats, count: int, random: np.random.Generator, *, iterations: int = ITERATIONS
) -> Floats:
    """Centres of the rows, ``[count, d]`` (Lloyd's algorithm until no row changes its cluster).

    Args:
        rows: ``[n, d]``.
        count: Number of centres; where fewer rows are distinct, some centres coincide.
        random: Draws the first centres.
        iterations: Most rounds.
    """
    centres = _plus_plus(rows, count, random)
    owner = nearest_rows(rows, centres)
    for _ in range(iterations):
        centres = _means(rows, owner, centres)
        before, owner = owner, nearest_rows(rows, centres)
        if (before == owner).all():
            break
    return centres


def _plus_plus(rows: Floats, count: int, random: np.random.Generator) -> Floats:
    chosen = [int(random.integers(len(rows)))]
    squares = (rows**2).sum(axis=1)
    distance = np.full(len(rows), np.inf)
    for draw in random.random(count - 1):
        newest = rows[chosen[-1]]
        to_newest = squares - 2.0 * (rows @ newest) + newest @ newest
        distance = np.minimum(distance, np.maximum(to_newest, 0.0))
        cumulative = distance.cumsum()
        # Rounding leaves tiny distances between equal rows; then any row will do.
        index = int(np.searchsorted(cumulative, draw * cumulative[-1], side="right"))
        chosen.append(min(index, len(rows) - 1))
    return rows[chosen].copy()


def _means(rows: Floats, owner: np.ndarray, centres: Floats) -> Floats:
    """The mean of each cluster; an empty one takes a row that lies far from its centre."""
    order = np.argsort(owner, kind="stable")
    counts = np.bincount(owner, minlength=len(centres))
    filled = np.flatnonzero(counts)
    firsts = np.concatenate([[0], np.cumsum(counts)])[filled]
    means = centres.copy()
    means[filled] = np.add.reduceat(rows[order], firsts, axis=0) / counts[filled, None]
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        far = ((rows - means[owner]) ** 2).sum(axis=1)
        farthest = np.argsort(-far, kind="stable")[: len(empty)]
        means[empty[: len(farthest)]] = rows[farthest]
    return means
