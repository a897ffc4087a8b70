"""``late``: embeddings of a backbone that never saw a label, beside the aggregates, into LightGBM.

An embedding that was trained on the very labels of the rows that LightGBM learns from knows them
by heart, and LightGBM would trust it far too much. So the backbone here is pretrained alone: on
the histories of the training examples, without labels. The same vectors are then as honest on
training rows as on test rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import DataError
from domainformer.evaluation.contest.boosting import find_plan
from domainformer.evaluation.contest.pretraining import Pretraining, pretrained
from domainformer.evaluation.contest.schemas import GivenSchema
from domainformer.evaluation.gbdt import FittedBoosting, GradientBoosting
from domainformer.evaluation.tabular_baseline import all_classes, check_kind, fit_boosting
from domainformer.evaluation.task_features import FeaturePlan, TaskFeatures
from domainformer.evaluation.tasks import EXAMPLE, Task
from domainformer.inference import Bundle, embed
from domainformer.inference.late_fusion import late_fusion_frame
from domainformer.models import Pooling


@dataclass(frozen=True)
class LateFusion:
    """Self-supervised embeddings and aggregates into tuned LightGBM.

    Args:
        schema: As for :class:`~domainformer.evaluation.contest.neural.SequenceModel`.
        pretraining: How the backbone is trained on histories.
        pooling: ``last`` or ``mean`` over the tokens of the newest window.
        plan: Which aggregates stand beside the embeddings, as for ``lightgbm``.
        boosting: How LightGBM is tuned.
    """

    learns_from_validation: ClassVar[bool] = True

    schema: GivenSchema = None
    pretraining: Pretraining = field(default_factory=Pretraining)
    pooling: Pooling = "mean"
    plan: FeaturePlan | str | None = None
    boosting: GradientBoosting = field(default_factory=GradientBoosting)

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedLate:
        """Pretrain on training histories; LightGBM learns from training and validation examples.

        Raises:
            DataError: The task is of a kind that aggregates do not answer (next_item).
        """
        check_kind(task)
        bundle = pretrained(task, examples_train, self.schema, self.pretraining, seed)
        examples = pl.concat([examples_train, examples_valid]).unique(EXAMPLE).sort(EXAMPLE)
        plan = find_plan(self.plan, task, examples_train)
        features = TaskFeatures.fit(task, examples, plan)
        frame = _joined(task, examples, features, bundle, self.pooling)
        boosting = fit_boosting(self.boosting, task, examples, frame, seed)
        return FittedLate(features, bundle, self.pooling, boosting)


@dataclass(frozen=True, eq=False)
class FittedLate:
    """The backbone, the aggregates, and the boosters on both."""

    features: TaskFeatures
    bundle: Bundle
    pooling: Pooling
    boosting: FittedBoosting

    def predict(self, task: Task, examples: pl.DataFrame) -> npt.NDArray[np.float64]:
        """``[n]`` (chance of 1, or the number), or ``[n, classes]``, in the examples' order."""
        frame = _joined(task, examples, self.features, self.bundle, self.pooling)
        return all_classes(self.boosting.predict(frame), task)


def _joined(
    task: Task, examples: pl.DataFrame, features: TaskFeatures, bundle: Bundle, pooling: Pooling
) -> pl.DataFrame:
    """Aggregates, and the embedding's numbers; an example without events has nulls there."""
    history = task.history(examples)
    if not history.n_events:
        raise DataError("no example has any event", where=f"task {task.name!r}")
    vectors = embed(bundle, history, how=pooling)
    return late_fusion_frame(features.transform(task, examples), vectors, EXAMPLE)
