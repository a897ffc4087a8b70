"""The tabular baseline of a task: aggregates at the cut, into tuned LightGBM.

::

    task ─▶ TaskFeatures.fit(training examples) ─▶ GradientBoosting.fit ─▶ FittedTabular.predict

It is a model of a task as any other (``fit``, ``predict``), so that the protocol runs it on the
same folds and seeds as the Transformer. Plans for the public tasks stand in :data:`PUBLIC_PLANS`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import DataError, nearest
from domainformer.evaluation.gbdt import FittedBoosting, GradientBoosting, Kind
from domainformer.evaluation.task_features import FeaturePlan, TaskFeatures
from domainformer.evaluation.tasks import ENTITY, EXAMPLE, Task

_KINDS: Mapping[str, Kind] = {
    "binary": "binary",
    "multiclass": "multiclass",
    "regression": "regression",
}

PUBLIC_PLANS: Mapping[str, FeaturePlan] = {
    "physionet_death": FeaturePlan(
        code="parameter",
        value="value",
        windows=(360, 720, 1440),
        top=37,
        # Blood pressure is measured by a line in the artery or by a cuff.
        same_codes={
            "SysABP": "Systolic",
            "NISysABP": "Systolic",
            "DiasABP": "Diastolic",
            "NIDiasABP": "Diastolic",
            "MAP": "Mean pressure",
            "NIMAP": "Mean pressure",
        },
        code_ratios=(
            ("PaO2", "FiO2"),
            ("SaO2", "FiO2"),
            ("BUN", "Creatinine"),
            ("HR", "Systolic"),
            ("Lactate", "Albumin"),
            ("AST", "ALT"),
            ("Platelets", "WBC"),
            ("PaCO2", "HCO3"),
            ("Urine", "Weight"),
        ),
    ),
    "credit_default": FeaturePlan(
        numeric=("repayment_status", "bill_amount", "payment_amount"),
        labels=("repayment_status",),  # −2, −1 and 0 are no months of delay but kinds of use
        ratios=(
            ("bill_amount", "limit_bal"),
            ("payment_amount", "limit_bal"),
            ("payment_amount", "bill_amount"),
        ),
        paid=(("payment_amount", "bill_amount"),),
        windows=(62, 93),
        lags=6,
        top=8,
    ),
    "online_retail_churn": FeaturePlan(
        numeric=("quantity", "unit_price"),
        labels=("country", "cancelled", "stock_code"),
        products=(("quantity", "unit_price"),),
        visits=("quantity*unit_price", "quantity"),
        windows=(7, 14, 30, 60, 91, 150),
        top=3,
    ),
    "birmingham_dormancy": FeaturePlan(
        numeric=("amount",),
        labels=("expense", "unit", "directorate", "merchant"),
        windows=(14, 30, 60, 90, 180, 365),
        horizon=90,
        totals=False,  # the test cut is half a year after the middle of the training cuts
        top=12,
    ),
}


@dataclass(frozen=True)
class TabularBaseline:
    """Aggregates and LightGBM.

    Args:
        plan: Which columns become which aggregates.
        boosting: How LightGBM is tuned; its ``kind`` is taken from the task.
    """

    plan: FeaturePlan
    boosting: GradientBoosting = field(default_factory=GradientBoosting)

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedTabular:
        """Learn from training and validation examples together.

        The search makes inner folds of its own, whole entities each, so the validation part need
        not be held back: it is training data for a model that tunes itself.

        Raises:
            DataError: The task is of a kind that aggregates do not answer (next_item).
        """
        check_kind(task)
        examples = pl.concat([examples_train, examples_valid]).unique(EXAMPLE).sort(EXAMPLE)
        features = TaskFeatures.fit(task, examples, self.plan)
        frame = features.transform(task, examples)
        return FittedTabular(features, fit_boosting(self.boosting, task, examples, frame, seed))


@dataclass(frozen=True, eq=False)
class FittedTabular:
    """Aggregates as they were learned, and the boosters on them."""

    features: TaskFeatures
    boosting: FittedBoosting

    def predict(self, task: Task, examples: pl.DataFrame) -> npt.NDArray[np.float64]:
        """``[n]`` (chance of 1, or the number), or ``[n, classes]``, in the examples' order."""
        return all_classes(self.boosting.predict(self.features.transform(task, examples)), task)


def check_kind(task: Task) -> None:
    """Refuse a task that rows of features do not answer.

    Raises:
        DataError: It is of another kind (next_item).
    """
    if task.kind not in _KINDS:
        raise DataError(
            f"a tabular baseline does not answer a task of kind {task.kind!r}",
            next_step="use evaluation.item_baselines",
        )


def fit_boosting(
    boosting: GradientBoosting, task: Task, examples: pl.DataFrame, frame: pl.DataFrame, seed: int
) -> FittedBoosting:
    """Tuned boosters of a task's labels on given features, one row per example.

    Args:
        boosting: How LightGBM is tuned; its ``kind`` is taken from the task.
        task: The task.
        examples: Examples with labels; those of one entity stay in one inner fold.
        frame: Their features, in the same order.
        seed: Of search and boosters.
    """
    plan = GradientBoosting(**{**vars(boosting), "kind": _KINDS[task.kind]})
    groups = examples[ENTITY].cast(pl.String).to_numpy()
    return plan.fit(frame, task.labels(examples), groups=groups, seed=seed)


def all_classes(predicted: npt.NDArray[np.float64], task: Task) -> npt.NDArray[np.float64]:
    """Predictions with a column for every class: one beyond those learned has probability 0."""
    if task.kind == "multiclass" and predicted.shape[1] < task.n_classes:
        missing = np.zeros((len(predicted), task.n_classes - predicted.shape[1]))
        predicted = np.hstack([predicted, missing])
    return predicted


def public_plan(name: str) -> FeaturePlan:
    """The plan for a public task; forms of one task share one.

    Raises:
        DataError: There is no plan for that task.

    Example:
        >>> public_plan("physionet_death").code
        'parameter'
    """
    stem = name.removesuffix("_without_artefact").removesuffix("_8_cuts")
    if stem not in PUBLIC_PLANS:
        raise DataError(
            f"there is no feature plan for {name!r}", next_step=nearest(name, PUBLIC_PLANS)
        )
    return PUBLIC_PLANS[stem]
