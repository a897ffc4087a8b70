"""Training a next-item model: every position of every history learns what comes after it.

::

    START  a  b  c  d       position of b:  c with weight 1, d with weight gap_decay, …
                            (reach 1: c alone, the usual objective)

Several targets per position are what transition counts over several gaps are to those of
neighbours: where histories are short and their order is coarse, they see each pair more often.
The loss is the full softmax over the catalogue, or a sampled one (``models/item_softmax.py``).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from domainformer.data.item_histories import ItemHistories
from domainformer.errors import DataError
from domainformer.inference.items import ItemRecommender
from domainformer.models.configuration_domain_transformer import DomainTransformerConfig
from domainformer.models.item_softmax import item_cross_entropy, sampled_item_cross_entropy
from domainformer.models.item_transformer import (
    ItemAttributes,
    ItemTransformer,
    padded_histories,
)
from domainformer.training.items_config import ItemsConfig

Ints = npt.NDArray[np.int64]
CUTOFF = 10
_BETAS = (0.9, 0.98)


@dataclass(frozen=True, eq=False)
class ItemsFit:
    """A trained next-item model and how it came about.

    Args:
        model: In evaluation mode, as it was after ``epoch``.
        epoch: Epochs that it was trained for: the best by validation, or all.
        curve: One entry per epoch: loss, seconds, validation figure where it was evaluated.
    """

    model: ItemTransformer
    epoch: int
    curve: list[dict[str, float]]


def fit_items(
    histories: ItemHistories,
    config: ItemsConfig | None = None,
    *,
    attributes: ItemAttributes | None = None,
    validation: tuple[ItemHistories, Ints] | None = None,
    exclude_seen: bool = False,
    stop_after: int | None = None,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> ItemsFit:
    """Train on histories; stop by the items that come after others.

    Args:
        histories: What may be learned from.
        config: Settings.
        attributes: Attributes of the items.
        validation: Histories and the item that follows each; the weights with the highest NDCG@10
            are kept, and ``patience`` counts. None: the last weights are kept.
        exclude_seen: Items of the history are not ranked in the validation.
        stop_after: End after so many epochs of the schedule (a refit on more data ends where the
            first fit was best).
        progress: Called with each entry of the curve.

    Raises:
        DataError: No history has an item, the validation is empty, or the loss is no number.
    """
    config = config or ItemsConfig()
    if not len(histories.items):
        raise DataError("there is nothing to learn from", why="no history has an item")
    if validation is not None and not validation[0].n_users:
        raise DataError(
            "there is nothing to stop by",
            why="the validation has no history",
            next_step="give the item that follows some histories, or leave validation out",
        )
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    try:
        torch.manual_seed(config.seed)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        run = _Run(histories, config, attributes)
        return run.fit(validation, exclude_seen, stop_after, progress)
    finally:
        torch.random.set_rng_state(state)
        torch.set_num_threads(threads)


def item_batches(lengths: Ints, size: int, rng: np.random.Generator) -> list[Ints]:
    """Users in batches of similar length, in random order; those without an item are left out.

    Example:
        >>> batches = item_batches(np.array([5, 1, 5, 1, 0]), 2, np.random.default_rng(0))
        >>> sorted(sorted(batch.tolist()) for batch in batches)
        [[0, 2], [1, 3]]
    """
    users = np.flatnonzero(lengths > 0)
    users = users[np.argsort(lengths[users] + rng.random(len(users)), kind="stable")]
    batches = [users[start : start + size] for start in range(0, len(users), size)]
    return [batches[place] for place in rng.permutation(len(batches))]


def future_targets(
    items: Ints, places: Ints, ends: Ints, weights: tuple[float, ...]
) -> tuple[Ints, npt.NDArray[np.float32]]:
    """The items from each place on, and their shares.

    Args:
        items: Items of all histories.
        places: Where the next item stands, int64 [N].
        ends: One past the last item of that history, int64 [N].
        weights: Of the next item, of the one after it, and so on; beyond the end it is 0.

    Returns:
        int64 [N, K] and float32 [N, K], whose rows sum to 1.

    Example:
        >>> targets, shares = future_targets(np.array([7, 8, 9]), np.array([1, 2]),
        ...                                  np.array([3, 3]), (1.0, 0.5))
        >>> targets.tolist(), (shares * 3).round().tolist()
        ([[8, 9], [9, 9]], [[2.0, 1.0], [3.0, 0.0]])
    """
    each = places[:, None] + np.arange(len(weights))
    inside = each < ends[:, None]
    shares = inside * np.array(weights)
    shares /= shares.sum(axis=1, keepdims=True)
    return items[np.where(inside, each, places[:, None])], shares.astype(np.float32)


class _Run:
    """One training: the model, its optimizer and the draws."""

    def __init__(
        self, histories: ItemHistories, config: ItemsConfig, attributes: ItemAttributes | None
    ) -> None:
        self.config, self.histories = config, histories
        self.rng = np.random.default_rng(config.seed)
        self.model = ItemTransformer(backbone_config(histories.n_items, config), attributes)
        self.optimizer = _optimizer(self.model, config)
        per_epoch = -(-int((histories.lengths > 0).sum()) // config.batch_users)
        self.steps, self.step = config.epochs * per_epoch, 0
        counts = np.bincount(histories.items, minlength=histories.n_items) + 1.0
        chances = counts**config.negative_power
        self.chances = chances / chances.sum()
        # That an item is among so many draws with replacement.
        drawn = -np.expm1((config.negatives or 1) * np.log1p(-np.minimum(self.chances, 0.999)))
        self.log_expected = torch.from_numpy(np.log(drawn)).float()

    def fit(
        self,
        validation: tuple[ItemHistories, Ints] | None,
        exclude_seen: bool,
        stop_after: int | None,
        progress: Callable[[dict[str, float]], None] | None,
    ) -> ItemsFit:
        config, curve, started = self.config, [], time.perf_counter()
        best, kept, at, waited = -1.0, None, 0, 0
        for epoch in range(1, min(stop_after or config.epochs, config.epochs) + 1):
            entry = {"epoch": epoch, "loss": self._epoch()}
            if validation is not None and (
                epoch % config.evaluate_every == 0 or epoch == config.epochs
            ):
                found = self._evaluate(*validation, exclude_seen)
                entry |= found
                waited = 0 if found["ndcg@10"] > best else waited + 1
                if waited == 0:
                    best, at, kept = found["ndcg@10"], epoch, _weights(self.model)
            entry["seconds"] = round(time.perf_counter() - started, 1)
            curve.append(entry)
            if progress is not None:
                progress(entry)
            if waited >= config.patience:
                break
        if kept is not None:
            self.model.load_state_dict(kept)
        return ItemsFit(self.model.eval(), at or epoch, curve)

    def _epoch(self) -> float:
        self.model.train()
        total = count = 0.0
        for users in item_batches(self._read, self.config.batch_users, self.rng):
            self.step += 1
            rate = self.config.learning_rate * self._rate()
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss, positions = self._loss(users)
            self.optimizer.zero_grad()
            loss.backward()
            if self.config.max_grad_norm:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_grad_norm)
            self.optimizer.step()
            total, count = total + loss.item() * positions, count + positions
        if not math.isfinite(total):
            raise DataError(
                "the loss is no number",
                where=f"step {self.step}",
                next_step="take a smaller learning_rate",
            )
        return round(total / count, 4)

    @property
    def _read(self) -> Ints:
        """Items of each history that are read: all but the last are inputs, all are targets."""
        return np.minimum(self.histories.lengths, self.model.context + 1)

    def _loss(self, users: Ints) -> tuple[torch.Tensor, int]:
        """The mean loss of the positions of some users, and how many these are."""
        config, histories, model = self.config, self.histories, self.model
        ends = histories.offsets[users + 1]
        # Where a history is longer than the context, START stands for what is left out.
        starts = ends - self._read[users]
        ids, mask = padded_histories(
            histories.items, starts, ends - 1, start_id=model.start_id, context=model.context
        )
        table = model.item_table()
        hidden = model.hidden(ids, mask, table)[mask.bool()]
        rows, steps = np.nonzero(mask.numpy())
        targets, shares = future_targets(
            histories.items, starts[rows] + steps, ends[rows], config.target_weights
        )
        goal, weights = torch.from_numpy(targets), torch.from_numpy(shares)
        catalogue = table[: model.n_items]
        if config.negatives is None:
            dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
            loss = item_cross_entropy(
                hidden,
                catalogue,
                model.bias,
                goal,
                weights,
                smoothing=config.smoothing,
                dtype=dtype,
            )
        else:
            drawn = np.unique(self.rng.choice(model.n_items, config.negatives, p=self.chances))
            loss = sampled_item_cross_entropy(
                hidden,
                catalogue,
                model.bias,
                goal,
                weights,
                torch.from_numpy(drawn),
                self.log_expected,
            )
        return loss, len(hidden)

    def _rate(self) -> float:
        """Share of the peak learning rate: a linear rise, then half a cosine."""
        rise = min(1.0, self.step / max(1, self.config.warmup_steps))
        return rise * 0.5 * (1 + math.cos(math.pi * (self.step - 1) / self.steps))

    def _evaluate(
        self, histories: ItemHistories, targets: Ints, exclude_seen: bool
    ) -> dict[str, float]:
        recommender = ItemRecommender([self.model.eval()], exclude_seen=exclude_seen)
        best, _ = recommender.best(histories, min(CUTOFF, histories.n_items))
        _, rank = np.nonzero(best == targets[:, None])
        n = histories.n_users
        return {"recall@10": len(rank) / n, "ndcg@10": float((1 / np.log2(2 + rank)).sum()) / n}


def backbone_config(n_items: int, config: ItemsConfig) -> DomainTransformerConfig:
    """The backbone for a catalogue: its tokens are the items and START."""
    return DomainTransformerConfig(
        vocab_size=n_items + 1,
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        position_encoding=config.position_encoding,
        max_position_embeddings=config.context + 1,
        dropout=config.dropout,
        attention_dropout=config.dropout,
        initializer_range=config.initializer_range,
    )


def _optimizer(model: ItemTransformer, config: ItemsConfig) -> torch.optim.AdamW:
    matrices = [one for one in model.parameters() if one.ndim > 1]
    others = [one for one in model.parameters() if one.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=_BETAS)


def _weights(model: ItemTransformer) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
