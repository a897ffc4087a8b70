"""Is the difference between two settings more than the noise of their seeds?

Two answers, for two ways to repeat. With the same seeds in both (same initial weights, same order
of the data) the differences of each seed are tested, in which what the seeds share cancels; with
other seeds in each, the two means::

    paired   t = mean(d) / (sd(d) / √n)                    n − 1 degrees of freedom
    Welch    t = (mean(a) − mean(b)) / √(se(a)² + se(b)²)  degrees by Welch and Satterthwaite

where d are the differences by seed, and se is sd / √n.

Sources: W. S. Gosset ("Student"), *The Probable Error of a Mean*, 1908; B. L. Welch, *The
Generalization of "Student's" Problem*, 1947; S. Holm, *A Simple Sequentially Rejective Multiple
Test Procedure*, 1979.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from domainformer.evaluation.ablations.differences import spread

CONFIDENCE = 0.95
_TINY = 1e-300  # keeps Lentz's continued fraction from dividing by zero
_PRECISION = 1e-15
_MOST_TERMS = 10_000


@dataclass(frozen=True)
class TTest:
    """A difference, its 95 % interval, and how likely one as large is without any.

    Args:
        kind: ``paired`` or ``welch``.
        difference: Mean of the one minus mean of the other.
        low: Lower end of the interval.
        high: Its upper end.
        t: The statistic.
        freedom: Degrees of freedom.
        p: Two-sided probability of a statistic as extreme where the means are equal.
        n: Pairs, or the smaller number of seeds.
    """

    kind: str
    difference: float
    low: float
    high: float
    t: float
    freedom: float
    p: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def standard_error(values: Sequence[float]) -> float | None:
    """Standard deviation of the mean, sd / √n; None for one value.

    Example:
        >>> standard_error([1.0, 3.0]), standard_error([1.0])
        (1.0, None)
    """
    deviation = spread(values)
    return None if deviation is None else deviation / math.sqrt(len(values))


def welch(one: Sequence[float], other: Sequence[float]) -> TTest | None:
    """Compare two means of independent values, whose variances may differ.

    Args:
        one: Values of the one setting.
        other: Of the other.

    Returns:
        None where it is not defined: fewer than two values, or none that vary.

    Example:
        >>> found = welch([2.0, 2.2, 2.1], [1.0, 1.1, 1.2])
        >>> round(found.difference, 3), round(found.freedom, 1), found.p < 0.001
        (1.0, 4.0, True)
    """
    first, second = standard_error(one), standard_error(other)
    if first is None or second is None:
        return None
    square, squares = first**2 + second**2, (first**4, second**4)
    if square == 0 or sum(squares) == 0:
        return None
    freedom = square**2 / (squares[0] / (len(one) - 1) + squares[1] / (len(other) - 1))
    difference = float(np.mean(one)) - float(np.mean(other))
    n = min(len(one), len(other))
    return _test("welch", difference, math.sqrt(square), freedom, n)


def paired(one: Mapping[Any, float], other: Mapping[Any, float]) -> TTest | None:
    """Compare two settings on the seeds that both were trained with.

    Args:
        one: Values of the one setting, by seed.
        other: Of the other.

    Returns:
        None where it is not defined: fewer than two common seeds, or differences that do not vary.

    Example:
        >>> found = paired({0: 2.0, 1: 3.0, 2: 4.0}, {0: 1.9, 1: 2.8, 2: 3.9, 7: 0.0})
        >>> found.n, round(found.difference, 3), found.p < 0.06
        (3, 0.133, True)
    """
    differences = [one[seed] - other[seed] for seed in one if seed in other]
    error = standard_error(differences) if differences else None
    if not error:
        return None
    n = len(differences)
    return _test("paired", float(np.mean(differences)), error, n - 1.0, n)


def _test(kind: str, difference: float, error: float, freedom: float, n: int) -> TTest:
    t = difference / error
    half = quantile(CONFIDENCE, freedom) * error
    low, high = difference - half, difference + half
    return TTest(kind, difference, low, high, t, freedom, two_sided(t, freedom), n)


def holm(values: Sequence[float]) -> list[float]:
    """P-values corrected for their number: the chance of *any* false finding stays below 5 %.

    ``max over j ≤ i of (m − j + 1) p_(j)``, at most 1 (Holm 1979).

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    corrected, highest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, (len(values) - rank) * values[index])
        corrected[index] = min(1.0, highest)
    return corrected


def two_sided(t: float, freedom: float) -> float:
    """Probability of a Student's t beyond ``±t``.

    ``I_x(ν/2, 1/2)`` with ``x = ν / (ν + t²)``, the regularised incomplete beta function.

    Example:
        >>> round(two_sided(2.776, 4), 3), two_sided(0.0, 4)
        (0.05, 1.0)
    """
    square = t * t
    if math.isinf(square):
        return 0.0
    return _incomplete_beta(
        freedom / 2, 0.5, freedom / (freedom + square), square / (freedom + square)
    )


def quantile(confidence: float, freedom: float) -> float:
    """The t that a share ``confidence`` of a Student's t lies within, from both sides.

    Example:
        >>> round(quantile(0.95, 4), 3), round(quantile(0.95, 1e6), 2)
        (2.776, 1.96)
    """
    low, high = 0.0, 1.0
    while two_sided(high, freedom) > 1 - confidence:
        low, high = high, 2 * high
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if two_sided(middle, freedom) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """Regularised ``I_x(a, b)``; ``rest`` is 1 − x, given apart so that a small one stays exact."""
    if x <= 0 or rest <= 0:
        return 0.0 if x <= 0 else 1.0
    # The fraction converges fast on this side of the mean; the other one by symmetry.
    if x > (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, rest, x)
    logarithm = a * math.log(x) + b * math.log(rest)
    logarithm += math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return math.exp(logarithm) * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22) by Lentz's method."""
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d = 1.0 / _away(1.0 + term * d)
            c = _away(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < _PRECISION:
            break
    return value


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
