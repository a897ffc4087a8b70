"""Groups of repetitions, each with its mean, set beside the first one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from domainformer.evaluation.comparisons.labels import setting, told
from domainformer.evaluation.comparisons.result import ALPHA, Against, RunGroup
from domainformer.evaluation.comparisons.runs import RunEntry
from domainformer.evaluation.comparisons.statistics import (
    TTest,
    holm,
    paired,
    standard_error,
    welch,
)

Runs = Sequence[RunEntry]
ALL_RUNS = "all runs"
_MOST_MARKS_IN_A_NAME = 2


def name_groups(groups: Sequence[Runs], named: Sequence[str], unnamed: Sequence[str]) -> list[str]:
    """What each group is called: by what is compared, and no two alike.

    Args:
        groups: Runs of each group.
        named: Keys that are compared.
        unnamed: Keys that differ beside them.
    """
    keys = [*named, *unnamed[:_MOST_MARKS_IN_A_NAME]]
    names: list[str] = []
    for group in groups:
        plain = setting(keys, group[0].view) or ALL_RUNS
        name, times = plain, 1
        while name in names:
            times += 1
            name = f"{plain} ({times})"
        names.append(name)
    return names


def judge(
    groups: Sequence[Runs],
    names: Sequence[str],
    named: Sequence[str],
    unnamed: Sequence[str],
    *,
    metric: str,
    higher_is_better: bool,
) -> tuple[RunGroup, ...]:
    """The figures of each group, and how it compares with the first.

    Args:
        groups: Runs of each group, the base first.
        names: What they are called.
        named: Keys that are compared.
        unnamed: Keys that differ beside them, and are marked.
        metric: The figure.
        higher_is_better: Its direction.
    """
    base = groups[0]
    tests = [_tests(group, base, metric) for group in groups[1:]]
    deciding = [found[0] for found in tests]
    corrected = iter(holm([test.p for test in deciding if test is not None]))
    judged = [_group(base, names[0], named, metric, None, ())]
    for group, name, (test, other) in zip(groups[1:], names[1:], tests, strict=True):
        p = None if test is None else next(corrected)
        difference = _mean(group, metric) - _mean(base, metric)
        verdict = _verdict(difference, p, higher_is_better=higher_is_better)
        against = Against(difference, test, other, p, verdict)
        judged.append(_group(group, name, named, metric, against, _marks(group, base, unnamed)))
    return tuple(judged)


def _tests(group: Runs, base: Runs, metric: str) -> tuple[TTest | None, TTest | None]:
    """The test that decides, and the other one.

    Which of them decides follows from how the runs were made, never from what came out: a choice
    of the smaller p would find differences where there are none.
    """
    ours, theirs = _by_seed(group, metric), _by_seed(base, metric)
    by_pairs = paired(ours, theirs)
    by_means = welch(_values(group, metric), _values(base, metric))
    return (by_pairs, by_means) if ours.keys() == theirs.keys() else (by_means, by_pairs)


def _verdict(difference: float, p: float | None, *, higher_is_better: bool) -> str:
    if p is None:
        return "unknown" if difference else "even"
    if p >= ALPHA:
        return "even"
    return "better" if (difference > 0) == higher_is_better else "worse"


def _group(
    runs: Runs,
    name: str,
    keys: Sequence[str],
    metric: str,
    against: Against | None,
    marks: tuple[str, ...],
) -> RunGroup:
    common = [key for key in runs[0].results if all(key in run.results for run in runs)]
    figures: dict[str, dict[str, float | None]] = {}
    for key in common:
        values = _values(runs, key)
        figures[key] = {"mean": float(np.mean(values)), "error": standard_error(values)}
    return RunGroup(
        name=name,
        setting={key: runs[0].view.get(key) for key in keys},
        runs=tuple(str(run.folder) for run in runs),
        seeds=tuple(run.seed for run in runs),
        values=tuple(_values(runs, metric)),
        mean=_mean(runs, metric),
        error=standard_error(_values(runs, metric)),
        results=figures,
        against=against,
        marks=marks,
    )


def _marks(group: Runs, base: Runs, unnamed: Sequence[str]) -> tuple[str, ...]:
    ours: Mapping[str, Any] = group[0].view
    theirs: Mapping[str, Any] = base[0].view
    return tuple(
        f"{key}: {told(ours.get(key), key)}, base {told(theirs.get(key), key)}"
        for key in unnamed
        if ours.get(key) != theirs.get(key)
    )


def _by_seed(runs: Runs, metric: str) -> dict[Any, float]:
    """Values by seed; runs that tell no seed cannot be paired."""
    return {run.record.id if run.seed is None else run.seed: run.results[metric] for run in runs}


def _values(runs: Runs, metric: str) -> list[float]:
    return [run.results[metric] for run in runs]


def _mean(runs: Runs, metric: str) -> float:
    return float(np.mean(_values(runs, metric)))
