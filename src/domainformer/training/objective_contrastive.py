"""Contrastive learning over slices of histories (CoLES).

Two random slices of one history tell of the same entity; slices of others do not::

    anna  e₁ e₂ e₃ e₄ e₅ e₆ e₇ e₈        bob   e₁ e₂ e₃ e₄ e₅ e₆
            [──── a₁ ───]                      [── b₁ ──]
                  [──── a₂ ────]                     [── b₂ ──]        near: a₁ a₂, b₁ b₂

A slice begins with BOS and holds whole events; its vector is the hidden state of its last token,
scaled to length 1: the same one that :func:`domainformer.embed` gives, so nothing but the backbone
is trained. The slices of an entity follow from (seed, epoch, entity, row) alone.

Source: Babaev et al., "CoLES: Contrastive learning for event sequences with self-supervision",
SIGMOD 2022, arXiv 2002.08232, algorithm 1 (slices) and section 3.3 (loss, hard negatives).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from domainformer.data.dataset import DomainSequenceDataset
from domainformer.data.packing import pack, plan_windows
from domainformer.data.store import TokenStore
from domainformer.data.tokens import Ints
from domainformer.models import Collator, pool_hidden
from domainformer.training.objective_base import COUNT, Objective, Reader, Row
from domainformer.training.objective_config import ContrastiveConfig

_NO_LIMIT = 1 << 60
_KEPT = ("input_ids", "attention_mask", "position_ids", "cu_seq_lens_q")


class SliceSampler:
    """Random slices of entities' histories, on event boundaries.

    Only events that the data set trains on (or scores) are taken, and of each entity the longest
    run of such events.

    Args:
        dataset: Where the events are, and which of them may be used.
        config: Lengths and number of slices.
    """

    def __init__(self, dataset: DomainSequenceDataset, config: ContrastiveConfig) -> None:
        self._dataset, self._config = dataset, config
        source = dataset.source
        self._shards = source.shards if isinstance(source, TokenStore) else (source,)
        runs = [self._runs(shard) for shard in self._shards]
        self._shard = np.repeat(np.arange(len(runs)), [len(start) for start, _ in runs])
        self._start = np.concatenate([start for start, _ in runs])
        self._stop = np.concatenate([stop for _, stop in runs])

    def _runs(self, shard: Any) -> tuple[Ints, Ints]:
        """First and last-plus-one event of each entity's longest run; equal where it has none."""
        roles = self._dataset.score_roles or self._dataset.train_roles
        select = None
        if shard.roles is not None and roles is not None:
            select = np.isin(np.asarray(shard.roles), roles)
        found = plan_windows(shard.event_offsets, shard.entity_offsets, _NO_LIMIT, select=select)
        start, stop = np.zeros((2, shard.n_entities), np.int64)
        by_length = np.argsort(found.event_stop - found.event_start, kind="stable")
        owner = found.entity[by_length]  # the longest comes last and stays
        start[owner], stop[owner] = found.event_start[by_length], found.event_stop[by_length]
        return start, stop

    def __call__(self, entity: int, row: int) -> list[Ints]:
        """Token ids of an entity's slices, BOS first; none where its history is too short."""
        config, data = self._config, self._dataset
        first, stop = int(self._start[entity]), int(self._stop[entity])
        if stop - first < config.min_events:
            return []
        rng = np.random.default_rng((data.seed, data.epoch, entity, row))
        longest = min(config.max_events, stop - first)
        lengths = rng.integers(config.min_events, longest, size=config.slices, endpoint=True)
        starts = first + rng.integers(0, stop - first - lengths, endpoint=True)
        return [self._slice(entity, a, a + n) for a, n in zip(starts, lengths, strict=True)]

    def _slice(self, entity: int, start: int, stop: int) -> Ints:
        shard = self._shards[self._shard[entity]]
        ends = np.asarray(shard.event_offsets[start : stop + 1])
        # What is too long for the context loses its last events, never a part of one.
        fitting = int(np.searchsorted(ends, ends[0] + self._dataset.context - 1, side="right")) - 1
        ids = shard.ids[ends[0] : ends[fitting]]
        return np.concatenate([[self._dataset.bos_id], ids]).astype(np.int64)


class ContrastiveObjective(Objective):
    """Slices of one history near each other, those of different histories apart.

    Args:
        config: Slices and loss.
        pad_id: The padding token's id.
        context: Tokens of a packed row.
        packed: Put several slices into one row.
    """

    name = "contrastive"

    def __init__(
        self, config: ContrastiveConfig, *, pad_id: int, context: int, packed: bool
    ) -> None:
        super().__init__()
        self._config, self._pad_id, self._context = config, pad_id, context
        self._collate = Collator(pad_id, packed=packed)
        self._packed = packed

    def reader(self, dataset: DomainSequenceDataset) -> Reader:
        """Slices of the entities of a row."""
        sampler = SliceSampler(dataset, self._config)

        def read(index: int, row: Row) -> Row:
            slices, owners = [], []
            for entity in np.unique(row["entity"]).tolist():
                drawn = sampler(entity, index)
                slices += drawn
                owners += [entity] * len(drawn)
            return {"contrastive_slices": slices, "contrastive_owners": owners}

        return read

    def batch(self, rows: Sequence[Mapping[str, Any]]) -> Row:
        """All slices of the batch, packed as its rows are."""
        slices = [ids for row in rows for ids in row["contrastive_slices"]]
        owners = np.array([o for row in rows for o in row["contrastive_owners"]], np.int64)
        terms = count_terms(owners, self._config)
        if not terms:
            return {f"contrastive{COUNT}": 0}
        lengths = np.array([len(ids) for ids in slices])
        if self._packed:
            packing = pack(lengths, self._context)
            places = [packing.row(index) for index in range(len(packing))]
        else:
            places = [np.array([index]) for index in range(len(slices))]
        made = self._collate([_row([slices[i] for i in place]) for place in places])
        return {
            f"contrastive{COUNT}": terms,
            "contrastive_owners": torch.from_numpy(owners[np.concatenate(places)]),
            **{f"contrastive_{key}": made[key] for key in _KEPT if key in made},
        }

    def loss(self, model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        """Encode the slices, and compare them."""
        inputs = {k: batch[f"contrastive_{k}"] for k in _KEPT if f"contrastive_{k}" in batch}
        states = model.base_model(**inputs, use_cache=False).last_hidden_state
        vectors = pool_hidden(states, inputs, how="last", pad_id=self._pad_id)
        with torch.autocast(vectors.device.type, enabled=False):  # small differences count
            return contrastive_sum(vectors, batch["contrastive_owners"], self._config)


def count_terms(owners: np.ndarray, config: ContrastiveConfig) -> int:
    """Number of terms of the loss of slices with these owners.

    ``margin`` counts pairs of one owner, and for each slice the negatives that it meets;
    ``info_nce`` counts ordered pairs of one owner. Without two owners there is nothing to learn.

    Example:
        >>> count_terms(np.array([7, 7, 9, 9]), ContrastiveConfig(hard_negatives=1))
        6
    """
    _, sizes = np.unique(owners, return_counts=True)
    if len(sizes) < 2:
        return 0
    ordered = int((sizes * (sizes - 1)).sum())
    if config.loss == "info_nce":
        return ordered
    others = len(owners) - sizes
    met = others if config.hard_negatives is None else np.minimum(others, config.hard_negatives)
    return ordered // 2 + int((sizes * met).sum())


def contrastive_sum(
    vectors: torch.Tensor, owners: torch.Tensor, config: ContrastiveConfig
) -> torch.Tensor:
    """Sum over the terms of the contrastive loss.

    ::

        margin     Σ_{i<j, same owner} d_ij²  +  Σ_i Σ_{j ∈ hard(i)} max(0, m − d_ij)²
        info_nce   Σ_{i≠j, same owner} −log [ e_ij / (e_ij + Σ_{n ∈ hard(i)} e_in) ],  e = exp(c/τ)

    with c the cosine, d² = 2 − 2c, and hard(i) the slices of other owners nearest to slice i.

    Args:
        vectors: One per slice, float [n, W].
        owners: Entity of each slice, int [n].
        config: Which loss.

    Returns:
        float32, a scalar.
    """
    unit = F.normalize(vectors.float(), dim=-1)
    cosines = unit @ unit.T
    same = owners[:, None] == owners[None, :]
    itself = torch.eye(len(owners), dtype=torch.bool, device=owners.device)
    negatives = cosines.masked_fill(same, -torch.inf)
    if config.hard_negatives is not None and config.hard_negatives < len(owners):
        negatives = negatives.topk(config.hard_negatives, dim=1).values
    if config.loss == "info_nce":
        pairs, positives = (same & ~itself), cosines / config.temperature
        against = (negatives / config.temperature).logsumexp(dim=1, keepdim=True)
        return (torch.logaddexp(positives, against) - positives)[pairs].sum()
    near = (2 - 2 * cosines)[same & ~itself].sum() / 2
    # The root's slope at 0 is infinite: distances below 10⁻⁴ count as that.
    apart = (2 - 2 * negatives[negatives > -torch.inf]).clamp_min(1e-8).sqrt()
    return near + (config.margin - apart).clamp_min(0).square().sum()


def _row(slices: Sequence[Ints]) -> Row:
    ids = np.concatenate(slices)
    return {
        "input_ids": ids,
        "labels": np.full(ids.size, -100),
        "segment_lengths": [len(part) for part in slices],
    }
