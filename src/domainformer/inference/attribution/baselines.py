"""What stands where a token is taken away: the point that integrated gradients start from.

::

    missing   the MISSING token of the token's own slot: what the tokenizer writes for a null
    mean      the average token of its slot, over the rows that are explained

``missing`` is a row that the model could really be given, the one that occlusion compares with,
too; it means something where training has seen nulls of that field (or was told to make values
missing, ``training.substitute_values``). Where a field is never null, the embedding of its
MISSING was never trained, and ``mean`` asks the better question: why not as usual?
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch

from domainformer.inference.attribution.rows import Row, RowReader
from domainformer.tokenizers.slots import BPE


class Baseline(ABC):
    """Embeddings of absent tokens, and whether an absent token counts as a value."""

    @abstractmethod
    def embeddings(
        self, table: torch.Tensor, ids: torch.Tensor, missing: torch.Tensor
    ) -> torch.Tensor:
        """What is embedded in place of tokens.

        Args:
            table: The embedding matrix [V, W].
            ids: The tokens [B, L].
            missing: The MISSING of each token's slot [B, L].

        Returns:
            [B, L, W].
        """

    @abstractmethod
    def matches(
        self, ids: torch.Tensor, missing: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        """How much of each absent token is a wanted one: for heads that copy what they read.

        Args:
            ids: The tokens [B, S].
            missing: The MISSING of each token's slot [B, S].
            wanted: Ids [B, K].

        Returns:
            float [B, K, S].
        """


class MissingBaseline(Baseline):
    """Each token's slot says MISSING."""

    def embeddings(
        self, table: torch.Tensor, ids: torch.Tensor, missing: torch.Tensor
    ) -> torch.Tensor:
        """The embedding of MISSING."""
        return table[missing]

    def matches(
        self, ids: torch.Tensor, missing: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        """1 where MISSING is wanted."""
        return (missing[:, None, :] == wanted[..., None]).float()


class MeanBaseline(Baseline):
    """Each token is the average of its slot; pieces of text are the average piece.

    Args:
        reader: Of the model's tokenizer.
        rows: Whose tokens are counted.
    """

    def __init__(self, reader: RowReader, rows: Sequence[Row]) -> None:
        size = reader.tokenizer.vocab_size
        seen = np.concatenate([row.ids[row.free] for row in rows])
        counts = np.bincount(seen, minlength=size).astype(np.float64)
        slots = len(reader.tokenizer.slots)
        group = np.where(reader.slot_of_id == BPE, slots, reader.slot_of_id)
        group[group < 0] = slots + 1
        total = np.bincount(group, weights=counts, minlength=slots + 2)
        self.group = torch.from_numpy(group)
        self.share = torch.from_numpy((counts / np.maximum(total[group], 1)).astype(np.float32))

    def embeddings(
        self, table: torch.Tensor, ids: torch.Tensor, missing: torch.Tensor
    ) -> torch.Tensor:
        """The average embedding of each token's slot."""
        group = self.group.to(table.device)
        weighed = table * self.share.to(table)[:, None]
        means = table.new_zeros(int(group.max()) + 1, table.shape[1]).index_add(0, group, weighed)
        return means[group[ids]]

    def matches(
        self, ids: torch.Tensor, missing: torch.Tensor, wanted: torch.Tensor
    ) -> torch.Tensor:
        """The share of the wanted token in its slot, where the slots are the same."""
        group, share = self.group.to(ids.device), self.share.to(ids.device)
        same = group[ids][:, None, :] == group[wanted][..., None]
        return same * share[wanted][..., None]
