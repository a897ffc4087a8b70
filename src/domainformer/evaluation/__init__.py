"""Judging a model honestly: the next event against baselines, embeddings against aggregates.

Start with :func:`~domainformer.evaluation.evaluate.evaluate`, then
:mod:`~domainformer.evaluation.next_event` (the contest) over
:mod:`~domainformer.evaluation.scoring` (what the model says, in two views) and
:mod:`~domainformer.evaluation.baselines` (what one can say without it);
:mod:`~domainformer.evaluation.probe` with :mod:`~domainformer.evaluation.aggregates` and
:mod:`~domainformer.evaluation.labels`; :mod:`~domainformer.evaluation.metrics` and
:mod:`~domainformer.evaluation.intervals` for figures.
For "is it better on my task": :mod:`~domainformer.evaluation.tasks` (what is judged),
:mod:`~domainformer.evaluation.protocols` (running models),
:mod:`~domainformer.evaluation.comparison` and :mod:`~domainformer.evaluation.leaks`; the opponents
are :mod:`~domainformer.evaluation.tabular_baseline` (aggregates into LightGBM),
:mod:`~domainformer.evaluation.sequence_counts` and :mod:`~domainformer.evaluation.item_baselines`.
"What is each choice of my run worth": :mod:`~domainformer.evaluation.ablations`. "Does the change
that I made explain the difference between these runs": :mod:`~domainformer.evaluation.comparisons`.
"Can I trust this model, whatever it is": :mod:`~domainformer.evaluation.checks`.
"Which image tokens does a question need": :mod:`~domainformer.evaluation.vision`.

May import training, export, inference, models, tokenizers, data and what lies below.
"""

from domainformer.evaluation.ablations import Ablation, AblationConfig, ablate, load_ablation
from domainformer.evaluation.aggregates import aggregate_features
from domainformer.evaluation.calibration import fit_calibrator
from domainformer.evaluation.checks import CheckReport, check
from domainformer.evaluation.comparison import Comparison, FoldPrediction, evaluate_predictions
from domainformer.evaluation.comparisons import (
    RunComparison,
    Sweep,
    SweepConfig,
    compare,
    sweep,
)
from domainformer.evaluation.evaluate import EVALUATION_FILE, Evaluation, evaluate
from domainformer.evaluation.gbdt import GradientBoosting
from domainformer.evaluation.intervals import Interval
from domainformer.evaluation.labels import read_labels
from domainformer.evaluation.leaks import Leak, check_features, check_leaks
from domainformer.evaluation.next_event import NextEvent, SlotResult, TextResult, next_event
from domainformer.evaluation.next_tasks import next_item_task, next_value_task
from domainformer.evaluation.probe import ProbeResult, probe
from domainformer.evaluation.protocols import Calibrated, NestedChoice, run, run_model
from domainformer.evaluation.public_tasks import PUBLIC_TASKS, public_task
from domainformer.evaluation.tabular_baseline import TabularBaseline, public_plan
from domainformer.evaluation.task_building import task_at_cuts, task_from_labels
from domainformer.evaluation.task_features import FeaturePlan, TaskFeatures
from domainformer.evaluation.tasks import Task
from domainformer.evaluation.vision import VisionResults, VisionSummary, evaluate_selectors

__all__ = [
    "evaluate",
    "Evaluation",
    "EVALUATION_FILE",
    "ablate",
    "Ablation",
    "AblationConfig",
    "load_ablation",
    "check",
    "CheckReport",
    "compare",
    "RunComparison",
    "sweep",
    "Sweep",
    "SweepConfig",
    "next_event",
    "NextEvent",
    "SlotResult",
    "TextResult",
    "probe",
    "ProbeResult",
    "aggregate_features",
    "read_labels",
    "Interval",
    "Task",
    "task_from_labels",
    "task_at_cuts",
    "next_value_task",
    "next_item_task",
    "PUBLIC_TASKS",
    "public_task",
    "run",
    "run_model",
    "NestedChoice",
    "Calibrated",
    "fit_calibrator",
    "FoldPrediction",
    "Comparison",
    "evaluate_predictions",
    "Leak",
    "check_leaks",
    "check_features",
    "FeaturePlan",
    "TaskFeatures",
    "GradientBoosting",
    "TabularBaseline",
    "public_plan",
    "evaluate_selectors",
    "VisionResults",
    "VisionSummary",
]
