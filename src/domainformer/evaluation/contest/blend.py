"""``blend``: the weighted average of the logits of other contestants.

::

    members fitted on the training part alone ─▶ validation examples ─▶ weights (convex, ≥ 0, Σ = 1)
    members as they are in the contest        ─▶ test examples       ─▶ weighted logits

Weights must come from predictions that did not learn the validation labels. Models that only stop
by them are used as they are (a slight optimism that all of these share). A model that *learns* from
them, as ``lightgbm`` and ``late`` do, says so by ``learns_from_validation``: it is fitted once more
on the training part alone and weighed by that fit, while the full one predicts: its weight may be a
little too small, never too large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import ConfigError, DataError
from domainformer.evaluation.contest.logits import average, from_logits, to_logits
from domainformer.evaluation.contest.table import build_contestant
from domainformer.evaluation.tasks import LABEL, Fitted, Kind, Model, Task

Floats = npt.NDArray[np.float64]
_STEPS = 2000
_LEAST, _STILL = 1e-15, 1e-7


@dataclass(frozen=True)
class Blend:
    """Other contestants, averaged.

    Args:
        of: Their names: contestants, or (in a contest) names of its models, whose predictions are
            then used as they are.
        settings: Their settings by name, where the blend is fitted by itself.
        weights: Their shares, in the order of ``of``, where these were chosen before on other data
            than the tested; None: chosen on the validation examples, which costs a model that
            learns from validation examples a second fit.

    Raises:
        ConfigError: Fewer than two members, one twice, or weights that are not shares of theirs.
    """

    of: tuple[str, ...] = ("lightgbm", "joint")
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.of) < 2 or len(set(self.of)) < len(self.of):
            raise ConfigError(
                f"a blend needs at least two different members, not {list(self.of)}",
                next_step="for example of: [lightgbm, joint]",
            )
        given = self.weights
        if given is not None and (
            len(given) != len(self.of) or min(given) < 0 or abs(sum(given) - 1) > 1e-6
        ):
            raise ConfigError(
                f"the weights of a blend of {len(self.of)} are as many shares that sum to 1",
                why=f"they are {list(given)}",
            )

    @property
    def shares(self) -> dict[str, float] | None:
        """The weights by member, where they are given."""
        return None if self.weights is None else dict(zip(self.of, self.weights, strict=True))

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedBlend:
        """Fit every member, then choose the weights on the validation examples."""
        fitted: dict[str, Fitted] = {}
        said: dict[str, Floats] = {}
        for name in self.of:
            model = build_contestant(name, self.settings.get(name), where=f"blend.settings.{name}")
            fitted[name] = one = model.fit(task, examples_train, examples_valid, seed)
            if self.shares is None:
                said[name] = held_back(model, one, task, examples_train, examples_valid, seed)
        return FittedBlend(fitted, self.shares or choose_weights(task, examples_valid, said))


@dataclass(frozen=True, eq=False)
class FittedBlend:
    """Fitted members and their weights.

    Args:
        members: By name.
        weights: By name; they sum to 1.
    """

    members: Mapping[str, Fitted]
    weights: Mapping[str, float]

    def predict(self, task: Task, examples: pl.DataFrame) -> Floats:
        """The weighted average of the members' logits, as predictions."""
        each = [one.predict(task, examples) for one in self.members.values()]
        return average(each, task.kind, [self.weights[name] for name in self.members])


def held_back(
    model: Model,
    fitted: Fitted,
    task: Task,
    examples_train: pl.DataFrame,
    examples_valid: pl.DataFrame,
    seed: int,
) -> Floats:
    """What a model says of the validation examples without having learned their labels."""
    if getattr(model, "learns_from_validation", False):
        fitted = model.fit(task, examples_train, examples_valid.clear(), seed)
    return fitted.predict(task, examples_valid.drop(LABEL))


def choose_weights(
    task: Task, examples: pl.DataFrame, predictions: Mapping[str, Floats]
) -> dict[str, float]:
    """Weights that minimise log-loss (or squared error) of the averaged logits.

    Args:
        task: The task.
        examples: The examples that were predicted, with labels.
        predictions: By member, one row per example.

    Raises:
        DataError: There are no examples, or the kind has no logits (next_item).
    """
    if task.kind == "next_item" or not examples.height:
        raise DataError(
            "a blend cannot be weighed",
            where=f"task {task.name!r}",
            why="it has no validation examples" if not examples.height else "items are ranked",
            next_step="leave the blend out",
        )
    weights = simplex_weights(list(predictions.values()), task.labels(examples), task.kind)
    return {name: float(weight) for name, weight in zip(predictions, weights, strict=True)}


def simplex_weights(predictions: Sequence[Floats], labels: npt.NDArray[Any], kind: Kind) -> Floats:
    """Convex weights by exponentiated gradients; the loss is convex in them.

    Example:
        >>> y = np.array([0, 1] * 50)
        >>> simplex_weights([np.full(100, 0.5), 0.2 + 0.6 * y], y, "binary").round(2).tolist()
        [0.0, 1.0]
    """
    logits = np.stack([to_logits(one, kind).reshape(len(labels), -1) for one in predictions])
    if kind == "multiclass":
        target = np.eye(logits.shape[2])[labels.astype(np.int64)]
    else:
        target = labels.astype(np.float64)[:, None]
    if kind == "regression":  # in standard deviations: the unit of a label must not matter
        center, spread = target.mean(), target.std() or 1.0
        logits, target = (logits - center) / spread, (target - center) / spread
    weights = np.full(len(logits), 1 / len(logits))
    step, loss = 1.0, _loss(weights, logits, target, kind)
    for _ in range(_STEPS):
        mixed = np.tensordot(weights, logits, 1)
        said = from_logits(mixed if kind == "multiclass" else mixed[:, 0], kind)
        gradient = np.einsum("nc,mnc->m", said.reshape(target.shape) - target, logits)
        gradient -= weights @ gradient
        # A member that is far off has a huge gradient whatever its weight: the step follows the
        # loss instead, and no weight changes by more than e at once.
        tried = weights * np.exp(np.clip(-step * gradient / len(labels), -1, 1))
        tried = np.maximum(tried / tried.sum(), _LEAST)
        tried /= tried.sum()
        found = _loss(tried, logits, target, kind)
        if found <= loss:
            if np.abs(tried - weights).max() < _STILL * min(step, 1.0):
                return tried
            weights, loss, step = tried, found, 1.5 * step
        elif step < _LEAST:
            break
        else:
            step /= 2
    return weights


def _loss(weights: Floats, logits: Floats, target: Floats, kind: Kind) -> float:
    """Mean log-loss (or squared error, halved) of the weighted logits."""
    mixed = np.tensordot(weights, logits, 1)
    if kind == "regression":
        return float(((mixed - target) ** 2).mean() / 2)
    if kind == "binary":
        return float((np.logaddexp(0.0, mixed) - target * mixed).mean())
    return float((np.logaddexp.reduce(mixed, axis=1) - (target * mixed).sum(axis=1)).mean())
