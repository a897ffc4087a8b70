"""The copy that baselines and robustness judge: trained once, with the best settings known."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import Subject
from domainformer.evaluation.checks.training import Trained, default_rate, held_out_loss, train
from domainformer.models.universal.probing import at_rest

_ROWS = 32
_LAST = 10
FALL = 0.95  # of the first loss: less is no learning


@dataclass(frozen=True)
class Settings:
    """Of a short training.

    Args:
        learning_rate: The peak.
        weight_decay: Of AdamW.
        warmup: Share of the steps.
    """

    learning_rate: float
    weight_decay: float = 0.0
    warmup: float = 0.1

    def __str__(self) -> str:
        return (
            f"rate {self.learning_rate:.2g}, weight decay {self.weight_decay:.2g}, "
            f"warm-up {100 * self.warmup:.0f} %"
        )


def run(context: Context, settings: Settings, *, subject: Subject | None = None) -> Trained:
    """A short training with given settings, of the context's model or of another one."""
    return train(
        subject or context.subject,
        context.training_batch,
        steps=context.steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        seconds=context.seconds,
        seed=context.seed,
    )


def score(context: Context, found: Trained) -> float:
    """Loss on new rows; of what predicts no next tokens, the mean of the last training losses."""
    if found.diverged:
        return float("inf")
    if not found.subject.causal:
        last = found.losses[-_LAST:]
        return sum(last) / len(last)
    with at_rest(found.subject):
        return held_out_loss(found.subject, lambda seed: held_out_rows(context, seed))


def held_out_rows(context: Context, seed: int) -> torch.Tensor:
    """Rows [32, L] that no training sees."""
    return context.source.draw(_ROWS, context.length, seed=seed, held_out=True)


def contender(context: Context) -> Trained:
    """The trained copy: of the best trial where there was one, else with a rate by its size."""
    if "contender" not in context.notes:
        rate = context.notes.get("learning_rate", default_rate(context.subject))
        context.notes["contender"] = run(context, Settings(rate))
    found: Trained = context.notes["contender"]
    return found
