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
    weights = np.full(len(logits), 1 / len(logits))
    scale = 0.0
    for _ in range(_STEPS):
        mixed = np.tensordot(weights, logits, 1)
        mixed = mixed if kind == "multiclass" else mixed[:, 0]
        said = from_logits(mixed, kind).reshape(target.shape)
        gradient = np.einsum("nc,mnc->m", said - target, logits) / len(labels)
        gradient -= weights @ gradient
        scale = max(scale, float(np.abs(gradient).max()))
        if scale == 0 or np.abs(gradient * weights).max() < 1e-9 * max(scale, 1.0):
            break
        weights = weights * np.exp(-0.5 * gradient / scale)
        weights /= weights.sum()
    return weights
