"""Contests: several models on one task, from one YAML file, with an answer that can be trusted.

::

    ContestConfig ─▶ task ─▶ every (model, fold, seed) one prediction file ─▶ Comparison ─▶ report

Start at :mod:`~domainformer.evaluation.contest.table`: the contestants by name. Each is a frozen
dataclass of plain settings with ``fit(task, examples_train, examples_valid, seed)``; a new one is
its class and one line in that table. ``config`` is the YAML file, ``run`` does the work, ``cells``
keeps the predictions. May import everything below ``evaluation`` and its siblings.
"""

from domainformer.evaluation.contest.config import ContestConfig
from domainformer.evaluation.contest.run import COMPARISON_FILE, Contest, contest
from domainformer.evaluation.contest.table import BASELINES, CONTESTANTS, build_contestant

__all__ = [
    "CONTESTANTS",
    "BASELINES",
    "build_contestant",
    "ContestConfig",
    "contest",
    "Contest",
    "COMPARISON_FILE",
]
