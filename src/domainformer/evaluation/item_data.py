"""What next-item models may read of a task: histories by number, and the items that follow.

The training part ends before each entity's validation item. The whole part ends with it: what a
model may be fitted on again once all is chosen, and nothing of the test item is in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data.item_histories import ItemHistories
from domainformer.errors import DataError
from domainformer.evaluation.item_baselines import ItemModel, ranking_figures, target_ranks
from domainformer.evaluation.tasks import ENTITY, EXAMPLE, Task

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ItemData:
    """What a next-item model may learn from; an :class:`~.item_search.ItemSplit`.

    Args:
        train: Histories; those with a validation item come first.
        validation: The item after each of the first histories.
        catalogue: The items in the order of their numbers.
        exclude_seen: Items of the history are not ranked.
        choose_by: Validation items that count models choose by; None: all.
        seed: Of the draw of these.
    """

    train: ItemHistories
    validation: Ints
    catalogue: Sequence[Any]
    exclude_seen: bool
    choose_by: int | None = None
    seed: int = 0

    @classmethod
    def of(
        cls,
        task: Task,
        examples_train: pl.DataFrame,
        examples_valid: pl.DataFrame,
        *,
        exclude_seen: bool | None = None,
        choose_by: int | None = None,
        seed: int = 0,
    ) -> ItemData:
        """Read the training part of a task.

        An entity with a validation example gives the history before it, any other the history and
        label of its last training example.

        Args:
            task: A task of kind next_item.
            examples_train: Its training examples.
            examples_valid: Its validation examples.
            exclude_seen: None: True where no history has an item twice, validation items counted.
            choose_by: See the class.
            seed: See the class.

        Raises:
            DataError: The task is of another kind, or there are no validation examples.
        """
        if not examples_valid.height:
            raise DataError("there are no validation examples", where=f"task {task.name!r}")
        others = examples_train.filter(
            ~pl.col(ENTITY).is_in(examples_valid[ENTITY].unique().implode())
        )
        last = others.sort(EXAMPLE).unique(ENTITY, keep="last", maintain_order=True)
        shown, target = read_histories(task, examples_valid), task.labels(examples_valid)
        train = shown
        if last.height:
            more = append_items(read_histories(task, last), task.labels(last))
            train = ItemHistories(
                np.concatenate([shown.items, more.items]),
                np.concatenate([shown.offsets, shown.offsets[-1] + more.offsets[1:]]),
                shown.n_items,
            )
        if exclude_seen is None:
            exclude_seen = not _repeats(append_items(shown, target))
        return cls(train, target, task.classes, exclude_seen, choose_by, seed)

    @property
    def choosers(self) -> Ints:
        """Places of the validation items that count models choose by."""
        known = len(self.validation)
        if self.choose_by is None or self.choose_by >= known:
            return np.arange(known)
        drawn = np.random.default_rng(self.seed).permutation(known)[: self.choose_by]
        return np.sort(drawn)

    @cached_property
    def shown(self) -> ItemHistories:
        """The histories that have a validation item."""
        return self.train.take(np.arange(len(self.validation)))

    @cached_property
    def whole(self) -> ItemHistories:
        """All histories with their validation item: what a refit learns from."""
        rest = self.train.take(np.arange(len(self.validation), self.train.n_users))
        grown = append_items(self.shown, self.validation)
        return ItemHistories(
            np.concatenate([grown.items, rest.items]),
            np.concatenate([grown.offsets, grown.offsets[-1] + rest.offsets[1:]]),
            self.train.n_items,
        )

    def validate(self, model: ItemModel) -> float:
        """NDCG@10 of the validation items."""
        users = self.choosers
        ranks = target_ranks(
            model,
            self.train.take(users),
            self.validation[users],
            exclude_seen=self.exclude_seen,
        )
        return ranking_figures(ranks)["ndcg@10"]


def read_histories(task: Task, examples: pl.DataFrame) -> ItemHistories:
    """The items before each example's cut, one history per example in their order.

    Raises:
        DataError: The task is not one of next items.
    """
    column = task.record.get("item")
    if task.kind != "next_item" or column not in task.table.frame.columns:
        raise DataError(
            f"the task {task.name!r} is not about next items",
            why=f"its kind is {task.kind!r}, its record names the item column {column!r}",
            next_step="build it with next_item_task",
        )
    shown = task.history(examples)
    numbers = shown.frame[column].replace_strict(
        pl.Series(task.classes, dtype=shown.frame[column].dtype),
        np.arange(task.n_classes),
        return_dtype=pl.Int64,
    )
    # Examples without a history have no rows, and histories are sorted by example.
    places = np.searchsorted(shown.entity_ids.to_numpy(), examples[EXAMPLE].to_numpy())
    has = np.isin(examples[EXAMPLE].to_numpy(), shown.entity_ids.to_numpy())
    lengths = np.zeros(examples.height, np.int64)
    lengths[has] = shown.lengths[places[has]]
    starts = np.zeros(examples.height, np.int64)
    starts[has] = shown.offsets[:-1][places[has]]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rows = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
    return ItemHistories(numbers.to_numpy()[rows], offsets, task.n_classes)


def append_items(histories: ItemHistories, items: Ints) -> ItemHistories:
    """The histories, each with one more item.

    Example:
        >>> histories = ItemHistories(np.array([3, 1, 0]), np.array([0, 2, 2, 3]), 5)
        >>> grown = append_items(histories, np.array([4, 4, 2]))
        >>> grown.items.tolist(), grown.offsets.tolist()
        ([3, 1, 4, 4, 0, 2], [0, 3, 4, 6])
    """
    grown = np.insert(histories.items, histories.offsets[1:], items)
    offsets = histories.offsets + np.arange(len(histories.offsets))
    return ItemHistories(grown, offsets, histories.n_items)


def _repeats(histories: ItemHistories) -> bool:
    """Whether anyone has an item twice."""
    users = np.repeat(np.arange(histories.n_users), histories.lengths)
    pairs = users * histories.n_items + histories.items
    return len(np.unique(pairs)) < len(pairs)
