"""Semantic ids that exist: which code may follow which, for rows that grow token by token.

A semantic id is written code by code, and of the millions of ways to combine codes a few thousand
are ids of entities (TIGER, arXiv 2305.05065, finds 0.1 to 1.6 % of the best ten to be none). Each
row keeps its node in the trie of the field that it is writing, and only the labels that lead on
from there are allowed::

    row writes   [PRODUCT_1=017]   [PRODUCT_2=203]   [PRODUCT_3=  ?  ]
    node         root ──────────▶ 17 ────────────▶ 17 203 ──▶ allowed: 004, 090
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domainformer.tokenizers import DomainTokenizer, SemanticIdTokenizer, Slot
from domainformer.tokenizers.semantic import PrefixTrie

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ExistingIds:
    """The tries of a tokenizer's semantic ids, by the slots that they rule.

    Args:
        tries: Slot → the trie that it belongs to and its depth in it.
    """

    tries: dict[int, tuple[PrefixTrie, int]]

    @classmethod
    def of(cls, tokenizer: DomainTokenizer, slots: tuple[Slot, ...]) -> ExistingIds | None:
        """What rules these slots of a tokenizer; None where no field has semantic ids."""
        index = {(slot.field, slot.part): place for place, slot in enumerate(slots)}
        tries = {}
        for block in tokenizer.layout.blocks:
            if isinstance(block.tokenizer, SemanticIdTokenizer):
                trie = block.tokenizer.trie
                for depth, slot in enumerate(block.slots):
                    tries[index[slot.field, slot.part]] = trie, depth
        return cls(tries) if tries else None

    def restrict(self, masks: Mask, slots: tuple[Slot, ...], at: Ints, nodes: Ints) -> None:
        """Take away the ids of a slot that lead to no entity, in place.

        Args:
            masks: Ids allowed, ``[rows, vocab_size]``.
            slots: All slots.
            at: The slot that each row is about to write, ``[rows]``.
            nodes: Its node in that slot's trie.
        """
        for place in np.unique(at).tolist():
            if place in self.tries:
                trie, depth = self.tries[place]
                rows = np.flatnonzero(at == place)
                where = np.ix_(rows, slots[place].ids)
                masks[where] &= trie.allowed(depth, nodes[rows])

    def follow(self, at: Ints, nodes: Ints, labels: Ints) -> Ints:
        """The nodes after a label was written; −1 where no entity's id goes on like that.

        Args:
            at: The slot that each row has written, ``[rows]``.
            nodes: Its node before.
            labels: Place of the id within its slot.
        """
        after = np.zeros(len(at), np.int64)
        for place in np.unique(at).tolist():
            if place in self.tries:
                trie, depth = self.tries[place]
                rows = np.flatnonzero(at == place)
                found = trie.step(depth, nodes[rows], labels[rows])
                # A finished id leaves the trie: the next one begins at the root.
                ends = depth == len(trie.labels) - 1
                after[rows] = np.where(found >= 0, 0, found) if ends else found
        return after
