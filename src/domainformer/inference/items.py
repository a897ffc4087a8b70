"""Recommending from a next-item model: all items are scored, the best are named.

::

    table of events ─▶ items by number ─▶ ItemTransformer(s) ─▶ log p of every item ─▶ the k best
                                          (several: their probabilities are averaged)

    items/
      items.json                    catalogue's column, models, settings, record
      catalogue.parquet             the items, in the order of their numbers
      model-0.safetensors, …        weights; attributes are buffers among them
      manifest.json                 size and SHA-256 of every file, written last
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from domainformer.artifacts import read_facts, staged_directory, verify_directory, write_json
from domainformer.data import EventTable
from domainformer.data.item_histories import ItemHistories
from domainformer.errors import DataError, InputError
from domainformer.models.configuration_domain_transformer import DomainTransformerConfig
from domainformer.models.item_transformer import (
    ItemAttributes,
    ItemTransformer,
    padded_histories,
)
from domainformer.version import __version__

ITEMS_FILE = "items.json"
CATALOGUE_FILE = "catalogue.parquet"
FORMAT_VERSION = 1
RANK, LOG_PROBABILITY = "rank", "log_probability"
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_BATCH_USERS = 256


@dataclass(frozen=True, eq=False)
class ItemRecommender:
    """Next-item models that read tables.

    Args:
        models: In evaluation mode, all of one catalogue.
        catalogue: The items in the order of their numbers; its name is the table's column. None:
            the numbers themselves.
        exclude_seen: Items of the history are not recommended.
        record: Plain data of the training.

    Raises:
        DataError: The models or the catalogue have different numbers of items, or items repeat.
    """

    models: Sequence[ItemTransformer]
    catalogue: pl.Series | None = None
    exclude_seen: bool = False
    record: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {model.n_items for model in self.models}
        if self.catalogue is not None:
            sizes.add(self.catalogue.n_unique())
            sizes.add(len(self.catalogue))
        if len(sizes) != 1:
            raise DataError(
                "models and catalogue do not fit",
                why=f"their numbers of (different) items are {sorted(sizes)}",
            )

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return self.models[0].n_items

    def blocks(self, histories: ItemHistories) -> Iterator[tuple[Ints, Floats]]:
        """Users and their log-probabilities, block by block; users of like length together.

        Yields:
            int64 ``[b]`` and float32 ``[b, items]``. Seen items have their probability here.
        """
        order = np.argsort(histories.lengths, kind="stable")
        for start in range(0, len(order), _BATCH_USERS):
            users = order[start : start + _BATCH_USERS]
            yield users, self._log_probabilities(histories, users)

    def log_probabilities(self, histories: ItemHistories) -> Floats:
        """Log-probability of every item as the next one, ``[users, items]``."""
        found = np.empty((histories.n_users, self.n_items), np.float32)
        for users, values in self.blocks(histories):
            found[users] = values
        return found

    def best(self, histories: ItemHistories, k: int) -> tuple[Ints, Floats]:
        """The k likeliest items of each user, best first.

        Returns:
            Numbers ``[users, k]`` and log-probabilities ``[users, k]``; −inf where an item was
            seen and is only there because too few others are left.

        Raises:
            InputError: k is not between 1 and the number of items.
        """
        if not 1 <= k <= self.n_items:
            raise InputError(f"k is {k}; it must be from 1 to {self.n_items}, the number of items")
        items = np.empty((histories.n_users, k), np.int64)
        values = np.empty((histories.n_users, k), np.float32)
        for users, scores in self.blocks(histories):
            if self.exclude_seen:
                hide_seen(scores, histories.take(users))
            items[users], values[users] = best_of(scores, k)
        return items, values

    def recommend(self, table: EventTable, k: int = 10) -> pl.DataFrame:
        """The k likeliest next items of every entity.

        Events whose item is not in the catalogue are passed over.

        Args:
            table: Histories in order; it has the catalogue's column.
            k: How many.

        Returns:
            The entity column, ``rank`` (from 1), the item column, ``log_probability``; fewer than k
            rows where seen items are excluded and too few others are left.

        Raises:
            DataError: The table lacks the item column, or it is of another type.
            InputError: As in :meth:`best`.
        """
        catalogue = self._named()
        items, values = self.best(item_numbers(table, catalogue), k)
        frame = pl.DataFrame(
            {
                table.entity: table.entity_ids.gather(np.repeat(np.arange(len(items)), k)),
                RANK: np.tile(np.arange(1, k + 1), len(items)),
                catalogue.name: catalogue.gather(items.ravel()),
                LOG_PROBABILITY: values.ravel(),
            }
        )
        return frame.filter(pl.col(LOG_PROBABILITY).is_finite())

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write models and catalogue into one folder, whole or not at all.

        Raises:
            ArtifactError: The folder exists already, or cannot be written.
        """
        folder, catalogue = Path(folder), self._named()
        facts = {
            "format": FORMAT_VERSION,
            "domainformer": __version__,
            "models": [model.config.to_dict() for model in self.models],
            "exclude_seen": self.exclude_seen,
            "record": self.record,
        }
        with staged_directory(folder, overwrite=overwrite, meta={"kind": "items"}) as staging:
            for place, model in enumerate(self.models):
                weights = {name: one.contiguous() for name, one in model.state_dict().items()}
                save_file(weights, staging / f"model-{place}.safetensors")
            catalogue.to_frame().write_parquet(staging / CATALOGUE_FILE)
            write_json(staging / ITEMS_FILE, facts)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read a folder that :meth:`save` has written.

        Raises:
            ArtifactError: It is no such folder, or incomplete, damaged or of a newer version.
        """
        folder = Path(folder)
        remedy = "give a folder that ItemRecommender.save has written"
        facts = read_facts(folder, ITEMS_FILE, kind="items", version=FORMAT_VERSION, remedy=remedy)
        verify_directory(folder)
        models = [
            _model(config, load_file(folder / f"model-{place}.safetensors"))
            for place, config in enumerate(facts["models"])
        ]
        catalogue = pl.read_parquet(folder / CATALOGUE_FILE).to_series()
        return cls(models, catalogue, facts["exclude_seen"], facts["record"])

    def _named(self) -> pl.Series:
        if self.catalogue is None:
            raise DataError(
                "the items have no names",
                next_step="give the recommender its catalogue, named like the table's column",
            )
        return self.catalogue

    @torch.inference_mode()
    def _log_probabilities(self, histories: ItemHistories, users: Ints) -> Floats:
        starts, ends = histories.offsets[users], histories.offsets[users + 1]
        each = []
        for model in self.models:
            ids, mask = padded_histories(
                histories.items, starts, ends, start_id=model.start_id, context=model.context
            )
            table = model.item_table()
            last = model.hidden(ids, mask, table)[torch.arange(len(users)), mask.sum(1) - 1]
            logits = F.linear(last, table[: model.n_items], model.bias)
            each.append(logits.float().log_softmax(1))
        if len(each) == 1:
            return np.asarray(each[0].numpy(), np.float32)
        mean = torch.stack(each).logsumexp(0) - np.log(len(each))
        return np.asarray(mean.numpy(), np.float32)


def item_numbers(table: EventTable, catalogue: pl.Series) -> ItemHistories:
    """The histories of a table by number; events with an item out of the catalogue are left out.

    Raises:
        DataError: The table lacks the catalogue's column, or it is of another type.
    """
    name = catalogue.name
    if name not in table.frame.columns:
        raise DataError(f"there is no column {name!r}", where=repr(table))
    column = table.frame[name]
    if column.dtype != catalogue.dtype:
        raise DataError(
            f"the column {name!r} is {column.dtype}, the catalogue {catalogue.dtype}",
            next_step="cast the column",
        )
    known = column.replace_strict(
        catalogue, np.arange(len(catalogue)), default=None, return_dtype=pl.Int64
    )
    kept = known.is_not_null().to_numpy()
    offsets = np.concatenate([[0], np.cumsum(kept)])[table.offsets].astype(np.int64)
    return ItemHistories(known.drop_nulls().to_numpy(), offsets, len(catalogue))


def hide_seen(scores: npt.NDArray[Any], histories: ItemHistories) -> None:
    """Set the scores of each user's own items to −inf, in place."""
    rows = np.repeat(np.arange(histories.n_users), histories.lengths)
    scores[rows, histories.items] = -np.inf


def best_of(scores: npt.NDArray[Any], k: int) -> tuple[Ints, npt.NDArray[Any]]:
    """The k highest scores of each row, best first; of equal ones the lower number.

    Example:
        >>> items, values = best_of(np.array([[0.1, 0.7, 0.7, 0.2]]), 3)
        >>> items.tolist(), values.tolist()
        ([[1, 2, 3]], [[0.7, 0.7, 0.2]])
    """
    border = -np.partition(-scores, k - 1, axis=1)[:, k - 1, None]
    above, level = scores > border, scores == border
    room = k - above.sum(axis=1, keepdims=True)
    kept = above | (level & (np.cumsum(level, axis=1, dtype=np.int32) <= room))
    near = np.nonzero(kept)[1].reshape(-1, k)
    values = np.take_along_axis(scores, near, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    chosen = np.take_along_axis(near, order, axis=1)
    return chosen.astype(np.int64), np.take_along_axis(values, order, axis=1)


def _model(config: dict[str, Any], weights: dict[str, torch.Tensor]) -> ItemTransformer:
    attributes = None
    if "attribute_values" in weights:
        values = weights["attribute_values"].numpy()
        offsets = np.append(weights["attribute_offsets"].numpy(), len(values))
        attributes = ItemAttributes(values, offsets, len(weights["attribute_table"]))
    model = ItemTransformer(DomainTransformerConfig.from_dict(config), attributes)
    model.load_state_dict(weights)
    return model.eval()
