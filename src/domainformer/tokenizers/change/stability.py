r"""The population stability index, and how much of it is chance.

Over groups g of a field's values, with shares p (then) and q (now),

    PSI = Σ (q_g − p_g) · ln(q_g / p_g)

the symmetric Kullback-Leibler divergence. Below 0.1 a distribution is said to be stable, from 0.25
on to have shifted (Siddiqi 2006, "Credit Risk Scorecards", chapter 6). Without any shift
PSI / (1/n + 1/m) is about χ² with (groups − 1) degrees of freedom, n and m being the rows then and
now: of few rows or many groups a large index means nothing (Yurdakul and Naranjo 2020, "Statistical
properties of the population stability index", Journal of Risk Model Validation 14).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

WATCH, SHIFTED = 0.1, 0.25
"""The usual thresholds."""

MOST_GROUPS = 20
# Added to each count, so that a group that is empty on one side has a finite term.
_SMOOTHING = 0.5
# The 99.9 % quantile of the normal distribution.
_Z = 3.090


class Stability(NamedTuple):
    """An index and its yardstick.

    Attributes:
        psi: The index; 0 where there is but one group.
        chance: What it exceeds by chance alone in one of 1,000 comparisons of such sizes.
    """

    psi: float
    chance: float

    @property
    def level(self) -> int:
        """0: stable, or not more than chance; 1: above 0.1; 2: above 0.25."""
        if self.psi <= self.chance:
            return 0
        return int(self.psi >= WATCH) + int(self.psi >= SHIFTED)


def population_stability(then: Sequence[int], now: Sequence[int]) -> Stability:
    """Compare counts of the same groups.

    Example:
        >>> round(population_stability([500, 500], [500, 500]).psi, 4)
        0.0
        >>> found = population_stability([800, 200], [500, 500])
        >>> round(found.psi, 2), found.level
        (0.41, 2)
        >>> population_stability([4, 1], [2, 3]).level  # of five rows: chance
        0
    """
    p, q = (np.asarray(counts, dtype=np.float64) for counts in (then, now))
    present = (p > 0) | (q > 0)
    groups = int(present.sum())
    if groups < 2 or not p.sum() or not q.sum():
        return Stability(0.0, 0.0)
    n, m = p.sum(), q.sum()
    p, q = (_shares(counts[present]) for counts in (p, q))
    psi = float(((q - p) * np.log(q / p)).sum())
    return Stability(psi, float(_chi_squared(groups - 1) * (1 / n + 1 / m)))


def differs_by_chance(then: int, of_then: int, now: int, of_now: int) -> bool:
    """Whether two shares differ by no more than chance gives in 999 of 1,000 comparisons.

    Example:
        >>> differs_by_chance(300, 1000, 14, 40), differs_by_chance(300, 1000, 26, 40)
        (True, False)
    """
    if not of_then or not of_now:
        return True
    pooled = (then + now) / (of_then + of_now)
    spread = math.sqrt(pooled * (1 - pooled) * (1 / of_then + 1 / of_now))
    return abs(then / of_then - now / of_now) <= _Z * spread


def _shares(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    counts = counts + _SMOOTHING
    shares: npt.NDArray[np.float64] = counts / counts.sum()
    return shares


def _chi_squared(freedom: int) -> float:
    """The 99.9 % quantile of χ² (Wilson and Hilferty 1931)."""
    part = 2 / (9 * freedom)
    return freedom * (1 - part + _Z * math.sqrt(part)) ** 3


def neighbours_grouped(counts: Sequence[int], most: int = MOST_GROUPS) -> list[slice]:
    """Neighbouring bins put together into at most ``most`` groups of about equal counts.

    Example:
        >>> neighbours_grouped([5, 5, 1, 1, 8], most=3)
        [slice(0, 2, None), slice(2, 5, None)]
        >>> neighbours_grouped([0, 3], most=3)
        [slice(0, 1, None), slice(1, 2, None)]
    """
    if len(counts) <= most:
        return [slice(index, index + 1) for index in range(len(counts))]
    share = max(1.0, sum(counts) / most)
    groups, start, total = [], 0, 0
    for index, count in enumerate(counts):
        total += count
        if total >= share:
            groups.append(slice(start, index + 1))
            start, total = index + 1, 0
    if start < len(counts):
        if groups:
            start = groups.pop().start
        groups.append(slice(start, len(counts)))
    return groups
