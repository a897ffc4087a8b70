"""The forms that an event can have, and which position may follow which.

A schema without sources has one form: its fields in their order. With sources there is one form
for each: the token of the source, then that source's fields. Optional fields may be left out::

    form of cards   [SOURCE=cards] ─▶ [TIME_MONTH=…] ─▶ [AMOUNT=…] ─▶ [MERCHANT] bpe bpe ─╮
                          │                                │                              │
                          ╰────────────────────────────────┴── (optional: skipped) ──▶ next event

Slots never overlap, so an id tells its slot, the first id of an event tells the form, and both
together tell which slots may come next: a finite automaton without look-ahead. `decode` reads ids
by it, generation writes by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from domainformer.errors import TokenizerError
from domainformer.schema import DomainSchema
from domainformer.tokenizers.slots import Block, Layout, Slot

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

BETWEEN = 0
"""The state between two events."""


@dataclass(frozen=True)
class EventForm:
    """How the events of one source look.

    Args:
        source: Its name; None where the schema has no sources.
        layout: The blocks of such an event in token order, with ids of the whole vocabulary.
        most: Most tokens of an event; None: no limit but those of the fields.
    """

    source: str | None
    layout: Layout
    most: int | None = None

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The positions of such an event, if nothing is left out."""
        return self.layout.slots

    @cached_property
    def optional(self) -> Mask:
        """Which positions may be left out, ``[slots]``."""
        return np.array([b.spec.optional for b in self.layout.blocks for _ in b.slots], np.bool_)

    @cached_property
    def never(self) -> Ints:
        """Ids that never stand in such an event: the MISSING of optional fields, ascending.

        But for an hour beside other parts: a date has no hour, and is a value all the same.
        """
        hidden = [
            slot.missing
            for block in self.layout.blocks
            for slot in block.slots
            if block.spec.optional and not _may_lack(block, slot)
        ]
        return np.array(sorted(hidden), np.int64)

    @cached_property
    def lacking(self) -> tuple[tuple[int, int, int], ...]:
        """The MISSING of optional parts that stand for nothing only where the others do, too.

        Each with the place of another part relative to it, and that part's MISSING.
        """
        return tuple(
            (slot.missing, 1 if i == 0 else -1, block.slots[1 if i == 0 else i - 1].missing)
            for block in self.layout.blocks
            for i, slot in enumerate(block.slots)
            if block.spec.optional and _may_lack(block, slot)
        )

    @property
    def plain(self) -> bool:
        """Whether events are all their fields' tokens, with nothing to leave out or to cut."""
        return self.most is None and not len(self.never)

    @property
    def longest(self) -> int:
        """Tokens of the longest such event."""
        whole = len(self.slots) + sum(slot.max_tokens for slot in self.slots)
        return whole if self.most is None else min(whole, self.most)


@dataclass(frozen=True)
class Forms:
    """All forms of a tokenizer's events.

    Args:
        layout: All blocks; the first slot is the one that opens every event.
        each: One form, or one for each source.
    """

    layout: Layout
    each: tuple[EventForm, ...]

    @classmethod
    def of(cls, schema: DomainSchema, layout: Layout) -> Forms:
        """The forms of a fitted layout.

        Raises:
            TokenizerError: A source's shortest event does not fit its ``max_tokens_per_event``.
        """
        if not schema.sources:
            return cls(layout, (EventForm(None, layout),))
        opening, *others = layout.blocks
        forms = []
        for name, source in schema.sources.items():
            chosen = [b for field in source.fields for b in others if b.spec.name == field]
            part = replace(layout, blocks=(opening, *chosen))
            form = EventForm(name, part, source.max_tokens_per_event)
            _check_room(form)
            forms.append(form)
        return cls(layout, tuple(forms))

    @property
    def plain(self) -> bool:
        """Whether every event is all fields' tokens in schema order."""
        return len(self.each) == 1 and self.each[0].source is None and self.each[0].plain

    @property
    def sourced(self) -> bool:
        """Whether events have sources."""
        return self.each[0].source is not None

    @property
    def opening(self) -> Block:
        """The block whose first slot opens every event."""
        return self.layout.blocks[0]

    @cached_property
    def form_of_id(self) -> Ints:
        """The form that an event has which begins with an id; −1 for others, ``[vocab_size]``."""
        table = np.full(self.layout.vocab_size, -1, np.int64)
        if self.sourced:
            # Local id 0 is MISSING, which no event begins with.
            table[self.opening.ids[1:]] = np.arange(len(self.each))
        else:
            table[self.layout.slots[0].ids] = 0
        return table

    @cached_property
    def never(self) -> Ints:
        """Ids that stand in no event, ascending."""
        own = [form.never for form in self.each]
        return np.unique(np.concatenate([self.opening.ids[:1], *own] if self.sourced else own))

    @cached_property
    def first_state(self) -> Ints:
        """The state after the first slot of each form, ``[forms]``; its other slots follow."""
        counts = [len(form.slots) for form in self.each]
        return 1 + np.cumsum([0, *counts[:-1]])

    @cached_property
    def slot_indices(self) -> tuple[Ints, ...]:
        """For each form, the index of each of its slots in the whole layout."""
        place = {slot: index for index, slot in enumerate(self.layout.slots)}
        return tuple(np.array([place[slot] for slot in form.slots]) for form in self.each)

    @cached_property
    def state_of(self) -> Ints:
        """The state after a slot of an event of some form; −1 where it has no such slot.

        ``[forms, slots]``.
        """
        table = np.full((len(self.each), len(self.layout.slots)), -1, np.int64)
        for form, slots in enumerate(self.slot_indices):
            table[form, slots] = self.first_state[form] + np.arange(len(slots))
        return table

    @cached_property
    def slot_of_state(self) -> Ints:
        """The slot that was read last in each state, ``[states]``; 0 between events."""
        return np.concatenate([np.zeros(1, np.int64), *self.slot_indices])

    @cached_property
    def follows(self) -> Mask:
        """Which slots may come next, ``[states, slots]``.

        The opening slot follows where the event may end.
        """
        table = np.zeros((len(self.slot_of_state), len(self.layout.slots)), np.bool_)
        table[BETWEEN, 0] = True
        for form, slots, first in zip(self.each, self.slot_indices, self.first_state, strict=True):
            for position in range(len(slots)):
                nexts, may_end = _successors(form, position)
                table[first + position, slots[nexts]] = True
                table[first + position, 0] |= may_end
        return table

    @cached_property
    def ends(self) -> Mask:
        """Whether an event may be over, ``[states]``."""
        return self.follows[:, 0]


def _may_lack(block: Block, slot: Slot) -> bool:
    """Whether a part may be missing where the field's value is not: the hour of a date."""
    return slot.part == "hour" and len(block.slots) > 1


def _successors(form: EventForm, position: int) -> tuple[list[int], bool]:
    """Positions that may follow a position of a form, and whether the event may end there."""
    widths = [len(block.slots) for block in form.layout.blocks]
    starts = np.cumsum([0, *widths])
    block = int(np.searchsorted(starts, position, side="right")) - 1
    if position + 1 < starts[block + 1]:
        return [position + 1], False
    nexts: list[int] = []
    for following in range(block + 1, len(widths)):
        nexts.append(int(starts[following]))
        if not form.layout.blocks[following].spec.optional:
            return nexts, False
    return nexts, True


def _check_room(form: EventForm) -> None:
    least = int((~form.optional).sum())
    if form.most is not None and form.most < least:
        raise TokenizerError(
            f"no event of source {form.source!r} fits its budget",
            why=f"its shortest has {least} tokens, max_tokens_per_event is {form.most}",
            next_step="raise it, or make fields optional",
        )


def slot_names(slots: Sequence[Slot], mask: Mask) -> str:
    """The slots of a mask, for errors.

    Example:
        >>> from domainformer.schema import FieldType
        >>> slots = [Slot(name, "", 0, 1, False, FieldType.SIGN, 0, 0) for name in "ab"]
        >>> slot_names(slots, np.array([True, True]))
        "slot 'a' or 'b'"
    """
    names = [repr(slot.name) for slot, chosen in zip(slots, mask, strict=True) if chosen]
    return "slot " + " or ".join(names)
