"""Runs beside each other: a difference in the curve comes from the change that was named.

::

    run folders ─▶ runs.py ─▶ guard.py ─▶ groups.py ─▶ result.py        comparing.py
                   what can   refuse what  mean ± s.e.  table, JSON
                   change it  nobody named  tests        + curves.py
    sweep.yaml ──▶ plan.py ──▶ sweeping.py: a run for each setting and seed ─▶ compare

Start at :func:`compare` and :func:`sweep`; ``statistics.py`` has the tests, ``labels.py`` the words
for a setting. May import the rest of ``evaluation`` and what lies below.
"""

from domainformer.evaluation.comparisons.comparing import compare
from domainformer.evaluation.comparisons.plan import SweepConfig
from domainformer.evaluation.comparisons.result import (
    RESULT_FILE,
    Against,
    RunComparison,
    RunGroup,
)
from domainformer.evaluation.comparisons.statistics import TTest
from domainformer.evaluation.comparisons.sweeping import CellState, Sweep, sweep

__all__ = [
    "compare",
    "RunComparison",
    "RunGroup",
    "Against",
    "TTest",
    "RESULT_FILE",
    "sweep",
    "SweepConfig",
    "Sweep",
    "CellState",
]
