"""The grammar of events: which ids may stand at the next position.

An event is a fixed row of slots, each with its own ids. Only text is ragged:
after its marker come BPE tokens, as many as the field's budget allows, and the first id that is
none of them is already the head of the next slot (of the next event, where text comes last)::

    slot         kind           sign        …   merchant               kind (next event)
    ids          [KIND=Fuel]    [SIGN=POS]      [MERCHANT] sh ell      [KIND=Post]
    allowed      ids of KIND    SIGN            MERCHANT   BPE ∪ KIND  …

Of the codes of a semantic id only those may follow that lead to an entity (see `existing`).

A :class:`SlotGrammar` knows the ids; a :class:`GrammarState` follows many rows at once, each at
its own place, in a few array operations per step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from domainformer.errors import TokenizerError
from domainformer.inference.existing import ExistingIds
from domainformer.schema.fields import elapsed_first_token, hash_token, unknown_token
from domainformer.schema.semantic import semantic_unknown_tokens
from domainformer.tokenizers import DomainTokenizer, Slot

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SlotGrammar:
    """The slots of an event, as ids and masks over the vocabulary.

    Args:
        slots: The positions of an event in order; a text is its marker.
        vocab_size: Number of ids.
        text_start: First BPE id (equal to ``vocab_size`` where no field is text).
        unknown: Ids that stand for a value without telling which, ascending.
        first: Ids that stand at an entity's first event alone, ascending.
        existing: Which semantic ids exist; None where no field has any, or all may be written.
    """

    slots: tuple[Slot, ...]
    vocab_size: int
    text_start: int
    unknown: Ints
    first: Ints
    existing: ExistingIds | None = None

    @classmethod
    def of(cls, tokenizer: DomainTokenizer) -> SlotGrammar:
        """The grammar of a fitted tokenizer."""
        slots = tuple(tokenizer.slots)
        unknown: set[str] = set()
        first: set[str] = set()
        for spec in tokenizer.schema.fields:
            unknown.add(unknown_token(spec.name))
            unknown.update(semantic_unknown_tokens(spec.prefix, spec.semantic_levels))
            unknown.update(hash_token(spec.name, bucket) for bucket in range(spec.hash_buckets))
            first.add(elapsed_first_token(spec.name))
        text_start, _ = tokenizer.bpe_range
        layout = tokenizer.layout
        named = list(zip(layout.token_ids.tolist(), layout.tokens, strict=True))
        return cls(
            slots=slots,
            vocab_size=tokenizer.vocab_size,
            text_start=text_start,
            unknown=np.array([index for index, token in named if token in unknown], np.int64),
            first=np.array([index for index, token in named if token in first], np.int64),
            existing=ExistingIds.of(tokenizer, slots),
        )

    @property
    def longest_event(self) -> int:
        """Tokens of the longest event that the grammar allows."""
        return len(self.slots) + sum(slot.max_tokens for slot in self.slots)

    @cached_property
    def slot_of_id(self) -> npt.NDArray[np.int16]:
        """The slot that an id belongs to; −1 for BPE and generic ids, ``[vocab_size]``."""
        owner = np.full(self.vocab_size, -1, np.int16)
        for index, slot in enumerate(self.slots):
            owner[slot.index] = index
        return owner

    @cached_property
    def place_of_id(self) -> npt.NDArray[np.int32]:
        """Place of an id among its slot's own (`Slot.ids`); −1 elsewhere, ``[vocab_size]``."""
        place = np.full(self.vocab_size, -1, np.int32)
        for slot in self.slots:
            place[slot.index] = np.arange(slot.width)
        return place

    @cached_property
    def text_ids(self) -> Ints:
        """BPE ids, ascending; empty where no field is text."""
        first = self.text_start
        return first + np.flatnonzero(self.slot_of_id[first:] < 0)

    @cached_property
    def text_place_of_id(self) -> Ints:
        """Place of a BPE id among `text_ids`; −1 elsewhere, ``[vocab_size]``."""
        place = np.full(self.vocab_size, -1, np.int64)
        place[self.text_ids] = np.arange(len(self.text_ids))
        return place

    @property
    def text_index(self) -> slice | Ints:
        """What takes the BPE out of an axis over the vocabulary: a slice where one will do."""
        ids, first = self.text_ids, self.text_start
        return slice(first, None) if len(ids) == self.vocab_size - first else ids

    def head_masks(self, without: Ints) -> Mask:
        """Ids allowed at each slot, ``[slots, vocab_size]``.

        Args:
            without: Ids never allowed; a slot that would be left empty keeps its own.
        """
        masks = np.zeros((len(self.slots), self.vocab_size), np.bool_)
        for index, slot in enumerate(self.slots):
            masks[index, slot.index] = True
            reduced = masks[index].copy()
            reduced[without] = False
            if reduced.any():
                masks[index] = reduced
        return masks


class GrammarState:
    """Where each of many rows stands in its event.

    Args:
        grammar: The grammar.
        rows: Number of rows, all before the first slot of an event.
        without: Ids never allowed.

    Attributes:
        slot: The slot whose head comes next, ``[rows]``.
        text_left: BPE tokens that may still come before it; 0 outside of a text.
        events: Events begun so far, ``[rows]``.
        node: Place in the trie of the semantic id that is being written, ``[rows]``.
    """

    def __init__(self, grammar: SlotGrammar, rows: int, without: Ints | None = None) -> None:
        self.grammar = grammar
        self.slot = np.zeros(rows, np.int64)
        self.text_left = np.zeros(rows, np.int64)
        self.events = np.zeros(rows, np.int64)
        self.node = np.zeros(rows, np.int64)
        self._heads = grammar.head_masks(np.zeros(0, np.int64) if without is None else without)
        self._text = np.zeros(grammar.vocab_size, np.bool_)
        self._text[grammar.text_ids] = True
        self._missing = np.array([slot.missing for slot in grammar.slots], np.int64)
        self._budgets = np.array([slot.max_tokens for slot in grammar.slots], np.int64)

    def allowed(self, rows: Ints | None = None) -> Mask:
        """Ids that may come next, ``[rows, vocab_size]``."""
        rows = np.arange(len(self.slot)) if rows is None else rows
        grammar, at = self.grammar, self.slot[rows]
        masks = self._heads[at]
        if grammar.existing is not None:
            grammar.existing.restrict(masks, grammar.slots, at, self.node[rows])
        masks[self.text_left[rows] > 0] |= self._text
        return masks

    def between_events(self) -> Mask:
        """Rows that stand before the first slot; a text at the end of the last may go on."""
        return self.slot == 0

    def is_head(self, ids: Ints) -> Mask:
        """Which of the next ids are heads of the next slot, ``[rows]``."""
        return self.grammar.slot_of_id[ids] == self.slot

    def advance(self, ids: Ints, moving: Mask | None = None) -> None:
        """Consume one id per row.

        Args:
            ids: The next ids, ``[rows]``.
            moving: Only these rows move.

        Raises:
            TokenizerError: An id cannot stand where it stands.
        """
        moving = np.ones(len(ids), np.bool_) if moving is None else moving
        head = self.is_head(ids) & moving
        text = moving & ~head
        wrong = text & ~(self._text[ids] & (self.text_left > 0))
        if wrong.any():
            why = f"slot {self.grammar.slots[self.slot[np.argmax(wrong)]].name!r} comes next"
            raise _misplaced(ids, wrong, why)
        if self.grammar.existing is not None:
            places = self.grammar.place_of_id[ids].astype(np.int64)
            after = self.grammar.existing.follow(self.slot, self.node, places)
            if (head & (after < 0)).any():
                raise _misplaced(ids, head & (after < 0), "no entity's id goes on like that")
            self.node = np.where(head, after, self.node)
        self.text_left[text] -= 1
        slots = self.slot[head]
        self.events[head] += slots == 0
        self.text_left[head] = np.where(ids[head] == self._missing[slots], 0, self._budgets[slots])
        self.slot[head] = (slots + 1) % len(self.grammar.slots)


def _misplaced(ids: Ints, wrong: Mask, why: str) -> TokenizerError:
    """The error of the first id that cannot stand where it stands."""
    row = int(np.argmax(wrong))
    return TokenizerError(f"the id {int(ids[row])} cannot stand here", where=f"row {row}", why=why)
