"""Overfitting one batch: what cannot learn 30 tokens by heart will learn nothing else."""

from __future__ import annotations

import math

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.training import default_rate, train
from domainformer.models.universal.verdict import CheckResult

_STEPS = 100
_ROWS = 2
_LEARNED, _LEARNING = 0.2, 0.5


def check_overfitting(context: Context) -> CheckResult:
    """The loss of one small batch comes down to a fifth of what it was within 100 steps.

    Two learning rates are tried, and the loss of the first batch alone counts: a copy is trained.
    """
    subject = context.subject
    rows = _ROWS if subject.kind != "classifier" else 4 * _ROWS
    batch = subject.batch(rows, context.length, seed=context.seed)
    best, how, last = float("inf"), "", float("inf")
    for factor in (1.0, 0.2):
        start: list[float] = []

        def done(loss: float, start: list[float] = start) -> bool:
            start.append(loss)
            return loss < _LEARNED * start[0]

        found = train(
            subject,
            lambda step: batch,
            steps=_STEPS,
            learning_rate=factor * default_rate(subject),
            warmup=0.05,
            seconds=context.seconds / 2,
            seed=context.seed,
            done=done,
        )
        lowest = min((x for x in found.losses if math.isfinite(x)), default=math.inf)
        share = lowest / max(found.losses[0], 1e-9)
        if share < best:
            best, last, how = share, lowest, found.how
        if best < _LEARNED:
            break
    told = f"the loss of one batch went to {100 * best:.0f} % of its start ({last:.2f}) in {how}"
    if best < _LEARNED:
        return CheckResult("overfit_one_batch", "pass", told, None, best, _LEARNED)
    return CheckResult(
        "overfit_one_batch",
        "warn" if best < _LEARNING or "cut" in how else "fail",
        told,
        "see whether labels and logits are of the same places, weights are cut off or frozen, "
        "or the logits cannot grow",
        best,
        _LEARNED,
    )
