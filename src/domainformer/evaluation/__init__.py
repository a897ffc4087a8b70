"""Judging a model honestly: the next event against baselines, embeddings against aggregates.

Start with :func:`~domainformer.evaluation.evaluate.evaluate`, then
:mod:`~domainformer.evaluation.next_event` (the contest) over
:mod:`~domainformer.evaluation.scoring` (what the model says, in two views) and
:mod:`~domainformer.evaluation.baselines` (what one can say without it);
:mod:`~domainformer.evaluation.probe` with :mod:`~domainformer.evaluation.aggregates` and
:mod:`~domainformer.evaluation.labels`; :mod:`~domainformer.evaluation.metrics` and
:mod:`~domainformer.evaluation.intervals` for figures. May import training, inference, models,
tokenizers, data and what lies below.
"""

from domainformer.evaluation.aggregates import aggregate_features
from domainformer.evaluation.evaluate import EVALUATION_FILE, Evaluation, evaluate
from domainformer.evaluation.intervals import Interval
from domainformer.evaluation.labels import read_labels
from domainformer.evaluation.next_event import NextEvent, SlotResult, TextResult, next_event
from domainformer.evaluation.probe import ProbeResult, probe

__all__ = [
    "evaluate",
    "Evaluation",
    "EVALUATION_FILE",
    "next_event",
    "NextEvent",
    "SlotResult",
    "TextResult",
    "probe",
    "ProbeResult",
    "aggregate_features",
    "read_labels",
    "Interval",
]
