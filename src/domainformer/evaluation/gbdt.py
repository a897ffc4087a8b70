"""LightGBM as an expert would run it: a small fixed search inside the training part, then a bag.

::

    training part ─┬▶ inner folds (by group, stratified) ─▶ each setting, stopped early ─▶ score
                   │         all settings on fold 1, the best few on the others
                   └▶ best setting, mean best round, on everything, several seeds ─▶ mean
                      (or the best few settings, which take turns in the bag)

Nothing outside the training part is looked at, every draw comes from the seed, and LightGBM runs
deterministically: the same call gives the same model, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import ConfigError, DataError, MissingExtraError
from domainformer.evaluation import metrics
from domainformer.evaluation.gbdt_columns import Encoder
from domainformer.evaluation.gbdt_settings import settings_to_try

Kind = Literal["binary", "multiclass", "regression", "ranking"]
Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

_FIXED: Mapping[str, Any] = {
    "verbosity": -1,
    "deterministic": True,
    "force_col_wise": True,
    "bagging_freq": 1,
    "feature_pre_filter": False,
}
_OBJECTIVES = {
    "binary": ("binary", "binary_logloss"),
    "multiclass": ("multiclass", "multi_logloss"),
    "regression": ("regression", "l2"),
    "ranking": ("lambdarank", "ndcg"),
}
_WIDE, _WIDE_BINS = 300, 63


@dataclass(frozen=True)
class GradientBoosting:
    """What to fit, and how much to spend on it.

    Args:
        kind: Binary, multiclass, regression, or ranking (lambdarank; see ``queries``).
        budget: Settings tried; 1 takes the middle one as it is.
        inner_folds: Folds of the training part that settings are judged on.
        finalists: Settings that go beyond the first inner fold.
        bag: Models that are averaged, each with its own seed.
        mixed: The best so many finalists take turns in the bag. Where inner scores differ by less
            than their noise, the winner is a matter of luck, and the average of several is not.
        learning_rate: Of every model.
        rounds: Most trees of a model.
        patience: Rounds without an improvement before a model stops.
        threads: Of LightGBM; the result does not depend on it.

    Raises:
        ConfigError: A number is below 1, there is only one inner fold, or more settings are mixed
            than there are finalists or models in the bag.
    """

    kind: Kind = "binary"
    budget: int = 8
    inner_folds: int = 3
    finalists: int = 3
    bag: int = 5
    mixed: int = 1
    learning_rate: float = 0.04
    rounds: int = 1500
    patience: int = 40
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("budget", "finalists", "bag", "mixed", "rounds", "patience", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)} and must be at least 1")
        if self.inner_folds < 2:
            raise ConfigError("inner_folds must be at least 2")
        if self.mixed > min(self.budget, self.finalists, self.bag):
            raise ConfigError(
                f"{self.mixed} settings cannot be mixed",
                why=f"there are {min(self.budget, self.finalists)} finalists, "
                f"and {self.bag} models in the bag",
                next_step="raise budget, finalists and bag, or lower mixed",
            )

    def fit(
        self,
        features: pl.DataFrame,
        labels: Array,
        *,
        groups: Array | None = None,
        queries: Array | None = None,
        seed: int = 0,
    ) -> FittedBoosting:
        """Search, then fit the bag.

        Args:
            features: One row per case; numbers, booleans, String or Categorical columns.
            labels: ``[n]``: 0 and 1; class indices; numbers; relevance (ranking).
            groups: Cases of one group stay in one inner fold (an entity with several cuts).
            queries: Query of each case (ranking); cases of one query must be neighbours.
            seed: Of draws, inner folds and LightGBM.

        Raises:
            MissingExtraError: LightGBM is not installed.
            DataError: Sizes differ, a label is not finite, one class only, or no feature.
        """
        labels = _checked(self.kind, features, labels, queries)
        columns = Encoder.fit(features)
        matrix = columns.transform(features)
        groups = queries if self.kind == "ranking" else groups
        search = _Search(self, matrix, columns.categorical, labels, queries, seed)
        tried = search.best(groups)
        everything = np.arange(len(labels))
        models = []
        for member in range(1, self.bag + 1):
            one = tried[(member - 1) % self.mixed]
            models.append(
                search.train(
                    one["settings"], everything, None, search.length(one), seed + 1000 * member
                )[0]
            )
        chosen = tried[0]
        return FittedBoosting(
            self.kind, columns, models, chosen["settings"], search.length(chosen), tried
        )


@dataclass(frozen=True, eq=False)
class FittedBoosting:
    """A bag of boosters.

    Args:
        kind: As it was asked for.
        columns: How features become numbers.
        models: LightGBM boosters.
        settings: The best setting.
        rounds: Trees of its models.
        tried: Every setting with its inner scores, best first.
    """

    kind: Kind
    columns: Encoder
    models: list[Any]
    settings: dict[str, Any]
    rounds: int
    tried: list[dict[str, Any]] = field(default_factory=list)

    def predict(self, features: pl.DataFrame) -> Floats:
        """Mean of the bag: ``[n]``, or ``[n, classes]`` for several classes."""
        matrix = self.columns.transform(features)
        return np.mean([np.asarray(one.predict(matrix)) for one in self.models], axis=0)

    def importances(self) -> pl.DataFrame:
        """Columns ``feature`` and ``gain`` (share of the loss that its splits removed)."""
        gain = np.sum([one.feature_importance("gain") for one in self.models], axis=0)
        frame = pl.DataFrame(
            {"feature": self.columns.names, "gain": gain / max(float(gain.sum()), 1e-12)}
        )
        return frame.sort(["gain", "feature"], descending=[True, False])


@dataclass(eq=False)
class _Search:
    """Inner folds and single fits for one training part."""

    plan: GradientBoosting
    matrix: npt.NDArray[np.float32]
    categorical: list[int]
    labels: Array
    queries: Array | None
    seed: int

    def best(self, groups: Array | None) -> list[dict[str, Any]]:
        """Every setting with its inner scores and best rounds, by falling mean score."""
        plan = self.plan
        fold_of = inner_folds(self.labels, plan.inner_folds, groups, plan.kind, self.seed)
        candidates = settings_to_try(plan.budget, self.seed, columns=self.matrix.shape[1])
        trials: list[dict[str, Any]] = [{"settings": one} for one in candidates]
        for trial in trials:
            trial |= {"scores": [], "rounds": []}
            self._judge(trial, fold_of, 0)
        trials.sort(key=lambda one: -one["scores"][0])
        for trial in trials[: plan.finalists]:
            for fold in range(1, plan.inner_folds):
                self._judge(trial, fold_of, fold)
        finalists = trials[: plan.finalists]
        finalists.sort(key=lambda one: -float(np.mean(one["scores"])))
        trials[: plan.finalists] = finalists
        return trials

    def length(self, trial: Mapping[str, Any]) -> int:
        """Trees of a model on the whole part, which is larger than what rounds were counted on."""
        rounds = float(np.mean(trial["rounds"])) * (1 + 0.5 / self.plan.inner_folds)
        return max(round(rounds), 1)

    def _judge(self, trial: dict[str, Any], fold_of: Array, fold: int) -> None:
        inside, outside = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        model, rounds = self.train(
            trial["settings"], inside, outside, self.plan.rounds, self.seed + fold
        )
        predicted = np.asarray(model.predict(self.matrix[outside], num_iteration=rounds))
        score = self._score(outside, predicted, model)
        trial["scores"].append(score)
        trial["rounds"].append(rounds)

    def _score(self, rows: Array, predicted: Array, model: Any) -> float:
        labels = self.labels[rows]
        if self.plan.kind == "binary" and 0 < labels.sum() < len(labels):
            return metrics.auroc(labels, predicted)
        if self.plan.kind == "ranking":
            return float(next(iter(model.best_score["inner"].values())))
        if self.plan.kind == "regression":
            return -metrics.rmse(labels, predicted)
        return -metrics.log_loss(labels.astype(np.int64), predicted)

    def train(
        self, settings: Mapping[str, Any], rows: Array, valid: Array | None, rounds: int, seed: int
    ) -> tuple[Any, int]:
        """One booster, stopped early where ``valid`` rows are given, and its number of rounds."""
        lightgbm = lightgbm_module()
        plan = self.plan
        objective, metric = _OBJECTIVES[plan.kind]
        parameters = {
            **_FIXED,
            **settings,
            "objective": objective,
            "metric": metric,
            "learning_rate": plan.learning_rate,
            "num_threads": plan.threads,
            "seed": seed,
            "max_bin": _WIDE_BINS if self.matrix.shape[1] > _WIDE else 255,
        }
        if plan.kind == "multiclass":
            parameters["num_class"] = int(self.labels.max()) + 1
        if plan.kind == "ranking":
            parameters["eval_at"] = [10]
        data = self._dataset(lightgbm, rows)
        if valid is None:
            return lightgbm.train(parameters, data, num_boost_round=rounds), rounds
        model = lightgbm.train(
            parameters,
            data,
            num_boost_round=rounds,
            valid_sets=[self._dataset(lightgbm, valid, data)],
            valid_names=["inner"],
            callbacks=[lightgbm.early_stopping(plan.patience, verbose=False)],
        )
        return model, int(model.best_iteration or rounds)

    def _dataset(self, lightgbm: Any, rows: Array, reference: Any = None) -> Any:
        sizes = None
        if self.queries is not None and self.plan.kind == "ranking":
            own = self.queries[rows]
            starts = np.flatnonzero(np.concatenate([[True], own[1:] != own[:-1]]))
            sizes = np.diff(np.append(starts, len(own)))
        return lightgbm.Dataset(
            self.matrix[rows],
            self.labels[rows],
            group=sizes,
            reference=reference,
            categorical_feature=self.categorical or "auto",
            free_raw_data=False,
        )


def inner_folds(labels: Array, folds: int, groups: Array | None, kind: Kind, seed: int) -> Array:
    """Fold of each case: whole groups, dealt out in order of their mean label (so stratified).

    Example:
        >>> fold_of = inner_folds(np.array([0, 0, 1, 1]), 2, np.array([7, 8, 7, 9]), "binary", 0)
        >>> bool(fold_of[0] == fold_of[2])
        True
    """
    n = len(labels)
    owner = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    sizes = np.bincount(owner)
    means = np.bincount(owner, weights=labels.astype(np.float64)) / sizes
    if kind == "ranking":
        means = np.zeros(len(sizes))
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    order = shuffled[np.argsort(means[shuffled], kind="stable")]
    fold_of = np.empty(len(sizes), np.int64)
    fold_of[order] = np.arange(len(sizes)) % folds
    return fold_of[owner]


def _checked(kind: Kind, features: pl.DataFrame, labels: Array, queries: Array | None) -> Array:
    if kind not in _OBJECTIVES:
        raise ConfigError(f"there is no kind {kind!r}", next_step=", ".join(_OBJECTIVES))
    if len(labels) != features.height:
        raise DataError(f"there are {features.height} cases and {len(labels)} labels")
    if not np.isfinite(np.asarray(labels, np.float64)).all():
        raise DataError("a label is NaN or infinite", next_step="leave such cases out")
    if kind in ("binary", "multiclass") and len(np.unique(labels)) < 2:
        raise DataError(
            "all labels are the same",
            why="a classifier has nothing to tell apart",
            next_step="check the label and the cut",
        )
    if kind == "binary" and not np.isin(labels, (0, 1)).all():
        raise DataError("labels of a binary task must be 0 and 1")
    if kind == "ranking" and (queries is None or len(queries) != len(labels)):
        raise DataError("ranking needs the query of each case", next_step="pass queries=…")
    return np.asarray(labels)


def lightgbm_module() -> Any:
    """LightGBM, imported when it is asked for.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise MissingExtraError("lightgbm", extra="gbdt", purpose="a boosted baseline") from error
    return lightgbm
