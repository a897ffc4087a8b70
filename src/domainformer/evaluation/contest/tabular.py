"""``tabular``: the tabular branch of the fusion model alone, on the aggregates of ``lightgbm``.

What joint fusion gains over it is what histories add; and it errs elsewhere than trees do, so that
a blend of both is better than either.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import ConfigError, DataError
from domainformer.evaluation.contest.boosting import find_plan
from domainformer.evaluation.contest.logits import average
from domainformer.evaluation.tabular_baseline import check_kind
from domainformer.evaluation.task_features import FeaturePlan, TaskFeatures
from domainformer.evaluation.tasks import EXAMPLE, LABEL, Task
from domainformer.inference.fusion import FusionPredictor
from domainformer.training.fusion import fit_fusion
from domainformer.training.fusion_config import FusionConfig

# A name that no column of a table has: features that are called "label" stay usable.
_TARGET = "label of the task"


@dataclass(frozen=True)
class TabularNetwork:
    """Aggregates into embeddings of numbers, DCNv2 and an MLP.

    Args:
        plan: Which aggregates, as for ``lightgbm``.
        finetuning: The training on labels; its ``model`` holds the settings of the network.
        ensemble: Networks with different seeds, whose logits are averaged.

    Raises:
        ConfigError: The ensemble has no network.
    """

    plan: FeaturePlan | str | None = None
    finetuning: FusionConfig = field(default_factory=FusionConfig)
    ensemble: int = 1

    def __post_init__(self) -> None:
        if self.ensemble < 1:
            raise ConfigError(f"ensemble is {self.ensemble} and must be at least 1")

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedTabularNetwork:
        """Learn from the training examples, stop by the validation examples.

        Raises:
            DataError: The task is of a kind that aggregates do not answer (next_item), or there
                are no validation examples.
        """
        check_kind(task)
        if not examples_valid.height:
            raise DataError("there are no validation examples to stop by", where=task.name)
        plan = find_plan(self.plan, task, examples_train)
        features = TaskFeatures.fit(task, examples_train, plan)
        train, valid = (
            features.transform(task, rows).with_columns(rows[LABEL].alias(_TARGET))
            for rows in (examples_train, examples_valid)
        )
        predictors = [
            fit_fusion(
                train,
                {_TARGET: task.kind},
                validation=valid,
                key=EXAMPLE,
                config=self.finetuning.model_copy(update={"seed": 1000 * seed + member}),
            )
            for member in range(self.ensemble)
        ]
        return FittedTabularNetwork(predictors, features)


@dataclass(frozen=True, eq=False)
class FittedTabularNetwork:
    """Trained networks, and the aggregates that they read.

    Args:
        predictors: The ensemble.
        features: The aggregates as they were learned.
    """

    predictors: list[FusionPredictor]
    features: TaskFeatures

    def predict(self, task: Task, examples: pl.DataFrame) -> npt.NDArray[np.float64]:
        """``[n]`` (chance of 1, or the number), or ``[n, classes]``, in the examples' order."""
        frame = self.features.transform(task, examples)
        return average([_said(one, frame, task) for one in self.predictors], task.kind)


def _said(predictor: FusionPredictor, frame: pl.DataFrame, task: Task) -> npt.NDArray[np.float64]:
    """Predictions with columns for all classes: one that training never showed has chance 0."""
    predicted = predictor.predict_array(frame)
    if task.kind != "multiclass":
        return predicted
    found = np.zeros((len(predicted), task.n_classes))
    found[:, [int(one) for one in predictor.targets[0].classes]] = predicted
    return found
