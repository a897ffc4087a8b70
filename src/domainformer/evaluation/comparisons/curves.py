"""Curves of a group: the mean over its seeds at each step, and the standard error around it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from domainformer.evaluation.comparisons.runs import RunEntry
from domainformer.evaluation.comparisons.statistics import standard_error

STEP = "step"
# Told of every step, and no curve to compare by.
_NO_CURVES = frozenset({STEP, "tokens", "epoch", "lr", "tokens_per_second", "seconds"})
_MOST_POINTS = 200


@dataclass(frozen=True)
class Curve:
    """A figure over the steps of training, for one group.

    Args:
        key: The figure, such as ``eval_loss``.
        group: The group.
        steps: Steps at which every seed of the group told it.
        mean: Over seeds.
        low: Mean minus one standard error; the mean itself for one seed.
        high: Mean plus one standard error.
    """

    key: str
    group: str
    steps: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def curves_of(name: str, runs: Sequence[RunEntry]) -> list[Curve]:
    """All curves that the runs of a group have in common.

    Args:
        name: Of the group.
        runs: Its runs.
    """
    told = [{key: _points(run, key) for key in _keys(run)} for run in runs]
    common = [key for key in told[0] if all(key in one for one in told)] if told else []
    curves = (_curve(key, name, [one[key] for one in told]) for key in common)
    return [curve for curve in curves if curve.steps]


def _keys(run: RunEntry) -> list[str]:
    found = dict.fromkeys(key for row in run.metrics for key in row)
    return [key for key in found if key not in _NO_CURVES]


def _points(run: RunEntry, key: str) -> dict[int, float]:
    """The figure by step; a step that a resumed run told again counts as it was told last."""
    return {
        int(row[STEP]): float(row[key])
        for row in run.metrics
        if STEP in row and isinstance(row.get(key), int | float) and math.isfinite(row[key])
    }


def _curve(key: str, group: str, seeds: Sequence[dict[int, float]]) -> Curve:
    steps = _thinned(sorted(set.intersection(*(set(points) for points in seeds))))
    values = [[points[step] for points in seeds] for step in steps]
    means = [float(np.mean(row)) for row in values]
    errors = [standard_error(row) or 0.0 for row in values]
    return Curve(
        key=key,
        group=group,
        steps=tuple(steps),
        mean=tuple(means),
        low=tuple(mean - error for mean, error in zip(means, errors, strict=True)),
        high=tuple(mean + error for mean, error in zip(means, errors, strict=True)),
    )


def _thinned(steps: list[int]) -> list[int]:
    """Evenly chosen steps, first and last among them."""
    if len(steps) <= _MOST_POINTS:
        return steps
    stride = (len(steps) - 1) / (_MOST_POINTS - 1)
    return [steps[round(index * stride)] for index in range(_MOST_POINTS)]
