"""The learning-rate range test: raise the rate at every step, and see where the loss falls fastest.

Source: Smith 2017, "Cyclical Learning Rates for Training Neural Networks", §3.3 (arXiv 1506.01186).
"""

from __future__ import annotations

import math

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.training import train
from domainformer.models.universal.verdict import CheckResult

_LOWEST, _HIGHEST = 1e-6, 1.0
_FEWEST_STEPS = 40
_SMOOTHING = 0.8
_FALL = 0.95
_FRAGILE = 1e-5
# The rate runs ahead of the loss: where that is lowest, the rate is past what training bears.
_BELOW_LOWEST = 10


def check_learning_rates(context: Context) -> CheckResult:
    """There is a learning rate at which the loss falls; where it falls fastest, and where it ends.

    ::

        rate_k = 10⁻⁶ · 10^(6 k / (n − 1)), k = 0 … n − 1;  loss smoothed over about five steps
    """
    steps = max(_FEWEST_STEPS, context.steps // 2)

    def rate(step: int) -> float:
        return float(_LOWEST * (_HIGHEST / _LOWEST) ** (step / (steps - 1)))

    start: list[float] = []

    def diverges(loss: float) -> bool:
        start.append(loss)
        return loss > 4 * start[0] + 1

    found = train(
        context.subject,
        context.training_batch,
        steps=steps,
        learning_rate=rate,
        seconds=context.seconds,
        seed=context.seed,
        done=diverges,
    )
    smooth = smoothed([loss for loss in found.losses if math.isfinite(loss)])
    if len(smooth) < 2:
        why = "the loss is not finite from the first steps on"
        return CheckResult("learning_rates", "fail", why, "see the check of the initial loss")
    lowest = min(range(len(smooth)), key=smooth.__getitem__)
    share = smooth[lowest] / smooth[0]
    if share > _FALL:
        return CheckResult(
            "learning_rates",
            "fail",
            f"at no rate from {_LOWEST:g} to {rate(len(smooth) - 1):.2g} does the loss fall "
            f"({smooth[0]:.2f} to {smooth[lowest]:.2f})",
            "see the checks of gradients and of overfitting",
            share,
            _FALL,
        )
    steepest = _steepest(smooth, lowest)
    best = min(rate(steepest) / 3, rate(lowest) / _BELOW_LOWEST)
    context.notes["learning_rate"] = best
    told = (
        f"the loss falls fastest at {rate(steepest):.1e} and is lowest at {rate(lowest):.1e}; "
        f"begin with {best:.1e}"
    )
    if best < _FRAGILE:
        return CheckResult(
            "learning_rates",
            "warn",
            told,
            "so low a rate hints at outputs or gradients that are too large",
            best,
            _FRAGILE,
        )
    return CheckResult("learning_rates", "pass", told, None, best)


def smoothed(losses: list[float]) -> list[float]:
    """An exponential mean without the bias of its beginning.

    Example:
        >>> smoothed([2.0, 2.0, 2.0])
        [2.0, 2.0, 2.0]
    """
    found: list[float] = []
    total = weight = 0.0
    for loss in losses:
        total = _SMOOTHING * total + (1 - _SMOOTHING) * loss
        weight = _SMOOTHING * weight + (1 - _SMOOTHING)
        found.append(round(total / weight, 12))
    return found


def _steepest(smooth: list[float], lowest: int) -> int:
    """Where it falls most per step, over four steps, before it is lowest."""
    span = 4
    places = range(span, lowest + 1)
    return max(places, key=lambda i: smooth[i - span] - smooth[i], default=lowest)
