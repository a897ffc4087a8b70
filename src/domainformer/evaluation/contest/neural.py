"""``sequence`` and ``joint``: our Transformer alone, and together with the aggregates.

::

    training histories ─▶ tokenizer ─▶ (pretraining) ─▶ backbone ─┐
    sequence: how long ago the last event was ────────────────────┼─▶ head ─▶ labels   × ensemble
    joint: the aggregates that LightGBM reads, static columns ────┘

A history ends with its last event, and no token says how much time has passed from there to the
cut. For a card that falls silent this is the question itself, so ``sequence`` is told it as a
number (``joint`` finds it among the aggregates).

Tokenizer, scaler and backbone see training examples only; the validation examples stop the
training, and nothing else is taken from them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data import EventTable
from domainformer.data.keys import NULL_TIME, integer_times
from domainformer.errors import ConfigError, DataError
from domainformer.evaluation.contest.boosting import find_plan
from domainformer.evaluation.contest.logits import TARGET, average, in_all_classes
from domainformer.evaluation.contest.pretraining import Pretraining, pretrained
from domainformer.evaluation.contest.schemas import GivenSchema, schema_of
from domainformer.evaluation.task_features import FeaturePlan, TaskFeatures
from domainformer.evaluation.task_parts import time_unit
from domainformer.evaluation.tasks import CUT, EXAMPLE, LABEL, Task
from domainformer.inference.fusion import FusionPredictor
from domainformer.schema import DomainSchema
from domainformer.training.fusion import fit_fusion
from domainformer.training.fusion_config import FusionConfig

_SINCE = "time since the last event"
_KINDS = ("binary", "multiclass", "regression")


@dataclass(frozen=True)
class SequenceModel:
    """Our Transformer on histories alone, trained end to end on the labels.

    Beside the tokens it reads one number where the task has cuts: the time since the last event.

    Args:
        schema: A schema file, a preset, or a mapping with ``fields``; None: inferred from the
            training histories.
        pretraining: How the backbone is trained before labels are shown; None: it starts anew.
        finetuning: The training on labels. Its ``backbone`` is read only without pretraining; a
            pretrained one wants ``rates.backbone`` a tenth of what a new one takes.
        ensemble: Models fine-tuned with different seeds, whose logits are averaged.

    Raises:
        ConfigError: The ensemble has no model.
    """

    schema: GivenSchema = None
    pretraining: Pretraining | None = None
    finetuning: FusionConfig = field(default_factory=FusionConfig)
    ensemble: int = 1

    def __post_init__(self) -> None:
        if self.ensemble < 1:
            raise ConfigError(f"ensemble is {self.ensemble} and must be at least 1")

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedNeural:
        """Pretrain where asked for, fine-tune, stop by the validation examples.

        Raises:
            DataError: The task is of a kind that this model does not answer (next_item), or there
                are no validation examples.
        """
        if task.kind not in _KINDS:
            raise DataError(
                f"this model does not answer a task of kind {task.kind!r}",
                where=f"task {task.name!r}",
                next_step="use a contestant for next items",
            )
        if not examples_valid.height:
            raise DataError("there are no validation examples to stop by", where=task.name)
        features = self._features(task, examples_train)
        bundle = None
        if self.pretraining is not None:
            bundle = pretrained(task, examples_train, self.schema, self.pretraining, seed)
        train, valid = (
            _frame(task, rows, features).with_columns(rows[LABEL].alias(TARGET))
            for rows in (examples_train, examples_valid)
        )
        schema = None if bundle is not None else schema_of(task, examples_train, self.schema)
        fields = schema if bundle is None else bundle.schema
        both = pl.concat([examples_train, examples_valid])
        events = newest_events(task, both, fields, self.finetuning.context)
        predictors = [
            fit_fusion(
                train,
                {TARGET: task.kind},
                events=events,
                validation=valid,
                key=EXAMPLE,
                bundle=bundle,
                schema=schema,
                config=self.finetuning.model_copy(update={"seed": 1000 * seed + member}),
            )
            for member in range(self.ensemble)
        ]
        return FittedNeural(predictors, features)

    def _features(self, task: Task, examples: pl.DataFrame) -> TaskFeatures | None:
        del task, examples  # histories alone
        return None


@dataclass(frozen=True)
class JointModel(SequenceModel):
    """Histories, the aggregates that ``lightgbm`` reads and static columns, trained together.

    Args:
        schema: As for :class:`SequenceModel`.
        pretraining: As there.
        finetuning: As there; its ``model`` holds the settings of the tabular branch.
        ensemble: As there.
        plan: Which aggregates; as for :class:`~domainformer.evaluation.contest.boosting.LightGBM`,
            so that both know the same.
    """

    plan: FeaturePlan | str | None = None

    def _features(self, task: Task, examples: pl.DataFrame) -> TaskFeatures | None:
        return TaskFeatures.fit(task, examples, find_plan(self.plan, task, examples))


@dataclass(frozen=True, eq=False)
class FittedNeural:
    """Fine-tuned models, and the aggregates that they read.

    Args:
        predictors: The ensemble.
        features: The aggregates as they were learned; None: histories alone.
    """

    predictors: list[FusionPredictor]
    features: TaskFeatures | None = None

    def predict(self, task: Task, examples: pl.DataFrame) -> npt.NDArray[np.float64]:
        """``[n]`` (chance of 1, or the number), or ``[n, classes]``, in the examples' order."""
        frame = _frame(task, examples, self.features)
        first = self.predictors[0]
        assert first.tokenizer is not None
        history = newest_events(task, examples, first.tokenizer.schema, first.context)
        each = [
            in_all_classes(one.predict_array(frame, history), one, task) for one in self.predictors
        ]
        return average(each, task.kind)


def newest_events(
    task: Task, examples: pl.DataFrame, schema: DomainSchema | None, context: int
) -> EventTable:
    """As much of each history as a window can hold, so that long ones are not copied.

    An event has a token at least, and the event before the window tells the time that has passed.
    Where sources have budgets a window may reach further back, so everything is kept.
    """
    whole = schema is None or bool(schema.sources)
    return task.history(examples, last=None if whole else context)


def _frame(task: Task, examples: pl.DataFrame, features: TaskFeatures | None) -> pl.DataFrame:
    """The key, and the aggregates where they are read; otherwise the time since the last event."""
    if features is not None:
        return features.transform(task, examples)
    frame = examples.select(EXAMPLE)
    if task.table.time is None or task.examples[CUT].null_count() == task.examples.height:
        return frame
    return frame.with_columns(since_last_event(task, examples).alias(_SINCE))


def since_last_event(task: Task, examples: pl.DataFrame) -> pl.Series:
    """log(1 + time from the last event that is shown to the cut), in days or the table's units.

    Null where there is no event, no cut, or no time.
    """
    starts, ends = task.bounds(examples)
    cuts, times = integer_times(examples[CUT]), task.table.time_values
    last = times[np.maximum(ends - 1, 0)]
    known = (ends > starts) & (cuts != NULL_TIME) & (last != NULL_TIME)
    gap = np.log1p(np.where(known, cuts - last, 0) / time_unit(task.table))
    return pl.Series(gap).set(pl.Series(~known), None)
