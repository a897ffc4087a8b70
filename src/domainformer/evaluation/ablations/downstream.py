"""What a variant's embeddings are worth: for a label per entity, or for a task with cuts.

One figure per run, in the measure that such a task is compared by: AUROC for two classes, accuracy
for several, R² (labels) or RMSE (tasks) for a number. The model behind the embeddings is the same
LightGBM with fixed settings for all variants: one that is tuned per variant measures the tuning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from domainformer.artifacts import fingerprint
from domainformer.data import EventTable
from domainformer.errors import ConfigError
from domainformer.evaluation.gbdt import GradientBoosting
from domainformer.evaluation.measures import MEASURES
from domainformer.evaluation.probe import probe
from domainformer.evaluation.tabular_baseline import fit_boosting
from domainformer.evaluation.tasks import EXAMPLE, Task
from domainformer.inference import Bundle, embed, late_fusion_frame

Show = Callable[[EventTable], EventTable]


@dataclass(frozen=True)
class Score:
    """A downstream figure.

    Args:
        measure: Its name, such as ``auroc``.
        value: The figure.
        higher_is_better: Its direction.
    """

    measure: str
    value: float
    higher_is_better: bool


@dataclass(frozen=True)
class Downstream:
    """How embeddings are judged.

    Args:
        name: What is predicted.
        identity: What decides the figures, as plain data.
        score: From a bundle, what hides the events that a variant does not show, and a seed.
    """

    name: str
    identity: dict[str, Any]
    score: Callable[[Bundle, Show, int], Score]


def from_labels(table: EventTable, labels: pl.DataFrame, *, folds: int) -> Downstream:
    """Judge by a label per entity: LightGBM on embeddings of whole histories, out of fold.

    An entity of which a variant shows no event is judged, too, by an embedding of zeros: all
    variants answer the same questions.

    Args:
        table: The events, all of them.
        labels: Entity column and label column, as
            :func:`~domainformer.evaluation.labels.read_labels` gives them.
        folds: Folds of the probe.
    """
    entity, label = labels.columns[:2]
    known = labels.drop_nulls(label).filter(pl.col(entity).is_in(table.entity_ids.implode()))
    known = known.sort(entity)

    def score(bundle: Bundle, show: Show, seed: int) -> Score:
        vectors = _of_all(embed(bundle, show(table)), known[entity])
        found = probe(vectors, None, known, folds=folds, seed=seed, resamples=2)
        measure, interval = next(iter(found.figures["embeddings"].items()))
        return Score(measure, interval.value, higher_is_better=True)

    return Downstream(label, {"label": label, "labels": fingerprint(known.rows())}, score)


def _of_all(vectors: pl.DataFrame, entities: pl.Series) -> pl.DataFrame:
    """Embeddings of some entities in their order, zeros where there is none."""
    name = vectors.columns[0]
    rows = entities.alias(name).to_frame().join(vectors, on=name, how="left", maintain_order="left")
    width = vectors["embedding"].dtype.shape[0]  # type: ignore[attr-defined]
    zeros = pl.lit(pl.Series([np.zeros(width, np.float32)], dtype=pl.Array(pl.Float32, width)))
    return rows.select(name, pl.col("embedding").fill_null(zeros))


def from_task(task: Task) -> Downstream:
    """Judge by a task: LightGBM on embeddings of each example's history before its cut.

    The figure is the mean over the task's folds. The *pretraining* sees what the split of the run
    gives it: for a figure that stands beside those of contestants, its cuts must not be later than
    the task's.

    Args:
        task: Binary, multiclass or regression.

    Raises:
        ConfigError: The task ranks items, which embeddings into LightGBM do not.
    """
    if task.kind == "next_item":
        raise ConfigError(
            f"the task {task.name!r} ranks items",
            why="the downstream score of an ablation is LightGBM on embeddings",
            next_step="give a binary, multiclass or regression task",
        )
    kind = task.kind
    measure, measured = next(iter(MEASURES[kind].items()))

    def features(bundle: Bundle, show: Show, examples: pl.DataFrame) -> pl.DataFrame:
        vectors = embed(bundle, show(task.history(examples)))
        return late_fusion_frame(examples.select(EXAMPLE), vectors, EXAMPLE).drop(EXAMPLE)

    def score(bundle: Bundle, show: Show, seed: int) -> Score:
        figures = []
        for split in task.splits():
            train = split.train if split.valid is None else pl.concat([split.train, split.valid])
            train = train.sort(EXAMPLE)
            frame = features(bundle, show, train)
            fitted = fit_boosting(GradientBoosting(kind, budget=1), task, train, frame, seed)
            test = split.test.sort(EXAMPLE)
            predicted = fitted.predict(features(bundle, show, test))
            figures.append(measured.metric(task.labels(test), predicted))
        return Score(measure, float(np.mean(figures)), measured.higher_is_better)

    examples = fingerprint(task.examples.rows())
    return Downstream(task.name, {"task": task.name, "examples": examples}, score)
