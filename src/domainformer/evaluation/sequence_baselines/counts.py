"""``popular``, ``repeat_last``, ``counts``: what needs no network.

``counts`` is :class:`~domainformer.evaluation.sequence_counts.SequenceCounts` (Markov of everyone,
the entity's own habits) as a model of a task; ``repeat_last`` bets on the value that came last;
``popular`` says the same of everyone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.evaluation.sequence_baselines.holdout import with_validation
from domainformer.evaluation.sequence_baselines.values import Mask, ValueEvents
from domainformer.evaluation.sequence_counts import CountSettings, SequenceCounts, tune_counts
from domainformer.evaluation.tasks import EXAMPLE, Task

Floats = npt.NDArray[np.float64]
_BATCH = 20_000
_LEAST_BET = 0.5  # less, and a popular value could outdo the last one


@dataclass(frozen=True)
class Popular:
    """The share of each class among training and validation examples, or their mean.

    For a next_item task the shares are scores, so the ranking is that of popularity.
    """

    learns_from_validation: ClassVar[bool] = True

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedPopular:
        """Count."""
        del seed  # nothing is drawn
        labels = task.labels(_together(examples_train, examples_valid))
        if task.kind == "regression":
            return FittedPopular(np.array([labels.mean()]))
        return FittedPopular(_shares(labels, task.n_classes))


@dataclass(frozen=True, eq=False)
class FittedPopular:
    """Shares of the classes, ``[classes]``; the mean of a regression, ``[1]``."""

    shares: Floats

    def predict(self, task: Task, examples: pl.DataFrame) -> Floats:
        """The same for every example."""
        if task.kind in ("binary", "regression"):
            return np.full(examples.height, self.shares[-1])
        return np.tile(self.shares, (examples.height, 1))


@dataclass(frozen=True)
class RepeatLast:
    """The entity's last value, with the share of repeats in training as its probability.

    The rest goes to all values by popularity, and all of it where there is no last value.
    """

    learns_from_validation: ClassVar[bool] = True

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedRepeat:
        """Count repeats.

        Raises:
            DataError: The task is no multiclass next-value task.
        """
        del seed
        events = ValueEvents.of(task)
        examples = _together(examples_train, examples_valid)
        places = events.places(task, examples)
        last, labels = events.before(events.values)[places], task.labels(examples)
        some = last >= 0
        bet = float((last[some] == labels[some]).mean()) if some.any() else _LEAST_BET
        return FittedRepeat(max(bet, _LEAST_BET), _shares(labels, task.n_classes))


@dataclass(frozen=True, eq=False)
class FittedRepeat:
    """How often a value is repeated, and how popular each is.

    Args:
        bet: Probability of the last value.
        shares: Popularity, ``[classes]``.
    """

    bet: float
    shares: Floats

    def predict(self, task: Task, examples: pl.DataFrame) -> Floats:
        """``[n, classes]``."""
        events = ValueEvents.of(task)
        last = events.before(events.values)[events.places(task, examples)]
        out = np.tile(self.shares, (len(last), 1))
        known = np.flatnonzero(last >= 0)
        out[known] *= 1 - self.bet
        out[known, last[known].astype(np.int64)] += self.bet
        return out


@dataclass(frozen=True)
class Counts:
    """Markov chains of everyone and the entity's own habits, smoothed into each other.

    Args:
        settings: Smoothing; None: chosen on the validation examples by accuracy.
        rounds: Passes of that choice.
    """

    learns_from_validation: ClassVar[bool] = True

    settings: CountSettings | None = None
    rounds: int = 1

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedCounts:
        """Choose the smoothing, then count training and validation examples.

        Raises:
            DataError: The task is no multiclass next-value task.
        """
        events = ValueEvents.of(task)
        examples_train, examples_valid = with_validation(task, examples_train, examples_valid, seed)
        train, valid = (events.trained(task, rows) for rows in (examples_train, examples_valid))
        settings = self.settings
        if settings is None:
            sequences = events.sequences(train | valid)
            settings, _ = tune_counts(sequences, validation=valid, rounds=self.rounds)
        return FittedCounts(settings, train | valid)


@dataclass(frozen=True, eq=False)
class FittedCounts:
    """Smoothing, and the events that everyone's tables count."""

    settings: CountSettings
    shared: Mask

    def predict(self, task: Task, examples: pl.DataFrame) -> Floats:
        """``[n, classes]``."""
        events = ValueEvents.of(task)
        model = SequenceCounts(events.sequences(self.shared), self.settings)
        places = events.places(task, examples)
        parts = [
            model.probabilities(places[start : start + _BATCH]).astype(np.float64)
            for start in range(0, max(len(places), 1), _BATCH)
        ]
        found = np.concatenate(parts)
        return found / found.sum(axis=1, keepdims=True)


def _together(train: pl.DataFrame, valid: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([train, valid]).unique(EXAMPLE).sort(EXAMPLE)


def _shares(labels: npt.NDArray[np.int64], classes: int) -> Floats:
    counts = np.bincount(labels, minlength=classes).astype(np.float64)
    return counts / counts.sum()
