"""Validation of a compressor: tokens are dropped, and the frozen model answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple
from typing import Any

import numpy as np

from domainformer.training.trainer_parts import on_device
from domainformer.training.vision.config import VisionTrainingConfig
from domainformer.training.vision.learner import VisionLearner
from domainformer.training.vision.rows import VisionRows

FULL, DYNAMIC = "full", "dynamic"


def budget_names(training: VisionTrainingConfig) -> dict[str, float | None]:
    """The budgets of a training by the names that its numbers have.

    Example:
        >>> from domainformer.training.vision.config import DynamicConfig
        >>> training = VisionTrainingConfig(budgets=(0.25,), dynamic=DynamicConfig(target=0.1))
        >>> budget_names(training)
        {'0.25': 0.25, 'dynamic': None}
    """
    names: dict[str, float | None] = {f"{share:g}": share for share in training.budgets}
    return names if training.dynamic is None else {**names, DYNAMIC: None}


def judge(
    learner: VisionLearner, batches: Iterable[Mapping[str, Any]], *, full: bool = False
) -> dict[str, float]:
    """Accuracy, loss and share of tokens kept, for each budget.

    Args:
        learner: The compressor with its frozen model.
        batches: Of a collator with answers, where the model is.
        full: Also without compression, as ``full``.

    Returns:
        ``accuracy_0.25``, ``loss_0.25``, ``kept_0.25``, … and ``accuracy``, ``loss``, the means
        over the budgets of the training; nothing where there is no batch.
    """
    names = budget_names(learner.training_config)
    shares = {**names, FULL: 1.0} if full else names
    totals = {name: np.zeros(6) for name in shares}
    was_training = learner.training
    learner.eval()
    try:
        for batch in batches:
            for name, share in shares.items():
                totals[name] += np.asarray(astuple(learner.judge(batch, share)))
    finally:
        learner.train(was_training)
    told: dict[str, float] = {}
    for name, (correct, questions, loss, targets, kept, tokens) in totals.items():
        if questions:
            told[f"accuracy_{name}"] = float(correct / questions)
            told[f"loss_{name}"] = float(loss / targets)
            told[f"kept_{name}"] = float(kept / tokens)
    for what in ("accuracy", "loss") if told else ():
        told[what] = float(np.mean([told[f"{what}_{name}"] for name in names]))
    return told


def batches_of(learner: VisionLearner, rows: VisionRows, size: int) -> Iterator[dict[str, Any]]:
    """All rows in their order, in batches, where the compressor is."""
    for start in range(0, len(rows), size):
        chosen = [rows[index] for index in range(start, min(start + size, len(rows)))]
        yield on_device(rows.collator(chosen), learner)
