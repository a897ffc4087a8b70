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
from domainformer.evaluation.contest.logits import TARGET, average, in_all_classes
from domainformer.evaluation.tabular_baseline import check_kind
from domainformer.evaluation.task_features import FeaturePlan, TaskFeatures
from domainformer.evaluation.tasks import EXAMPLE, LABEL, Task
from domainformer.inference.fusion import FusionPredictor
from domainformer.training.fusion import fit_fusion
from domainformer.training.fusion_config import FusionConfig


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
            features.transform(task, rows).with_columns(rows[LABEL].alias(TARGET))
            for rows in (examples_train, examples_valid)
        )
        predictors = [
            fit_fusion(
                train,
                {TARGET: task.kind},
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
        each = [in_all_classes(one.predict_array(frame), one, task) for one in self.predictors]
        return average(each, task.kind)
