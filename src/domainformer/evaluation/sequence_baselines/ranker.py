"""``ranker``: LightGBM chooses among the values that a count model thinks possible.

::

    training events by time   ├────────── counted ──────────┼── ranked ──┤  validation
                               tables of everyone             trees learn   trees stop
    for prediction            ├────────────────── counted ───────────────────────────┤  test

The trees learn on the newest share of the training events, with tables counted on what lies before
it, because they will be used on events that come after the tables: had they seen events inside of
their own tables, they would trust these too much. The loss is the softmax over the candidates of an
event (a conditional logit), beginning at the count model's log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import ConfigError, DataError
from domainformer.evaluation.gbdt import lightgbm_module
from domainformer.evaluation.sequence_baselines.candidates import CandidateFeatures, Candidates
from domainformer.evaluation.sequence_baselines.holdout import with_validation
from domainformer.evaluation.sequence_baselines.values import Mask, ValueEvents
from domainformer.evaluation.sequence_counts import CountSettings, tune_counts
from domainformer.evaluation.tasks import Task

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_FIXED = {"verbosity": -1, "deterministic": True, "force_col_wise": True, "bagging_freq": 1}
_SMALLEST = 1e-5


@dataclass(frozen=True)
class Ranker:
    """A ranker of candidates for the next value of a category.

    Args:
        contexts: Columns whose last value tells something; None: all columns of names that are
            neither the label in other words nor each other.
        candidates: Values per event, by the count model.
        share: Share of the training events, the newest, that the trees learn on.
        most_events: Most of them; beyond, a draw.
        tune: Choose the count model's settings on the validation events.
        learning_rate: Of the trees.
        leaves: Of a tree.
        leaf_rows: Fewest (event, candidate) pairs of a leaf.
        columns: Share of the features that each tree sees.
        rounds: Most trees.
        patience: Trees without a better validation loss before it stops.
        bag: Models of the final fit that are averaged, each with its own seed.
        threads: Of LightGBM; the result does not depend on it.

    Raises:
        ConfigError: A number is out of range.
    """

    learns_from_validation: ClassVar[bool] = True

    contexts: Sequence[str] | None = None
    candidates: int = 16
    share: float = 0.5
    most_events: int = 60_000
    tune: bool = True
    learning_rate: float = 0.05
    leaves: int = 31
    leaf_rows: int = 400
    columns: float = 0.3
    rounds: int = 400
    patience: int = 40
    bag: int = 2
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("most_events", "leaf_rows", "rounds", "patience", "bag", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)} and must be at least 1")
        if self.candidates < 2 or self.leaves < 2:
            raise ConfigError("a ranker needs two candidates and two leaves, or more")
        if not 0 < self.share < 1:
            raise ConfigError(f"share is {self.share} and must lie between 0 and 1")

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedRanker:
        """Choose counts and number of trees by the validation events, then learn from all.

        Raises:
            DataError: The task is no multiclass next-value task, or there are too few examples.
        """
        events = ValueEvents.of(task)
        examples_train, examples_valid = with_validation(task, examples_train, examples_valid, seed)
        train, valid = (events.trained(task, rows) for rows in (examples_train, examples_valid))
        counts = CountSettings()
        if self.tune:
            counts, _ = tune_counts(events.sequences(train | valid), validation=valid)
        contexts = tuple(self.contexts or find_contexts(task, events, train))
        features = _Maker(events, counts, contexts, self.candidates)
        learned = self._learning(features, train, seed)
        judged = features(train).of(np.flatnonzero(valid))
        booster = _boost(self, learned, events.values, seed, judged)
        rounds = max(int(booster.best_iteration or self.rounds), 1)
        learned = self._learning(features, train | valid, seed)
        boosters = [
            _boost(self, learned, events.values, seed + 1000 * member, None, rounds)
            for member in range(1, self.bag + 1)
        ]
        return FittedRanker(
            counts, contexts, self.candidates, train | valid, boosters, learned.names
        )

    def _learning(self, features: _Maker, known: Mask, seed: int) -> Candidates:
        """What the trees learn on: the newest known events, with tables of the others."""
        events = np.flatnonzero(known)
        by_time = events[np.argsort(features.events.days[events], kind="stable")]
        counted = max(1, round(len(events) * (1 - self.share)))
        table = np.zeros_like(known)
        table[by_time[:counted]] = True
        ranked = by_time[counted:]
        if len(ranked) > self.most_events:
            ranked = np.random.default_rng(seed).choice(ranked, self.most_events, replace=False)
        if not len(ranked):
            raise DataError("there are too few training events to rank", next_step="raise share")
        return features(table).of(np.sort(ranked))


@dataclass(frozen=True, eq=False)
class FittedRanker:
    """Trees over candidates.

    Args:
        counts: Settings of the count model.
        contexts: Columns whose last value is read.
        candidates: Values per event.
        shared: Events that the tables count.
        boosters: LightGBM models.
        names: Of the features.
    """

    counts: CountSettings
    contexts: tuple[str, ...]
    candidates: int
    shared: Mask
    boosters: list[Any]
    names: list[str]

    def predict(self, task: Task, examples: pl.DataFrame) -> Floats:
        """``[n, classes]``; a value that is no candidate keeps the count model's probability."""
        events = ValueEvents.of(task)
        places = events.places(task, examples)
        maker = CandidateFeatures(events, self.shared, self.counts, self.contexts, self.candidates)
        out = maker.probabilities(places).astype(np.float64)
        found = maker.of(places)
        scores = np.mean([_raw(one, found) for one in self.boosters], axis=0)
        weights = softmax(scores + _prior(found))
        weights *= found.base.sum(axis=1, keepdims=True)
        np.put_along_axis(out, found.values, weights, axis=1)
        return out / out.sum(axis=1, keepdims=True)

    def importances(self) -> pl.DataFrame:
        """Columns ``feature`` and ``gain`` (share of the loss that its splits removed)."""
        gain = np.sum([one.feature_importance("gain") for one in self.boosters], axis=0)
        frame = pl.DataFrame({"feature": self.names, "gain": gain / max(gain.sum(), 1e-12)})
        return frame.sort(["gain", "feature"], descending=[True, False])


@dataclass(frozen=True, eq=False)
class _Maker:
    """Candidate features of one task, for any choice of the events that tables count."""

    events: ValueEvents
    counts: CountSettings
    contexts: tuple[str, ...]
    candidates: int

    def __call__(self, shared: Mask) -> CandidateFeatures:
        return CandidateFeatures(self.events, shared, self.counts, self.contexts, self.candidates)


def find_contexts(task: Task, events: ValueEvents, train: Mask) -> list[str]:
    """Columns of names or whole numbers, without the value itself and without duplicates.

    Args:
        task: The task.
        events: Its events.
        train: Those that may be looked at.
    """
    frame = events.table.frame.filter(pl.Series(train))
    value = frame[task.record["column"]]
    skipped = {task.record["column"], events.table.entity, events.table.time}
    found: list[str] = []
    for name, dtype in frame.schema.items():
        named = dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean) or dtype.is_integer()
        if name in skipped or not named or frame[name].n_unique() < 2:
            continue
        others = [value, *(frame[other] for other in found)]
        if not any(_same(frame[name], other) for other in others):
            found.append(name)
    return found


def _same(one: pl.Series, other: pl.Series) -> bool:
    """Whether two columns say the same in other words."""
    pairs = pl.DataFrame([one.alias("a"), other.alias("b")]).drop_nulls()
    distinct = pairs.n_unique()
    return distinct <= 1.02 * min(pairs["a"].n_unique(), pairs["b"].n_unique())


def softmax(scores: Floats) -> Floats:
    """Along the last axis."""
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def _prior(candidates: Candidates) -> Floats:
    return np.log(candidates.base.astype(np.float64) + _SMALLEST)


def _raw(booster: Any, candidates: Candidates) -> Floats:
    n, k, width = candidates.features.shape
    return np.asarray(booster.predict(candidates.features.reshape(n * k, width))).reshape(n, k)


def _boost(
    plan: Ranker,
    learned: Candidates,
    values: Ints,
    seed: int,
    judged: Candidates | None,
    rounds: int | None = None,
) -> Any:
    """Trees on the softmax loss; stopped by ``judged``, or after ``rounds``."""
    lightgbm = lightgbm_module()
    k = learned.values.shape[1]

    def gradient(scores: Floats, data: Any) -> tuple[Floats, Floats]:
        p = softmax(scores.reshape(-1, k))
        hit = data.get_label().reshape(-1, k)
        return (p - hit).ravel(), np.maximum(p * (1 - p), 1e-6).ravel()

    def loss(scores: Floats, data: Any) -> tuple[str, float, bool]:
        p = softmax(scores.reshape(-1, k))
        chance = (p * data.get_label().reshape(-1, k)).sum(axis=1)
        return "loss", float(-np.log(np.maximum(chance, 1e-12)).mean()), False

    data = _dataset(lightgbm, learned, values, None)
    settings = {
        **_FIXED,
        "objective": gradient,
        "learning_rate": plan.learning_rate,
        "num_leaves": plan.leaves,
        "min_data_in_leaf": plan.leaf_rows,
        "feature_fraction": plan.columns,
        "bagging_fraction": 0.7,
        "lambda_l2": 5.0,
        "num_threads": plan.threads,
        "seed": seed,
    }
    if judged is None:
        return lightgbm.train(settings, data, num_boost_round=rounds or plan.rounds)
    return lightgbm.train(
        settings,
        data,
        num_boost_round=plan.rounds,
        valid_sets=[_dataset(lightgbm, judged, values, data)],
        feval=loss,
        callbacks=[lightgbm.early_stopping(plan.patience, verbose=False)],
    )


def _dataset(lightgbm: Any, candidates: Candidates, values: Ints, reference: Any) -> Any:
    """Pairs of an event and a candidate; events whose value is no candidate teach nothing."""
    hit = candidates.values == values[candidates.events][:, None]
    some = hit.any(axis=1)
    if not some.any():
        raise DataError("no event has its value among the candidates", next_step="raise candidates")
    features = candidates.features[some]
    return lightgbm.Dataset(
        features.reshape(-1, features.shape[2]),
        hit[some].ravel().astype(np.float64),
        init_score=_prior(candidates)[some].ravel(),
        reference=reference,
        free_raw_data=False,
    )
