"""Choosing the hyper-parameters of item baselines on the validation item.

Coordinate descent over short lists of values: each parameter in turn takes the value with the
highest NDCG@10 of the validation item, until a round changes nothing. Fitted on histories without
their last two items, so that the test item is never seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from domainformer.evaluation.item_baselines import (
    Blend,
    Ease,
    ItemHistories,
    ItemModel,
    Transitions,
    TransitionSettings,
    ranking_figures,
    target_ranks,
)

TRANSITION_GRID: Mapping[str, Sequence[float]] = {
    "decay": (0.4, 0.55, 0.7, 0.8, 0.9),
    "backward": (0.0, 0.2, 0.4, 0.6, 0.8),
    "target_power": (0.0, 0.15, 0.3, 0.45),
    "gap_decay": (0.3, 0.5, 0.7, 0.85),
    "source_power": (0.0, 0.25, 0.5, 0.75, 1.0),
    "reach": (1, 2, 3, 5, 8),
    "count_power": (0.5, 0.75, 1.0, 1.25),
}
EASE_DECAYS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
BLEND_WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2)
_METRIC = "ndcg@10"


class ItemSplit(Protocol):
    """What hyper-parameters are chosen by: histories, and the item that follows each."""

    @property
    def exclude_seen(self) -> bool:
        """Whether items of the history cannot be ranked."""
        ...

    @property
    def train(self) -> ItemHistories:
        """What models are fitted on; the validation item is predicted from the same."""
        ...

    @property
    def validation(self) -> npt.NDArray[np.int64]:
        """The item after each of the first histories of ``train``."""
        ...

    @property
    def choosers(self) -> npt.NDArray[np.int64]:
        """Places of the validation items that are looked at."""
        ...

    def validate(self, model: ItemModel) -> float:
        """NDCG@10 of the validation items."""
        ...


@dataclass(frozen=True)
class LeaveLastOut:
    """The standard split of next-item papers: last item test, the one before it validation.

    Args:
        histories: Whole histories, at least three items each.
        choose_by: Hyper-parameters are chosen by the validation items of so many users (drawn from
            ``seed``); None takes all. Models are always fitted on everyone's training part.
        exclude_seen: Items of the history cannot be ranked (right where nobody has an item twice).
        seed: Of the draw.

    Raises:
        DataError: A user has fewer than three items.
    """

    histories: ItemHistories
    choose_by: int | None = None
    exclude_seen: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self.histories.last(3)

    @property
    def train(self) -> ItemHistories:
        """What models are fitted on, and what the validation item is predicted from."""
        return self.histories.without_last(2)

    @property
    def validation(self) -> npt.NDArray[np.int64]:
        """The item before the last, ``[users]``."""
        return self.histories.last(2)

    @property
    def seen_at_test(self) -> ItemHistories:
        """What the test item is predicted from."""
        return self.histories.without_last(1)

    @property
    def test(self) -> npt.NDArray[np.int64]:
        """The last item, ``[users]``."""
        return self.histories.last(1)

    @property
    def choosers(self) -> npt.NDArray[np.int64]:
        """Users by whose validation item hyper-parameters are chosen."""
        users = self.histories.n_users
        if self.choose_by is None or self.choose_by >= users:
            return np.arange(users)
        return np.sort(np.random.default_rng(self.seed).permutation(users)[: self.choose_by])

    def validate(self, model: ItemModel) -> float:
        """NDCG@10 of the validation item."""
        users = self.choosers
        shown, target = self.train.take(users), self.validation[users]
        ranks = target_ranks(model, shown, target, exclude_seen=self.exclude_seen)
        return ranking_figures(ranks)[_METRIC]

    def judge(self, model: ItemModel) -> dict[str, float]:
        """Recall and NDCG of the test item at 5 and 10."""
        ranks = target_ranks(model, self.seen_at_test, self.test, exclude_seen=self.exclude_seen)
        return ranking_figures(ranks)


def tune_transitions(
    split: ItemSplit,
    *,
    start: TransitionSettings | None = None,
    grid: Mapping[str, Sequence[float]] = TRANSITION_GRID,
    rounds: int = 2,
) -> tuple[TransitionSettings, float]:
    """Settings of :class:`Transitions` with the highest validation NDCG@10, and that figure."""
    train, users = split.train, split.choosers
    shown, target = train.take(users), split.validation[users]
    seen = shown.weights(1.0, int(shown.lengths.max(initial=1))) if split.exclude_seen else None

    def score(settings: TransitionSettings) -> float:
        scores = Transitions.fit(train, settings).sparse_scores(shown)
        return ranking_figures(_sparse_ranks(scores, target, seen))[_METRIC]

    return coordinate_descent(start or TransitionSettings(), grid, score, rounds=rounds)


def tune_ease(
    split: ItemSplit, penalties: Sequence[float] = (100.0, 400.0)
) -> tuple[Ease, Ease, dict[str, float]]:
    """EASE as published and with decayed histories: penalty, then decay, by validation NDCG@10.

    Returns:
        The model with decay 1, the one with the chosen decay, and what was chosen.
    """
    best, chosen = -1.0, None
    for penalty in penalties:
        model = Ease.fit(split.train, penalty=penalty)
        score = split.validate(model)
        if score > best:
            best, chosen, at = score, model, penalty
    assert chosen is not None
    by_decay = [(split.validate(replace(chosen, decay=decay)), decay) for decay in EASE_DECAYS]
    score, decay = max(by_decay)
    found = {"penalty": at, "validation_plain": best, "decay": decay, "validation": score}
    return chosen, replace(chosen, decay=decay), found


def tune_blend(split: ItemSplit, first: ItemModel, second: ItemModel) -> tuple[Blend, float]:
    """The weight of the second model with the highest validation NDCG@10, and that figure."""
    scored = [(split.validate(Blend(first, second, w)), w) for w in BLEND_WEIGHTS]
    best, weight = max(scored)
    return Blend(first, second, weight), best


def coordinate_descent(
    start: Any,
    grid: Mapping[str, Sequence[float]],
    score: Callable[[Any], float],
    *,
    rounds: int,
) -> tuple[Any, float]:
    """Improve one parameter of a dataclass after the other until a round changes nothing.

    Example:
        >>> start = TransitionSettings(reach=1, memory=1)
        >>> grid = {"reach": (1, 2, 3), "memory": (1, 5)}
        >>> best, figure = coordinate_descent(start, grid, lambda s: s.reach * s.memory, rounds=3)
        >>> best.reach, best.memory, figure
        (3, 5, 15)
    """
    best, settings = score(start), start
    for _ in range(rounds):
        before = settings
        for name, values in grid.items():
            for value in values:
                if value == getattr(settings, name):
                    continue
                trial = replace(settings, **{name: value})
                figure = score(trial)
                if figure > best:
                    best, settings = figure, trial
        if settings == before:
            break
    return settings, best


def _sparse_ranks(
    scores: Any, targets: npt.NDArray[np.int64], seen: Any = None
) -> npt.NDArray[np.float64]:
    """As :func:`target_ranks`, from non-negative sparse scores (no dense matrix is made).

    Items in ``seen`` (sparse, ``[users, items]``) are not ranked, but for the target.
    """
    n_users, n_items = scores.shape
    users = np.arange(n_users)
    own = np.asarray(scores[users, targets]).ravel()
    unseen = np.full(n_users, n_items)
    if seen is not None:
        hidden = (seen != 0).astype(scores.dtype)
        scores = scores - scores.multiply(hidden)
        own_hidden = np.asarray(hidden[users, targets]).ravel() > 0
        unseen = n_items - np.diff(hidden.indptr) + own_hidden
    rows = np.repeat(users, np.diff(scores.indptr))
    positive = np.bincount(rows, weights=scores.data > 0, minlength=n_users)
    higher = np.bincount(rows, weights=scores.data > own[rows], minlength=n_users)
    ties = np.bincount(rows, weights=scores.data == own[rows], minlength=n_users)
    own_there = 1.0 if seen is None else 1.0 - own_hidden
    # A target with score 0 ties with every item that has none.
    equal = np.where(own > 0, ties - own_there, unseen - positive - 1)
    return 1 + higher + equal / 2
