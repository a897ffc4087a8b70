"""Short trainings of copies: as plain as can be, and the same for every model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from domainformer.evaluation.checks.subject import Batch, Subject, Unanswerable

_CLIP = 1.0
_LAST = 0.1
_SCORED_BATCHES = 4


@dataclass(frozen=True)
class Trained:
    """A copy that was trained.

    Args:
        subject: The copy.
        losses: Of each step.
        cut: Whether its time was over before its steps were.
        seconds: That it took.
    """

    subject: Subject
    losses: list[float]
    cut: bool
    seconds: float

    @property
    def diverged(self) -> bool:
        """Whether a loss was not finite, which ends a training."""
        return not math.isfinite(self.losses[-1])

    @property
    def how(self) -> str:
        """Steps, and whether they were all that were asked for."""
        return f"{len(self.losses)} steps" + (", cut short by its time" if self.cut else "")


def train(
    subject: Subject,
    batches: Callable[[int], Batch],
    *,
    steps: int,
    learning_rate: float | Callable[[int], float],
    weight_decay: float = 0.0,
    warmup: float = 0.1,
    seconds: float = math.inf,
    seed: int = 0,
    done: Callable[[float], bool] | None = None,
) -> Trained:
    """Train a copy with AdamW, without dropout, so that a rise of the loss means something.

    Args:
        subject: Left as it is.
        batches: What each step sees.
        steps: At most.
        learning_rate: The peak, after a linear warm-up and before a cosine to a tenth of it; or
            the rate of each step.
        weight_decay: Of AdamW.
        warmup: Share of the steps.
        seconds: At most; a step that was begun is finished.
        seed: Of whatever the model draws.
        done: Told each loss; true ends the training.

    Raises:
        Unanswerable: The model cannot be copied, or has nothing to train.
    """
    own = subject.copied()
    weights = [one for one in own.parameters() if one.requires_grad]
    if not weights:
        raise Unanswerable("no parameter is trainable")
    rate = learning_rate if callable(learning_rate) else _schedule(learning_rate, steps, warmup)
    optimizer = torch.optim.AdamW(weights, lr=0.0, weight_decay=weight_decay)
    losses: list[float] = []
    begun = time.perf_counter()
    with torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        for step in range(steps):
            loss = own.loss(batches(step))
            losses.append(float(loss.detach()))
            if not math.isfinite(losses[-1]) or (done is not None and done(losses[-1])):
                break
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, _CLIP)
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            optimizer.step()
            if time.perf_counter() - begun > seconds and step + 1 < steps:
                return Trained(own, losses, True, time.perf_counter() - begun)
    return Trained(own, losses, False, time.perf_counter() - begun)


def default_rate(subject: Subject) -> float:
    """A peak learning rate of AdamW that models of such a size bear in short trainings.

    Example:
        >>> from domainformer.evaluation.checks.kinds import subject_of
        >>> table = torch.nn.Embedding(50, 50)
        >>> default_rate(subject_of(table, roles={"input": "tokens"}))
        0.01
    """
    count = sum(one.numel() for one in subject.parameters() if one.requires_grad)
    return 1e-2 if count < 5e4 else 3e-3 if count < 3e6 else 1e-3 if count < 3e7 else 3e-4


@torch.no_grad()
def held_out_loss(
    subject: Subject, draw: Callable[[int], torch.Tensor], *, batches: int = _SCORED_BATCHES
) -> float:
    """Mean loss of next tokens over rows that ``draw`` gives for seeds 0, 1, …, in nats."""
    losses = [subject.nll(draw(seed).to(subject.device)).double().mean() for seed in range(batches)]
    return float(torch.stack(losses).mean())


def _schedule(peak: float, steps: int, warmup: float) -> Callable[[int], float]:
    first = max(1, round(warmup * steps))

    def rate(step: int) -> float:
        if step < first:
            return peak * (step + 1) / first
        share = (step - first) / max(1, steps - first)
        return peak * (_LAST + (1 - _LAST) * (1 + math.cos(math.pi * share)) / 2)

    return rate
