"""What is asked about a horizon: the number of events, the values in them, sums of sizes.

::

    answers of one event   │ kind: 0 1 1 0 … │ shop: 0 0 1 … │ count: bin │ amount: bin │
                             yes or no for the commonest values   one of count_bins, sum_bins

The commonest values and the bins of sums are learned from the training rows' own events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import polars as pl
import torch
from torch.nn import functional as F

from domainformer.data.dataset import DomainSequenceDataset
from domainformer.data.tokens import Ints
from domainformer.errors import ConfigError, nearest
from domainformer.schema import FieldType
from domainformer.tokenizers import DomainTokenizer
from domainformer.training.horizon_targets import (
    Ahead,
    Floats,
    count_ids,
    own_events,
    sizes_of_events,
    sums_between,
    values_ahead,
)
from domainformer.training.objective_config import HorizonConfig

_CATEGORIES = (FieldType.CATEGORICAL_FIXED, FieldType.CATEGORICAL_ENTITY)
_NUMBERS = (FieldType.NUMERICAL_CONTINUOUS, FieldType.NUMERICAL_DISCRETE)


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions of a horizon, and how their answers are found and scored.

    Args:
        class_of_id: Number of the value that an id is, over all fields, −1 where it is none.
        fields: Number of values of each field that is asked for.
        count_edges: Smallest count of each bin but the first.
        sizes: For each sum, what each id adds to it [vocab_size].
        sum_edges: For each sum, smallest sum of each bin but the first.
        sum_bins: Bins of each sum; a sum of few values uses fewer.
    """

    class_of_id: Ints
    fields: tuple[int, ...]
    count_edges: Ints
    sizes: tuple[Floats, ...]
    sum_edges: tuple[Floats, ...]
    sum_bins: int

    @classmethod
    def learn(
        cls,
        config: HorizonConfig,
        tokenizer: DomainTokenizer,
        rows: DomainSequenceDataset,
        ahead: Sequence[Ahead],
    ) -> Self:
        """Find the commonest values and the bins.

        Args:
            config: What is asked.
            tokenizer: Whose ids the rows hold.
            rows: Training rows.
            ahead: The horizons of their events.

        Raises:
            ConfigError: A field is not there, or of another kind.
        """
        class_of_id = np.full(tokenizer.vocab_size, -1)
        fields: list[int] = []
        counts = count_ids(rows, tokenizer.vocab_size)
        for ids in _value_ids(tokenizer, config.values):
            known = ids[counts[ids] > 0]
            common = known[np.argsort(-counts[known], kind="stable")][: config.most_values]
            class_of_id[common] = sum(fields) + np.arange(len(common))
            fields += [len(common)] if len(common) else []
        sizes = tuple(_sizes(tokenizer, name) for name in config.sums)
        shares = np.linspace(0, 1, config.sum_bins + 1)[1:-1]
        edges = []
        for size in sizes:
            found = []
            for shard, one in zip(rows.shards, ahead, strict=True):
                running = sizes_of_events(shard, own_events(rows, shard), size)
                event = np.flatnonzero(one.asked)
                found.append(sums_between(running, event + 1, one.stop[event]))
            sums = np.concatenate(found)
            inner = np.unique(np.quantile(sums, shares))
            edges.append(inner[inner > sums.min()])  # no bin below the smallest
        doubling = 2 ** np.arange(config.count_bins - 2) + 1
        return cls(
            class_of_id, tuple(fields), np.concatenate([[1], doubling]), sizes, tuple(edges),
            config.sum_bins,
        )  # fmt: skip

    @property
    def n_outputs(self) -> int:
        """Numbers that a head has to give."""
        bins = len(self.count_edges) + 1 + len(self.sizes) * self.sum_bins
        return sum(self.fields) + bins

    def answers(self, dataset: DomainSequenceDataset, ahead: Sequence[Ahead]) -> Answers:
        """The answers for events of a data set."""
        own = [own_events(dataset, shard) for shard in dataset.shards]
        running = tuple(
            [sizes_of_events(*pair, size) for pair in zip(dataset.shards, own, strict=True)]
            for size in self.sizes
        )
        return Answers(self, dataset, ahead, running)

    def score(self, outputs: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Mean over the questions of −log of the answer's probability.

        Args:
            outputs: What a head gives [n, n_outputs].
            answers: From :class:`Answers` [n, values + 1 + sums].

        Returns:
            float32 [n].
        """
        outputs = outputs.float()
        values = sum(self.fields)
        bins = [len(self.count_edges) + 1, *(self.sum_bins for _ in self.sizes)]
        parts = []
        yes_or_no = F.binary_cross_entropy_with_logits(
            outputs[:, :values], answers[:, :values].to(outputs.dtype), reduction="none"
        )
        parts += [one.mean(dim=1) for one in yes_or_no.split(list(self.fields), dim=1)]
        binned = outputs[:, values:].split(bins, dim=1)
        for logits, answer in zip(binned, answers[:, values:].unbind(dim=1), strict=True):
            parts.append(F.cross_entropy(logits, answer, reduction="none"))
        return torch.stack(parts).mean(dim=0)


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers for events of one data set.

    Args:
        questions: What is asked.
        dataset: Has the events.
        ahead: Their horizons.
        running: For each sum and shard, the running sum over its events.
    """

    questions: Questions
    dataset: DomainSequenceDataset
    ahead: Sequence[Ahead]
    running: tuple[list[Floats], ...]

    def __call__(self, number: int, events: Ints) -> tuple[Ints, Ints]:
        """For some events of one entity: places among them (all), and answers int64 [n, …]."""
        asked = self.questions
        stop = self.ahead[number].stop[events]
        values = values_ahead(
            self.dataset.shards[number], events, stop, asked.class_of_id, sum(asked.fields)
        )
        counts = np.searchsorted(asked.count_edges, stop - events - 1, side="right")
        sums = [
            np.searchsorted(edges, sums_between(running[number], events + 1, stop), "right")
            for edges, running in zip(asked.sum_edges, self.running, strict=True)
        ]
        return np.arange(len(events)), np.column_stack([values, counts, *sums]).astype(np.int64)


def _value_ids(tokenizer: DomainTokenizer, names: Sequence[str] | None) -> list[Ints]:
    """The ids of known values of each categorical field that is asked for."""
    # The parts of a semantic id mean something together only.
    slots = {s.field: s for s in tokenizer.slots if s.kind in _CATEGORIES and not s.part}
    _check_names("values", "categorical", names or (), list(slots))
    chosen = [slot for name, slot in slots.items() if names is None or name in names]
    return [slot.ids[slot.ids > slot.missing + 1] for slot in chosen]  # missing, unknown, values


def _sizes(tokenizer: DomainTokenizer, name: str) -> Floats:
    """What each id adds to the sum of a numeric field: the size that it stands for."""
    blocks = {b.spec.name: b for b in tokenizer.layout.blocks if b.spec.field_type in _NUMBERS}
    _check_names("sums", "numeric", (name,), list(blocks))
    block = blocks[name]
    sizes = np.zeros(tokenizer.vocab_size)
    decoded = block.tokenizer.decode(np.arange(len(block.ids)))
    sizes[block.ids] = decoded.cast(pl.Float64).fill_null(0.0).fill_nan(0.0).to_numpy()
    return sizes


def _check_names(key: str, kind: str, names: Sequence[str], known: list[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                f"there is no {kind} field {name!r}",
                where=f"training.horizon.{key}",
                next_step=nearest(name, known),
            )


__all__ = ["Answers", "Questions"]
