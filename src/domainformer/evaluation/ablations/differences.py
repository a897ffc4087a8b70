"""How far a variant is from the base, and how sure that is.

Differences are paired: variant and base are compared on the same events, seed by seed. Their
interval has two parts, which are added as variances: the draw of events (entities are resampled)
and the draw of seeds (Student's t over the differences of the seeds). With one seed only the first
is known, and training noise is not in the interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

# The 97.5 % point of Student's t by degrees of freedom, from standard tables; beyond, the last.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)


@dataclass(frozen=True)
class Difference:
    """A variant's figure minus the base's.

    Args:
        value: Mean over seeds.
        low: Lower end of the 95 % interval; None where nothing is known of it.
        high: Its upper end.
        spread: Standard deviation over seeds; None for one seed.
        by_seed: The difference of each seed.
        better: Whether the variant is ahead (True), behind (False), or neither for sure (None).
    """

    value: float
    low: float | None
    high: float | None
    spread: float | None
    by_seed: dict[int, float]
    better: bool | None


def differ(
    by_seed: Mapping[int, float], *, drawn: float | None = None, higher_is_better: bool
) -> Difference:
    """A difference with its interval.

    Args:
        by_seed: The difference of each seed.
        drawn: Half of the 95 % interval for the draw of events; None where that is not known.
        higher_is_better: The direction of the figure.

    Example:
        >>> differ({0: -0.2, 1: -0.2}, drawn=0.1, higher_is_better=False).better
        True
        >>> print(differ({0: -0.2}, higher_is_better=False).low)
        None
    """
    values = list(by_seed.values())
    value, over_seeds = float(np.mean(values)), spread(values)
    parts = [] if drawn is None else [drawn]
    if over_seeds is not None:
        student = STUDENT[min(len(values) - 1, len(STUDENT)) - 1]
        parts.append(student * over_seeds / math.sqrt(len(values)))
    half = math.hypot(*parts) if parts else None
    low, high = (None, None) if half is None else (value - half, value + half)
    sure = low is not None and high is not None and (low > 0 or high < 0)
    better = (value > 0) == higher_is_better if sure else None
    return Difference(value, low, high, over_seeds, dict(by_seed), better)


def spread(values: Sequence[float]) -> float | None:
    """Standard deviation of a sample; None for one value.

    Example:
        >>> spread([1.0, 3.0]) == 2**0.5, spread([1.0])
        (True, None)
    """
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
