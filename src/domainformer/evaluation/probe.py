"""The downstream probe: are the embeddings worth more than an analyst's aggregates?

The same LightGBM with the same fixed settings learns the label from three sets of features, on the
same folds, and is judged on out-of-fold predictions only::

    embeddings ─┐                          AUROC, AUPRC, log-loss      (two classes)
    aggregates ─┼─▶ LightGBM, k folds ─▶   accuracy, log-loss          (several classes)
    both       ─┘                          R², RMSE                    (a number)

Each figure carries a bootstrap 95 % interval, each comparison a paired one. Settings are modest and
not tuned: a probe that is searched per feature set measures the search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import DataError, MissingExtraError
from domainformer.evaluation import metrics
from domainformer.evaluation.intervals import Interval, Metric, compare

Task = Literal["binary", "multiclass", "regression"]
FeatureSet = Literal["embeddings", "aggregates", "both"]

SETTINGS: Mapping[str, Any] = {
    "learning_rate": 0.03,
    "num_leaves": 15,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
ROUNDS = 200
LEAF_SHARE, SMALLEST_LEAF, LARGEST_LEAF = 50, 5, 20
MOST_CLASSES = 100
_METRICS: Mapping[Task, Mapping[str, Metric]] = {
    "binary": {"auroc": metrics.auroc, "auprc": metrics.auprc, "log_loss": metrics.log_loss},
    "multiclass": {
        "accuracy": metrics.top_accuracy,
        "log_loss": metrics.log_loss,
    },
    "regression": {"r_squared": metrics.r_squared, "rmse": metrics.rmse},
}
_PAIRS = (("embeddings", "aggregates"), ("both", "aggregates"), ("both", "embeddings"))


@dataclass(frozen=True)
class ProbeResult:
    """What the probe found.

    Args:
        task: Binary, multiclass or regression.
        label: Name of the label column.
        entities: Entities that were judged.
        classes: The label's values in the order of class indices (empty for regression).
        class_counts: Entities per class.
        features: Number of columns of each feature set.
        figures: ``{feature set: {metric: Interval}}`` on out-of-fold predictions.
        differences: ``{"both - aggregates": {metric: Interval}}``, paired.
        predictions: Entity, label and out-of-fold predictions.
        settings: Folds, seed and LightGBM's settings.
        notes: What was left out, in words.
    """

    task: Task
    label: str
    entities: int
    classes: list[Any]
    class_counts: list[int]
    features: dict[str, int]
    figures: dict[str, dict[str, Interval]]
    differences: dict[str, dict[str, Interval]]
    predictions: pl.DataFrame
    settings: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the predictions."""
        plain = {k: v for k, v in vars(self).items() if k != "predictions"}
        for key in ("figures", "differences"):
            plain[key] = {
                row: {metric: vars(interval) for metric, interval in cells.items()}
                for row, cells in plain[key].items()
            }
        return plain


def probe(
    embeddings: pl.DataFrame,
    aggregates: pl.DataFrame | None,
    labels: pl.DataFrame,
    *,
    folds: int = 5,
    seed: int = 0,
    task: Task | None = None,
    threads: int = 1,
    resamples: int = 500,
) -> ProbeResult:
    """Learn a label from embeddings, from aggregates and from both, on the same folds.

    Args:
        embeddings: Entity column first, then a list or array column (numbers beside it do not
            count), or plain numbers.
        aggregates: Entity column first, then numbers; None leaves the comparison out.
        labels: Entity column and label column, as :func:`read_labels` gives them.
        folds: Number of folds, stratified by label.
        seed: Folds, LightGBM and bootstrap depend on it.
        task: Guessed from the label where it is not given.
        threads: Threads for LightGBM; the result does not depend on it.
        resamples: Bootstrap resamples.

    Raises:
        MissingExtraError: LightGBM is not installed.
        DataError: Entities do not meet, a single class, fewer cases of a class than folds.
    """
    tables = {"embeddings": embeddings} | ({} if aggregates is None else {"aggregates": aggregates})
    ids, raw, matrices, notes = _align(tables, labels)
    if len(matrices) == 2:
        matrices["both"] = np.hstack([matrices["embeddings"], matrices["aggregates"]])
    task = task or _guess_task(raw)
    classes, y = _encode(raw, task, folds)
    fold_of = stratified_folds(y, folds, seed=seed, continuous=task == "regression")
    predicted = {
        name: _out_of_fold(matrix, y, fold_of, task, len(classes), seed, threads)
        for name, matrix in matrices.items()
    }
    pairs = [pair for pair in _PAIRS if set(pair) <= set(predicted)]
    found = compare(y, predicted, _METRICS[task], pairs, samples=resamples, seed=seed)
    counts = np.bincount(y.astype(np.int64), minlength=len(classes)).tolist() if classes else []
    return ProbeResult(
        task=task,
        label=labels.columns[1],
        entities=len(y),
        classes=classes,
        class_counts=counts,
        features={name: matrix.shape[1] for name, matrix in matrices.items()},
        figures=found.figures,
        differences=found.differences,
        predictions=_prediction_table(ids, raw, fold_of, predicted),
        settings={"folds": folds, "seed": seed, "rounds": ROUNDS, **SETTINGS},
        notes=notes,
    )


def stratified_folds(
    y: npt.NDArray[Any], folds: int, *, seed: int = 0, continuous: bool = False
) -> npt.NDArray[np.int64]:
    """A fold number per row, each class (or each tenth of a number) spread evenly.

    Args:
        y: Class indices or numbers, ``[n]``.
        folds: Number of folds.
        seed: Seed of the shuffle inside each class.
        continuous: Stratify a number by its ranks.

    Example:
        >>> fold = stratified_folds(np.array([0] * 6 + [1] * 4), 2)
        >>> [int(fold[:6].sum()), int(fold[6:].sum())]
        [3, 2]
    """
    rng = np.random.default_rng(seed)
    strata = y
    if continuous:
        ranks = np.argsort(np.argsort(y, kind="stable"), kind="stable")
        strata = ranks * 10 // max(1, len(y))
    fold_of = np.empty(len(y), np.int64)
    taken = 0
    for stratum in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == stratum))
        # Going on where the last class ended keeps the folds equal in size.
        fold_of[rows] = (np.arange(len(rows)) + taken) % folds
        taken += len(rows)
    return fold_of


def _align(
    tables: dict[str, pl.DataFrame], labels: pl.DataFrame
) -> tuple[pl.Series, pl.Series, dict[str, npt.NDArray[np.float32]], list[str]]:
    """Bring features and labels into one order; tell what had to be left out."""
    entity, label = labels.columns[:2]
    known = labels.select(pl.col(entity).alias("entity"), pl.col(label).alias("label"))
    notes = []
    if unlabelled := known["label"].null_count():
        notes.append(f"{unlabelled} entities without a label were left out")
    # In the order of the ids, so that no result depends on how a table happened to be sorted.
    rows = known.drop_nulls("label").sort("entity")
    labelled = rows.height
    for name, table in tables.items():
        own = table.select(pl.col(table.columns[0]).alias("entity")).with_row_index(name)
        if own["entity"].dtype != rows["entity"].dtype:
            raise DataError(
                f"the entities of the labels and of the {name} have different types",
                why=f"{rows['entity'].dtype} against {own['entity'].dtype}",
                next_step="cast one of the columns",
            )
        rows = rows.join(own, on="entity", how="inner", maintain_order="left")
    if not rows.height:
        raise DataError(
            "no entity has both a label and features",
            why=f"labels know {_some(known['entity'])}, the features "
            f"{_some(next(iter(tables.values())).to_series(0))}",
            next_step="check that both name entities in the same way",
        )
    if rows.height < labelled:
        notes.append(f"{labelled - rows.height} labelled entities without events were left out")
    matrices = {name: _matrix(table)[rows[name].to_numpy()] for name, table in tables.items()}
    return rows["entity"], rows["label"], matrices, notes


def _some(values: pl.Series) -> str:
    return ", ".join(repr(value) for value in values.head(3).to_list()) + ", …"


def _matrix(table: pl.DataFrame) -> npt.NDArray[np.float32]:
    """Features as float32 ``[n, features]``: the vectors if there are any, all numbers otherwise.

    What stands beside a vector (how many events it was made of) is not the embedding.
    """
    blocks = []
    vectors = [name for name in table.columns[1:] if table[name].dtype in (pl.List, pl.Array)]
    for column in vectors or table.columns[1:]:
        values = table[column]
        if values.dtype == pl.List:
            values = values.list.to_array(len(values[0]))
        block = values.cast(pl.Float32) if values.dtype.is_numeric() else values
        blocks.append(block.to_numpy().astype(np.float32).reshape(table.height, -1))
    return np.hstack(blocks)


def _guess_task(raw: pl.Series) -> Task:
    distinct = raw.n_unique()
    if distinct == 2:
        return "binary"
    whole = not raw.dtype.is_float() or bool((raw == raw.round()).all())
    if raw.dtype.is_numeric() and not (whole and distinct <= 20):
        return "regression"
    return "multiclass"


def _encode(raw: pl.Series, task: Task, folds: int) -> tuple[list[Any], npt.NDArray[Any]]:
    distinct = raw.unique().sort().to_list()
    if len(distinct) < 2:
        raise DataError(
            "the label has a single class",
            where=f"column {raw.name!r}",
            why=f"all {len(raw)} entities have {distinct[0]!r}",
            next_step="choose a label that varies, or more entities",
        )
    if task == "regression":
        return [], raw.cast(pl.Float64).to_numpy()
    if (task == "binary" and len(distinct) != 2) or len(distinct) > MOST_CLASSES:
        raise DataError(
            f"the label has {len(distinct)} classes",
            why=f"a {task} probe takes {'2' if task == 'binary' else f'2 to {MOST_CLASSES}'}",
            next_step="group its values, or pass task='regression' for a number",
        )
    index = {value: position for position, value in enumerate(distinct)}
    y = np.array([index[value] for value in raw.to_list()], dtype=np.int64)
    rarest = int(np.bincount(y).min())
    if rarest < folds:
        raise DataError(
            f"a class has {rarest} entities, fewer than the {folds} folds",
            where=f"class {distinct[int(np.bincount(y).argmin())]!r}",
            next_step="use fewer folds, more entities, or group rare classes",
        )
    return distinct, y


def _out_of_fold(
    matrix: npt.NDArray[np.float32],
    y: npt.NDArray[Any],
    fold_of: npt.NDArray[np.int64],
    task: Task,
    n_classes: int,
    seed: int,
    threads: int,
) -> npt.NDArray[np.float64]:
    lightgbm = _lightgbm()
    goal = {
        "objective": task,
        "seed": seed,
        "num_threads": threads,
        # A fiftieth of the rows: with the usual twenty, a hundred entities could not be divided.
        "min_data_in_leaf": min(max(len(y) // LEAF_SHARE, SMALLEST_LEAF), LARGEST_LEAF),
        **SETTINGS,
    }
    if task == "multiclass":
        goal["num_class"] = n_classes
    shape = (len(y), n_classes) if task == "multiclass" else (len(y),)
    predicted = np.empty(shape)
    for fold in np.unique(fold_of):
        held_out = fold_of == fold
        train = lightgbm.Dataset(matrix[~held_out], label=y[~held_out], params={"verbosity": -1})
        booster = lightgbm.train(goal, train, num_boost_round=ROUNDS)
        predicted[held_out] = booster.predict(matrix[held_out], num_threads=threads)
    return predicted


def _prediction_table(
    ids: pl.Series,
    raw: pl.Series,
    fold_of: npt.NDArray[np.int64],
    predicted: dict[str, npt.NDArray[np.float64]],
) -> pl.DataFrame:
    columns = {"entity": ids, "label": raw, "fold": pl.Series(fold_of)}
    for name, scores in predicted.items():
        if scores.ndim == 2:
            columns[name] = pl.Series(scores, dtype=pl.Array(pl.Float64, scores.shape[1]))
        else:
            columns[name] = pl.Series(scores)
    return pl.DataFrame(columns)


def _lightgbm() -> Any:
    try:
        import lightgbm
    except ImportError:
        raise MissingExtraError("lightgbm", extra="gbdt", purpose="the probe") from None
    return lightgbm
