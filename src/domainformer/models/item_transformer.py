"""Histories of items to scores of all items: a domain transformer whose tokens are items.

::

    item ─▶ id embedding + Σ attribute embeddings / √count ─┬─▶ blocks ─▶ hidden at the last item
                                                            └─────── · ───────┘ + bias ─▶ [items]

One token per event, and one table for reading and for scoring (tied). A history begins with a START
token, so an empty one has an answer, too. Attributes let items that are seldom seen borrow from
those that are like them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from domainformer.errors import DataError
from domainformer.models.configuration_domain_transformer import DomainTransformerConfig
from domainformer.models.modeling_domain_transformer import DomainTransformerModel

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ItemAttributes:
    """A set of attributes per item.

    Args:
        values: Attributes of all items, one after the other, int64 [links], from 0.
        offsets: Where each item's begin, int64 [items + 1].
        count: Number of different attributes.
    """

    values: Ints
    offsets: Ints
    count: int

    @classmethod
    def of(cls, sets: Sequence[Sequence[object] | None]) -> Self:
        """Number the attributes of items; an item may have none.

        Args:
            sets: The attributes of item 0, of item 1 and so on; repeats count once.

        Raises:
            DataError: No item has any.

        Example:
            >>> attributes = ItemAttributes.of([["red", "soap"], [], ["soap"]])
            >>> attributes.values.tolist(), attributes.offsets.tolist(), attributes.count
            ([0, 1, 1], [0, 2, 2, 3], 2)
        """
        unique = [sorted(set(one or ()), key=str) for one in sets]
        names = sorted({name for one in unique for name in one}, key=str)
        if not names:
            raise DataError("no item has an attribute", next_step="leave the attributes out")
        number = {name: place for place, name in enumerate(names)}
        values = np.array([number[name] for one in unique for name in one], np.int64)
        offsets = np.cumsum([0, *map(len, unique)]).astype(np.int64)
        return cls(values, offsets, len(names))

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.offsets) - 1


class ItemTransformer(nn.Module):
    """Scores all items after each item of a history.

    Args:
        config: Of the backbone; its vocabulary is the items and START, the last id.
        attributes: Attributes of the items; None where there are none.

    Raises:
        DataError: Attributes of another number of items.

    Example:
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=31)
        >>> model = ItemTransformer(config).eval()
        >>> model(torch.tensor([[30, 4, 7]])).shape, model.n_items
        (torch.Size([1, 3, 30]), 30)
    """

    def __init__(
        self, config: DomainTransformerConfig, attributes: ItemAttributes | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.backbone = DomainTransformerModel(config)
        self.bias = nn.Parameter(torch.zeros(self.n_items))
        self.attribute_table: nn.Parameter | None = None
        if attributes is None:
            return
        if attributes.n_items != self.n_items:
            raise DataError(
                "the attributes are not those of the items",
                why=f"{attributes.n_items} sets of attributes, {self.n_items} items",
            )
        drawn = torch.randn(attributes.count, config.hidden_size) * config.initializer_range
        self.attribute_table = nn.Parameter(drawn)
        counts = np.diff(attributes.offsets)
        shares = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts)
        self.register_buffer("attribute_values", torch.from_numpy(attributes.values))
        self.register_buffer("attribute_offsets", torch.from_numpy(attributes.offsets[:-1].copy()))
        self.register_buffer("attribute_shares", torch.from_numpy(shares.astype(np.float32)))

    @property
    def n_items(self) -> int:
        """Size of the catalogue."""
        return int(self.config.vocab_size) - 1

    @property
    def start_id(self) -> int:
        """The token before the first item."""
        return self.n_items

    @property
    def context(self) -> int:
        """Most items of a history that are read, the newest ones."""
        return int(self.config.max_position_embeddings) - 1

    def item_table(self) -> torch.Tensor:
        """Embeddings of all items, and of START in the last row, [items + 1, W]."""
        table = self.backbone.embed_tokens.weight
        if self.attribute_table is None:
            return table
        summed = F.embedding_bag(
            self.get_buffer("attribute_values"),
            self.attribute_table,
            self.get_buffer("attribute_offsets"),
            mode="sum",
            per_sample_weights=self.get_buffer("attribute_shares"),
        )
        return table + F.pad(summed, (0, 0, 0, 1))

    def hidden(
        self, ids: torch.Tensor, mask: torch.Tensor | None, table: torch.Tensor
    ) -> torch.Tensor:
        """Hidden states [B, L, W] of rows of ids that are padded on the right (mask 0)."""
        output = self.backbone(inputs_embeds=F.embedding(ids, table), attention_mask=mask)
        states: torch.Tensor = output.last_hidden_state
        return states

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of the item after each position.

        Args:
            ids: START and items, int64 [B, L].
            mask: 1 at real tokens [B, L]; None: no padding.

        Returns:
            float [B, L, items].
        """
        table = self.item_table()
        return F.linear(self.hidden(ids, mask, table), table[: self.n_items], self.bias)


def padded_histories(
    items: Ints, starts: Ints, ends: Ints, *, start_id: int, context: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """START and the newest items of some histories, padded on the right.

    Args:
        items: Items of all histories.
        starts: Where each history begins, int64 [B].
        ends: One past its last item, int64 [B].
        start_id: The token before the first item.
        context: Most items of a history.

    Returns:
        Ids and mask, int64 [B, longest + 1].

    Example:
        >>> ids, mask = padded_histories(np.array([5, 6, 7, 8]), np.array([0, 3]),
        ...                              np.array([3, 4]), start_id=9, context=2)
        >>> ids.tolist(), mask.tolist()
        ([[9, 6, 7], [9, 8, 9]], [[1, 1, 1], [1, 1, 0]])
    """
    lengths = np.minimum(ends - starts, context)
    steps = np.arange(int(lengths.max(initial=0)) + 1)
    mask = steps[None] <= lengths[:, None]
    places = (ends - lengths)[:, None] + steps[None] - 1
    inside = mask & (steps[None] > 0)
    padded = np.concatenate([items, [start_id]])
    ids = padded[np.where(inside, places, len(items))]
    return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))


__all__ = ["ItemAttributes", "ItemTransformer", "padded_histories"]
