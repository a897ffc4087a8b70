"""Next-item models as contestants: they read a task's histories, choose by its validation items.

::

    valid examples ─▶ ItemData: histories (train) and the item after each (validation)
                        │ learn: fit on train, choose by validation
                        ▼
                      refit with what was chosen on train + validation items (refit: true)
                        ▼
    test examples ─▶ history, the validation item included ─▶ the k best items

Refitting is open to every contestant, counts and networks alike: nothing of the test item is known
to any of them, and the newest transitions are worth the most. Whether it was done is part of the
settings, so that a table can show both.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data.item_histories import ItemHistories
from domainformer.evaluation.item_baselines import (
    Ease,
    ItemModel,
    Popularity,
    Transitions,
    TransitionSettings,
)
from domainformer.evaluation.item_data import ItemData, read_histories
from domainformer.evaluation.item_search import tune_ease, tune_transitions
from domainformer.evaluation.tasks import Task
from domainformer.inference.items import best_of, hide_seen

Ints = npt.NDArray[np.int64]
_BLOCK_USERS = 512


@dataclass(frozen=True, eq=False)
class Learned:
    """A model that was fitted on the training part, and how to fit it on more.

    Args:
        model: Fitted on ``data.train``; hyper-parameters chosen by the validation items.
        refit: Fits it with what was chosen on other histories.
        chosen: What was chosen (JSON-able).
    """

    model: ItemModel
    refit: Callable[[ItemHistories], ItemModel]
    chosen: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class FittedItems:
    """A fitted next-item model of a task.

    Args:
        model: Scores all items.
        exclude_seen: Items of the history are not ranked.
        k: Length of the lists that it predicts.
        chosen: What was chosen on the validation items.
    """

    model: ItemModel
    exclude_seen: bool
    k: int
    chosen: dict[str, Any] = field(default_factory=dict)

    def predict(self, task: Task, examples: pl.DataFrame) -> Ints:
        """The k best items of each example, best first, int64 ``[n, k]``."""
        histories = read_histories(task, examples)
        k = min(self.k, histories.n_items)
        found = np.empty((histories.n_users, k), np.int64)
        for start in range(0, histories.n_users, _BLOCK_USERS):
            users = np.arange(start, min(start + _BLOCK_USERS, histories.n_users))
            some = histories.take(users)
            scores = self.model.scores(some)
            if self.exclude_seen:
                hide_seen(scores, some)
            found[users], _ = best_of(scores, k)
        return found


@dataclass(frozen=True)
class ItemContestant:
    """What next-item contestants share.

    Args:
        refit: Fit again on training and validation items once all is chosen.
        exclude_seen: Items of the history are not ranked; None: where no history has any twice.
        k: Length of the lists that are predicted.
    """

    refit: bool = True
    exclude_seen: bool | None = None
    k: int = 100

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedItems:
        """Learn, choose, and fit again where asked for."""
        data = ItemData.of(
            task,
            examples_train,
            examples_valid,
            exclude_seen=self.exclude_seen,
            choose_by=self.chooses_by,
            seed=seed,
        )
        learned = self.learn(data, seed)
        model = learned.refit(data.whole) if self.refit else learned.model
        return FittedItems(model, data.exclude_seen, self.k, learned.chosen)

    @property
    def chooses_by(self) -> int | None:
        """How many validation items are looked at; None: all."""
        return None

    @abstractmethod
    def learn(self, data: ItemData, seed: int) -> Learned:
        """Fit on the training part, choose by the validation items."""


@dataclass(frozen=True)
class PopularItems(ItemContestant):
    """The most frequent items, the same for all; ``k``, ``refit`` as for all contestants."""

    def learn(self, data: ItemData, seed: int) -> Learned:
        """Count."""
        return Learned(Popularity.fit(data.train), Popularity.fit)


@dataclass(frozen=True)
class TransitionItems(ItemContestant):
    """Transition counts, tuned.

    Args:
        settings: How they are counted and read; None: chosen by validation items.
        choose_by: So many validation items are looked at for that; None: all.
    """

    settings: TransitionSettings | None = None
    choose_by: int | None = 6000

    @property
    def chooses_by(self) -> int | None:
        """See the class."""
        return self.choose_by

    def learn(self, data: ItemData, seed: int) -> Learned:
        """Choose the settings, where none are given, and count."""
        settings = self.settings or tune_transitions(data)[0]

        def count(histories: ItemHistories) -> ItemModel:
            return Transitions.fit(histories, settings)

        return Learned(count(data.train), count, vars(settings))


@dataclass(frozen=True)
class EaseItems(ItemContestant):
    """EASE; penalty and decay of the history are chosen by validation items.

    Args:
        penalties: Penalties that are tried; each needs an inverse of items × items.
        decayed: Choose a decay of the history, too; False: the published model.
        choose_by: So many validation items are looked at; None: all.
    """

    penalties: Sequence[float] = (100.0, 400.0)
    decayed: bool = True
    choose_by: int | None = 6000

    @property
    def chooses_by(self) -> int | None:
        """See the class."""
        return self.choose_by

    def learn(self, data: ItemData, seed: int) -> Learned:
        """Invert once per penalty and choose."""
        plain, decayed, found = tune_ease(data, self.penalties)
        model = decayed if self.decayed else plain
        chosen = {"penalty": found["penalty"], "decay": model.decay}

        def fit(histories: ItemHistories) -> ItemModel:
            return Ease.fit(histories, **chosen)

        return Learned(model, fit, chosen)
