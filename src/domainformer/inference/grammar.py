"""The grammar of events: which ids may stand at the next position.

An event is a fixed row of slots, each with its own ids. Only text is ragged:
after its marker come BPE tokens, as many as the field's budget allows, and the first id that is
none of them is already the head of the next slot (of the next event, where text comes last)::

    slot         kind           sign        …   merchant               kind (next event)
    ids          [KIND=Fuel]    [SIGN=POS]      [MERCHANT] sh ell      [KIND=Post]
    allowed      ids of KIND    SIGN            MERCHANT   BPE ∪ KIND  …

Of the codes of a semantic id only those may follow that lead to an entity (see `existing`).

Where events have sources, the first slot is the source, and the slots after it are those of that
source; optional fields may be skipped (see :mod:`~domainformer.tokenizers.forms`).

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
from domainformer.tokenizers.forms import BETWEEN, Forms, slot_names

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
        forms: The forms of an event; None: all slots in their order.
    """

    slots: tuple[Slot, ...]
    vocab_size: int
    text_start: int
    unknown: Ints
    first: Ints
    existing: ExistingIds | None = None
    forms: Forms | None = None

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
            forms=None if tokenizer.forms.plain else tokenizer.forms,
        )

    @property
    def longest_event(self) -> int:
        """Tokens of the longest event that the grammar allows."""
        forms = [self.slots] if self.forms is None else [form.slots for form in self.forms.each]
        return max(len(slots) + sum(slot.max_tokens for slot in slots) for slots in forms)

    def start(self, rows: int, without: Ints | None = None) -> GrammarState:
        """Rows before their first event; ``without`` are ids never allowed."""
        return GrammarState(self, rows, without)

    def base_ids(self, ids: Ints) -> Ints:
        """The ids themselves: each is of one field (see `MergedGrammar.base_ids`)."""
        return ids

    @cached_property
    def follows(self) -> Mask:
        """Which slots may come next in each state, ``[states, slots]``; state 0: between events."""
        if self.forms is not None:
            return self.forms.follows
        count = len(self.slots)
        ring = np.zeros((count + 1, count), np.bool_)
        ring[np.arange(count + 1), np.arange(count + 1) % count] = True
        return ring

    @cached_property
    def state_of(self) -> Ints:
        """The state after a slot of an event of some form, ``[forms, slots]``."""
        return (
            np.arange(1, len(self.slots) + 1)[None] if self.forms is None else self.forms.state_of
        )

    @cached_property
    def form_of_id(self) -> Ints:
        """The form of the event that an opening id begins, ``[vocab_size]``."""
        return np.zeros(self.vocab_size, np.int64) if self.forms is None else self.forms.form_of_id

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
        state: Place in the automaton of the forms, ``[rows]``.
        form: The form of the event that each row is in, ``[rows]``.
        text_left: BPE tokens that may still come before it; 0 outside of a text.
        events: Events begun so far, ``[rows]``.
        node: Place in the trie of the semantic id that is being written, ``[rows]``.
    """

    def __init__(self, grammar: SlotGrammar, rows: int, without: Ints | None = None) -> None:
        self.grammar = grammar
        self.state = np.full(rows, BETWEEN)
        self.form = np.zeros(rows, np.int64)
        self.text_left = np.zeros(rows, np.int64)
        self.events = np.zeros(rows, np.int64)
        self.node = np.zeros(rows, np.int64)
        never = np.zeros(0, np.int64) if grammar.forms is None else grammar.forms.never
        heads = grammar.head_masks(never if without is None else np.union1d(without, never))
        self._heads = np.stack([heads[after].any(axis=0) for after in grammar.follows])
        self._text = np.zeros(grammar.vocab_size, np.bool_)
        self._text[grammar.text_ids] = True
        self._missing = np.array([slot.missing for slot in grammar.slots], np.int64)
        self._budgets = np.array([slot.max_tokens for slot in grammar.slots], np.int64)

    @property
    def slot(self) -> Ints:
        """The slot whose head comes next, ``[rows]``; the first, where one of several may."""
        return np.argmax(self.grammar.follows[self.state], axis=1)

    def allowed(self, rows: Ints | None = None) -> Mask:
        """Ids that may come next, ``[rows, vocab_size]``."""
        rows = np.arange(len(self.slot)) if rows is None else rows
        grammar, state = self.grammar, self.state[rows]
        masks = self._heads[state]
        if grammar.existing is not None:
            # Where one of several slots may come, each rules its own ids.
            for place in grammar.existing.tries:
                at = np.where(grammar.follows[state, place], place, -1)
                grammar.existing.restrict(masks, grammar.slots, at, self.node[rows])
        masks[self.text_left[rows] > 0] |= self._text
        return masks

    def between_events(self) -> Mask:
        """Rows whose event may be over; a text or an optional field at its end may go on."""
        return self.grammar.follows[self.state, 0]

    def over(self) -> Mask:
        """Rows whose event is over: nothing but another event can come."""
        only = self.grammar.follows[self.state].sum(axis=1) == 1
        return self.between_events() & only & (self.text_left == 0)

    def finished(self) -> Mask:
        """Rows that have read the last head of their first event."""
        return (self.events > 0) & self.between_events()

    def is_head(self, ids: Ints) -> Mask:
        """Which of the next ids are heads of a slot that may come next, ``[rows]``."""
        slots = self.grammar.slot_of_id[ids]
        return (slots >= 0) & self.grammar.follows[self.state, np.maximum(slots, 0)]

    def opens(self, ids: Ints) -> Mask:
        """Which of the next ids begin another event, ``[rows]``."""
        return self.is_head(ids) & (self.grammar.slot_of_id[ids] == 0)

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
            nexts = self.grammar.follows[self.state[np.argmax(wrong)]]
            raise _misplaced(ids, wrong, f"{slot_names(self.grammar.slots, nexts)} comes next")
        own = np.where(head, self.grammar.slot_of_id[ids], -1)
        if self.grammar.existing is not None:
            places = self.grammar.place_of_id[ids].astype(np.int64)
            after = self.grammar.existing.follow(own, self.node, places)
            if (head & (after < 0)).any():
                raise _misplaced(ids, head & (after < 0), "no entity's id goes on like that")
            self.node = np.where(head, after, self.node)
        self.text_left[text] -= 1
        slots = own[head]
        self.events[head] += slots == 0
        self.form = np.where(own == 0, self.grammar.form_of_id[ids], self.form)
        self.text_left[head] = np.where(ids[head] == self._missing[slots], 0, self._budgets[slots])
        self.state[head] = self.grammar.state_of[self.form[head], slots]


def _misplaced(ids: Ints, wrong: Mask, why: str) -> TokenizerError:
    """The error of the first id that cannot stand where it stands."""
    row = int(np.argmax(wrong))
    return TokenizerError(f"the id {int(ids[row])} cannot stand here", where=f"row {row}", why=why)
