"""Calibration: turning scores of a binary model into probabilities, on validation examples.

Fit on examples that neither trained the model nor judge it. Both maps are monotone, so the ranking
(AUROC) stays, except that isotonic regression makes ties.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from domainformer.errors import DataError
from domainformer.evaluation.metrics import FloatArray

_SMALLEST = 1e-12


class Calibrator(Protocol):
    """A fitted map from probabilities to calibrated probabilities."""

    def __call__(self, probabilities: npt.NDArray[Any]) -> FloatArray:
        """Calibrate ``[n]``."""


@dataclass(frozen=True)
class PlattScaling:
    """``sigmoid(slope · logit(p) + intercept)`` (Platt 1999, on the logit as in Guo et al. 2017).

    Args:
        slope: Below 1 where the model is overconfident; never negative when fitted.
        intercept: Moves the average.

    Example:
        >>> PlattScaling(slope=1.0, intercept=0.0)(np.array([0.2])).round(6).tolist()
        [0.2]
    """

    slope: float
    intercept: float

    def __call__(self, probabilities: npt.NDArray[Any]) -> FloatArray:
        """Calibrate ``[n]``."""
        return _sigmoid(self.slope * _logit(probabilities) + self.intercept)


@dataclass(frozen=True, eq=False)
class IsotonicCalibration:
    """A rising step function, interpolated between its blocks (Zadrozny and Elkan 2002).

    Args:
        scores: Knots, ascending ``[k]``.
        values: Calibrated probabilities at the knots, never falling ``[k]``.
    """

    scores: FloatArray
    values: FloatArray

    def __call__(self, probabilities: npt.NDArray[Any]) -> FloatArray:
        """Calibrate ``[n]``; scores outside of the knots get the nearest knot's value."""
        return np.interp(np.asarray(probabilities, np.float64), self.scores, self.values)


def fit_calibrator(
    labels: npt.NDArray[Any],
    probabilities: npt.NDArray[Any],
    method: Literal["platt", "isotonic"] = "platt",
) -> PlattScaling | IsotonicCalibration:
    """Fit a calibrator on validation examples.

    Platt has two parameters and suits a few hundred examples; isotonic is free in shape and needs
    about a thousand (Niculescu-Mizil and Caruana 2005).

    Args:
        labels: 0 and 1, ``[n]``.
        probabilities: What the model said, ``[n]`` in [0, 1].
        method: "platt" or "isotonic".

    Raises:
        DataError: One class, probabilities outside of [0, 1], or lengths that differ.

    Example:
        >>> y = np.array([0, 0, 1, 0, 1, 1] * 20)
        >>> p = np.array([0.01, 0.1, 0.2, 0.8, 0.9, 0.99] * 20)  # far too sure
        >>> fit_calibrator(y, p).slope < 1
        True
        >>> fit_calibrator(y, p, "isotonic")(np.array([0.0, 0.5, 1.0])).tolist()
        [0.0, 0.5, 1.0]
    """
    y, p = np.asarray(labels, np.float64), np.asarray(probabilities, np.float64)
    if y.shape != p.shape or y.ndim != 1:
        raise DataError(
            "labels and probabilities must be two columns of one length",
            why=f"their shapes are {y.shape} and {p.shape}",
        )
    if set(np.unique(y)) != {0.0, 1.0}:
        raise DataError(
            "calibration needs labels 0 and 1, both of them",
            why=f"found {np.unique(y)[:5].tolist()}",
            next_step="use more validation examples",
        )
    # Written so that NaN fails too.
    if not bool(np.all((p >= 0) & (p <= 1))):
        raise DataError("probabilities must be in [0, 1]", next_step="check the model's output")
    if method == "platt":
        return _fit_platt(y, p)
    if method == "isotonic":
        return _fit_isotonic(y, p)
    raise DataError(f"there is no calibration {method!r}", next_step="platt or isotonic")


def _fit_platt(y: FloatArray, p: FloatArray) -> PlattScaling:
    """Newton's method with step halving on Platt's smoothed targets, which keep it finite."""
    positives, n = y.sum(), len(y)
    targets = np.where(y == 1, (positives + 1) / (positives + 2), 1 / (n - positives + 2))
    x = np.stack([_logit(p), np.ones(n)], axis=1)
    beta = np.array([0.0, float(np.log((positives + 1) / (n - positives + 1)))])
    loss = _cross_entropy(targets, x @ beta)
    for _ in range(100):
        now = _sigmoid(x @ beta)
        hessian = (x * (now * (1 - now))[:, None]).T @ x + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, x.T @ (now - targets))
        size, before = 1.0, loss
        while size > 1e-8 and (loss := _cross_entropy(targets, x @ (beta - size * step))) > before:
            size /= 2
        beta = beta - size * step
        if abs(before - loss) <= 1e-12 * n:
            break
    if beta[0] < 0:
        # A model that ranks the wrong way round is worthless, not to be turned by calibration.
        return PlattScaling(0.0, float(np.log((positives + 1) / (n - positives + 1))))
    return PlattScaling(float(beta[0]), float(beta[1]))


def _fit_isotonic(y: FloatArray, p: FloatArray) -> IsotonicCalibration:
    """Pool adjacent violators: merge neighbouring blocks while their means fall."""
    knots, index = np.unique(p, return_inverse=True)
    counts = np.bincount(index).astype(np.float64)
    sums = np.bincount(index, weights=y)
    blocks: list[list[float]] = []  # sum, count, knots
    for total, count in zip(sums.tolist(), counts.tolist(), strict=True):
        blocks.append([total, count, 1])
        while len(blocks) > 1 and (blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]):
            last = blocks.pop()
            blocks[-1] = [a + b for a, b in zip(blocks[-1], last, strict=True)]
    means = [block[0] / block[1] for block in blocks]
    return IsotonicCalibration(knots, np.repeat(means, [int(block[2]) for block in blocks]))


def _logit(p: npt.NDArray[Any]) -> FloatArray:
    p = np.clip(np.asarray(p, np.float64), _SMALLEST, 1 - _SMALLEST)
    return np.asarray(np.log(p) - np.log1p(-p))


def _sigmoid(x: FloatArray) -> FloatArray:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _cross_entropy(targets: FloatArray, logits: FloatArray) -> float:
    return float(np.sum(np.logaddexp(0.0, logits) - targets * logits))
