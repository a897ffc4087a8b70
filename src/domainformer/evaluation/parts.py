"""Where events have sources or optional fields: what is compared with what.

A slot is judged on the events that have it. Where events have sources, each source is a contest of
its own: its fields are predicted *given the source* (the source itself is a contest of all events),
and the baselines see the earlier events of that source, so that *repeat last* repeats the last card
payment and not whatever app visit lay between::

    events      a   c   a   a   c   a   a        source          all seven
    of a        a       a   a       a   a        screen of a     five, each with its last a
    of c            c           c                amount of c     two

Completions of an event (``history_only``) go through the slots that the event itself has
(:class:`EventScript`): which optional fields it has is given, like its source.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domainformer.inference.grammar import SlotGrammar

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SlotPart:
    """One slot on the events that have it.

    Args:
        source: The source of these events; None for all.
        slot: The slot.
        events: These events, ascending.
    """

    source: str | None
    slot: int
    events: Ints


def slot_parts(grammar: SlotGrammar, values: npt.NDArray[np.int32]) -> list[SlotPart]:
    """The contests of a grammar: one for each slot, or for each slot of each source.

    Args:
        grammar: The slots and forms.
        values: What stands at each slot of each event, −1 where nothing does, ``[events, slots]``.
    """
    everything = np.arange(len(values))
    if grammar.forms is None:
        return [SlotPart(None, slot, everything) for slot in range(len(grammar.slots))]
    opening = grammar.slots[0].ids[values[:, 0]]
    form = grammar.form_of_id[opening]
    parts = [SlotPart(None, 0, everything)]
    for number, (one, slots) in enumerate(
        zip(grammar.forms.each, grammar.forms.slot_indices, strict=True)
    ):
        for slot in slots[1:].tolist():
            events = np.flatnonzero((form == number) & (values[:, slot] >= 0))
            parts.append(SlotPart(one.source, slot, events))
    return parts


def first_of_entity(events: Ints, entity_offsets: Ints) -> Mask:
    """Which of some events are their entity's first among them, ``[len(events)]``.

    Example:
        >>> first_of_entity(np.array([1, 2, 5]), np.array([0, 3, 6])).tolist()
        [True, False, True]
    """
    owners = np.searchsorted(entity_offsets, events, side="right")
    return np.diff(owners, prepend=-1) != 0


class EventScript:
    """Rows that go through given slots one after the other, whatever else the grammar allows.

    Stands in for a `GrammarState` where the slots of an event are known.

    Args:
        grammar: The slots.
        heads: The ids of each row's event at its slots, in order, −1 behind the last,
            ``[rows, most]``.

    Attributes:
        text_left: BPE tokens that may still come before the next head, ``[rows]``.
    """

    def __init__(self, grammar: SlotGrammar, heads: Ints) -> None:
        self.grammar = grammar
        self.heads = np.concatenate([heads, np.full((len(heads), 1), -1)], axis=1)
        self.text_left = np.zeros(len(heads), np.int64)
        self._at = np.zeros(len(heads), np.int64)
        self._missing = np.array([slot.missing for slot in grammar.slots], np.int64)
        self._budgets = np.array([slot.max_tokens for slot in grammar.slots], np.int64)

    @classmethod
    def of(
        cls, grammar: SlotGrammar, ids: Ints, owners: Ints, places: Ints, samples: int
    ) -> EventScript:
        """The script of some events, each in several rows.

        Args:
            grammar: The slots.
            ids: The tokens of the events, event after event.
            owners: Which event each token is of.
            places: The event of each group of rows, −1 for none, ``[groups]``.
            samples: Rows of a group.
        """
        is_head = grammar.slot_of_id[ids] >= 0
        heads, events = ids[is_head], owners[is_head]
        most = int(np.bincount(events).max())
        table = np.full((int(events.max()) + 2, most), -1, np.int64)
        begins = np.flatnonzero(np.diff(events, prepend=-1))
        counts = np.diff(np.append(begins, len(events)))
        table[events, np.arange(len(events)) - np.repeat(begins, counts)] = heads
        return cls(grammar, np.repeat(table[places], samples, axis=0))

    @property
    def happened(self) -> Ints:
        """The id that the event itself has next, ``[rows]``; −1 where it is over."""
        return self.heads[np.arange(len(self._at)), self._at]

    @property
    def slot(self) -> Ints:
        """The slot whose head comes next, ``[rows]``; 0 where the event is over."""
        happened = self.happened
        return np.where(happened >= 0, self.grammar.slot_of_id[np.maximum(happened, 0)], 0)

    def finished(self) -> Mask:
        """Rows that have read the last head of their event."""
        return self.happened < 0

    def advance(self, ids: Ints, moving: Mask) -> None:
        """Consume one id per moving row: the head of its next slot, or a BPE token of its text."""
        slots = self.slot
        head = moving & (self.grammar.slot_of_id[ids] == slots)
        self.text_left[moving & ~head] -= 1
        budget = np.where(ids == self._missing[slots], 0, self._budgets[slots])
        self.text_left[head] = budget[head]
        self._at[head] += 1
