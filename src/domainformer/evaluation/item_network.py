"""The next-item Transformer as a contestant, alone and together with what counts know.

::

    z = log p(network) + Σ_m w_m · log(1 + score_m / c_m)        m: transition counts, EASE

The sum of logarithms is a product of experts: an item needs the network's consent, and gains where
it has been seen to follow. Weights w and scales c are chosen on the validation items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.config import build
from domainformer.data.item_histories import ItemHistories
from domainformer.errors import ArtifactError, DataError
from domainformer.evaluation.item_baselines import ItemModel, ranking_figures
from domainformer.evaluation.item_contestants import (
    EaseItems,
    ItemContestant,
    Learned,
    TransitionItems,
)
from domainformer.evaluation.item_data import ItemData
from domainformer.evaluation.item_search import coordinate_descent
from domainformer.inference.items import ItemRecommender, hide_seen
from domainformer.models.item_transformer import ItemAttributes
from domainformer.training.items import fit_items
from domainformer.training.items_config import ItemsConfig

Floats = npt.NDArray[np.float32]
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
SCALES = (0.01, 0.03, 0.1, 0.3)
_ROUNDS = 2


@dataclass(frozen=True)
class AttributeTable:
    """Where the attributes of items are: a Parquet file with a row per item.

    Args:
        path: The file; a relative one is looked for below the folder of the public tables, too.
        item: Its column of items, as in the task.
        column: Its column of lists of attributes.
    """

    path: str
    item: str
    column: str

    def read(self, catalogue: Sequence[Any]) -> ItemAttributes:
        """The attributes of the items in the order of a catalogue; none where it has no row.

        Raises:
            ArtifactError: There is no such file.
            DataError: It lacks a column, has an item twice, or knows no item of the catalogue.
        """
        from domainformer.evaluation.public_tasks import data_folder

        path = Path(self.path)
        if not path.is_file() and not path.is_absolute():
            path = data_folder() / path
        if not path.is_file():
            raise ArtifactError("there is no table of attributes", where=str(path))
        frame = pl.read_parquet(path)
        for name in (self.item, self.column):
            if name not in frame.columns:
                raise DataError(f"there is no column {name!r}", where=str(path))
        if frame[self.item].is_duplicated().any():
            raise DataError("an item has two rows of attributes", where=str(path))
        sets = dict(zip(frame[self.item].to_list(), frame[self.column].to_list(), strict=True))
        found = [sets.get(item) for item in catalogue]
        return ItemAttributes.of(found)


@dataclass(frozen=True)
class NextItems(ItemContestant):
    """The item Transformer; ``refit``, ``exclude_seen`` and ``k`` as for all contestants.

    Args:
        settings: Values of :class:`~domainformer.training.ItemsConfig`.
        attributes: Attributes of the items, if there are any.
        models: So many networks, of seeds that follow each other, whose probabilities are averaged.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    attributes: AttributeTable | None = None
    models: int = 1

    def learn(self, data: ItemData, seed: int) -> Learned:
        """Train each network and keep its best epoch; a refit ends after as many."""
        found = None if self.attributes is None else self.attributes.read(data.catalogue)
        configs = [
            build(ItemsConfig, {**self.settings, "seed": seed + place})
            for place in range(self.models)
        ]
        fits = [
            fit_items(
                data.train,
                config,
                attributes=found,
                validation=(data.shown, data.validation),
                exclude_seen=data.exclude_seen,
            )
            for config in configs
        ]

        def refit(histories: ItemHistories) -> ItemModel:
            again = [
                fit_items(histories, config, attributes=found, stop_after=fit.epoch).model
                for config, fit in zip(configs, fits, strict=True)
            ]
            return NetworkScores(ItemRecommender(again))

        chosen = {"epochs": [fit.epoch for fit in fits], "curves": [fit.curve for fit in fits]}
        return Learned(NetworkScores(ItemRecommender([fit.model for fit in fits])), refit, chosen)


@dataclass(frozen=True, eq=False)
class NetworkScores:
    """A recommender as an item model: its scores are log-probabilities."""

    recommender: ItemRecommender

    def scores(self, histories: ItemHistories) -> Floats:
        """``[users, items]``."""
        return self.recommender.log_probabilities(histories)


@dataclass(frozen=True)
class ExpertWeights:
    """Weights and scales of the counts in an :class:`ExpertProduct`, one by one for coordinates.

    Args:
        transitions: Weight of the transition counts.
        transition_scale: Scores well above it count by their logarithm, those below it linearly.
        ease: Weight of EASE.
        ease_scale: As for the transitions.
    """

    transitions: float = 1.0
    transition_scale: float = 0.1
    ease: float = 0.0
    ease_scale: float = 0.1

    @property
    def pairs(self) -> tuple[tuple[float, float], ...]:
        """Weight and scale of each."""
        return (self.transitions, self.transition_scale), (self.ease, self.ease_scale)


@dataclass(frozen=True, eq=False)
class ExpertProduct:
    """``log p + Σ w · log(1 + score / c)``; negative scores count as 0.

    Args:
        network: Gives log-probabilities.
        experts: Transition counts, and EASE where it takes part.
        weights: Their weights and scales.
    """

    network: ItemModel
    experts: Sequence[ItemModel]
    weights: ExpertWeights

    def scores(self, histories: ItemHistories) -> Floats:
        """``[users, items]``."""
        return combined(
            self.network.scores(histories),
            [expert.scores(histories) for expert in self.experts],
            self.weights,
        )


def combined(log_p: Floats, experts: Sequence[Floats], weights: ExpertWeights) -> Floats:
    """The scores of an :class:`ExpertProduct` from those of its parts.

    Example:
        >>> weights = ExpertWeights(transitions=1.0, transition_scale=1.0)
        >>> combined(np.zeros((1, 3)), [np.array([[0.0, 1.0, -4.0]])], weights).round(2).tolist()
        [[0.0, 0.69, 0.0]]
    """
    total = log_p.copy()
    for scores, (weight, scale) in zip(experts, weights.pairs, strict=False):
        if weight:
            total += weight * np.log1p(np.maximum(scores, 0) / scale)
    return total


@dataclass(frozen=True)
class NetworkAndCounts(ItemContestant):
    """The network, transition counts and (if given) EASE; weights by the validation items.

    Args:
        network: The network.
        transitions: The counts.
        ease: EASE; None leaves it out (it inverts a matrix of items × items).
        choose_by: Weights are chosen by so many validation items; None: all.
    """

    network: NextItems = field(default_factory=NextItems)
    transitions: TransitionItems = field(default_factory=TransitionItems)
    ease: EaseItems | None = None
    choose_by: int | None = 4000

    @property
    def chooses_by(self) -> int | None:
        """See the class."""
        return self.choose_by

    def learn(self, data: ItemData, seed: int) -> Learned:
        """Learn each part, then the weights."""
        counts = [part for part in (self.transitions, self.ease) if part is not None]
        parts = [part.learn(data, seed) for part in (self.network, *counts)]
        return join(data, parts)


def join(data: ItemData, parts: Sequence[Learned]) -> Learned:
    """A network and counts that were learned on the same data, with weights by validation.

    Args:
        data: What they were learned on.
        parts: The network, transition counts, and EASE where it takes part.
    """
    weights, figure = choose_weights(data, [part.model for part in parts])

    def product(models: Sequence[ItemModel]) -> ItemModel:
        return ExpertProduct(models[0], models[1:], weights)

    def refit(histories: ItemHistories) -> ItemModel:
        return product([part.refit(histories) for part in parts])

    chosen = {"weights": vars(weights), "validation": figure, "parts": [p.chosen for p in parts]}
    return Learned(product([part.model for part in parts]), refit, chosen)


def choose_weights(data: ItemData, models: Sequence[ItemModel]) -> tuple[ExpertWeights, float]:
    """Weights with the highest NDCG@10 of the validation items, and that figure."""
    users = data.choosers
    shown, target = data.train.take(users), data.validation[users]
    log_p, *experts = [model.scores(shown) for model in models]
    row = np.arange(len(users))
    if data.exclude_seen:
        own = log_p[row, target]
        hide_seen(log_p, shown)
        log_p[row, target] = own

    def figure(weights: ExpertWeights) -> float:
        scores = combined(log_p, experts, weights)
        own = scores[row, target][:, None]
        ranks = 1 + (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2
        return ranking_figures(ranks)["ndcg@10"]

    grid: dict[str, Sequence[float]] = {"transitions": WEIGHTS, "transition_scale": SCALES}
    if len(experts) > 1:
        grid |= {"ease": WEIGHTS, "ease_scale": SCALES}
    chosen: tuple[ExpertWeights, float] = coordinate_descent(
        ExpertWeights(), grid, figure, rounds=_ROUNDS
    )
    return chosen
