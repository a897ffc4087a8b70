"""The grammar of events whose tokens may stand for several fields each.

An event is whole when each of its slots is filled once. Which tokens may come next follows from
what is filled already::

    slots                    kind   sign   amount
    [KIND=Fuel]+[AMOUNT=3]    ■             ■        next: what fills sign alone
    [SIGN=NEG]                       ■               the event is whole

A model that was trained on greedy encodings knows one order, each token standing where the first of
its fields does; then a token must also fill the first slot that is open. One that was trained on
permuted encodings knows all orders.

Merges across events have no such grammar. What a token tells of an event is known only when the
next event is: a model that is asked for what follows a *whole* event has never seen one go on, as
in training the last event's tokens had merged with those of the next wherever they could.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from domainformer.data.tokens import gather_ranges
from domainformer.errors import ArtifactError, TokenizerError
from domainformer.inference.bundle import Bundle
from domainformer.inference.grammar import SlotGrammar
from domainformer.tokenizers import ActionPieceMerges, Slot

Mask = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MergedGrammar:
    """Which merged ids may follow in an event.

    Args:
        fields: The grammar of single fields.
        merges: The merges, none across events.
        ordered: Whether tokens stand in the order of their first fields.
    """

    fields: SlotGrammar
    merges: ActionPieceMerges
    ordered: bool = True

    @property
    def slots(self) -> tuple[Slot, ...]:
        """The positions of an event."""
        return self.fields.slots

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return self.merges.vocab_size

    @property
    def longest_event(self) -> int:
        """Tokens of the longest event that the grammar allows: one per field."""
        return len(self.fields.slots)

    @cached_property
    def place(self) -> npt.NDArray[np.int32]:
        """What each id puts at each slot, as a place in `Slot.ids`; −1: nothing, ``[ids, slots]``.

        Ids of no slot (padding, BOS) put nothing anywhere.
        """
        table = self.merges.table
        place = np.full((table.size, len(self.fields.slots)), -1, np.int32)
        token = np.repeat(np.arange(table.size), np.diff(table.offsets))
        slots = self.fields.slot_of_id[table.part_ids].astype(np.int64)
        known = slots >= 0
        parts = table.part_ids[known]
        place[token[known], slots[known]] = self.fields.place_of_id[parts]
        return place

    @cached_property
    def fills(self) -> Mask:
        """Which slots an id fills, ``[ids, slots]``."""
        return self.place >= 0

    def containing(self, base_ids: Ints) -> Mask:
        """Ids that hold one of some fields' ids, ``[ids]``."""
        table = self.merges.table
        held = np.isin(table.part_ids, base_ids)
        return np.logical_or.reduceat(held, table.offsets[:-1])

    def fitting(self, filled: Mask) -> Mask:
        """Ids that may follow where some slots are filled.

        Args:
            filled: One pattern per line, ``[patterns, slots]``.

        Returns:
            ``[patterns, ids]``.
        """
        some = self.fills.any(axis=1)
        fits = (filled.astype(np.float32) @ self.fills.T.astype(np.float32) == 0) & some
        if self.ordered:
            first_open = np.argmin(filled, axis=1)
            fits &= np.argmax(self.fills, axis=1) == first_open[:, None]
        return fits

    def start(self, rows: int, without: Ints | None = None) -> MergedState:
        """Rows before their first event; ``without`` are fields' ids never allowed."""
        return MergedState(self, rows, without)

    def base_ids(self, ids: Ints) -> Ints:
        """The fields' ids of whole events, in the order of fields.

        Args:
            ids: Merged ids of whole events, one after the other.
        """
        table, slots = self.merges.table, len(self.fields.slots)
        parts, _ = gather_ranges(table.offsets, ids)
        events = table.part_ids[parts].reshape(-1, slots)
        order = np.argsort(self.fields.slot_of_id[events], axis=1)
        return np.take_along_axis(events, order, axis=1).ravel()


class MergedState:
    """Where each of many rows stands in its event; as `GrammarState`.

    Args:
        grammar: The grammar.
        rows: Number of rows, all before an event.
        without: Fields' ids that no allowed id holds.

    Attributes:
        filled: Slots that the event of a row has, ``[rows, slots]``; none between events.
        events: Events begun so far, ``[rows]``.
    """

    def __init__(self, grammar: MergedGrammar, rows: int, without: Ints | None = None) -> None:
        self.grammar = grammar
        self.filled = np.zeros((rows, len(grammar.fields.slots)), np.bool_)
        self.events = np.zeros(rows, np.int64)
        self._never = grammar.containing(np.zeros(0, np.int64) if without is None else without)

    def allowed(self, rows: Ints | None = None) -> Mask:
        """Ids that may come next, ``[rows, ids]``; where all are unwanted, they may come still."""
        filled = self.filled if rows is None else self.filled[rows]
        patterns, which = np.unique(filled, axis=0, return_inverse=True)
        fits = self.grammar.fitting(patterns)
        wanted = fits & ~self._never
        stuck = ~wanted.any(axis=1)
        wanted[stuck] = fits[stuck]
        return np.asarray(wanted[which.reshape(-1)])

    def over(self) -> Mask:
        """Rows whose event is over: nothing but another event can come."""
        return np.logical_not(np.any(self.filled, axis=1, keepdims=True)[:, 0])

    def finished(self) -> Mask:
        """Rows whose first event is whole."""
        return self.over() & (self.events > 0)

    def opens(self, ids: Ints) -> Mask:
        """Which of the next ids begin another event, ``[rows]``."""
        return self.over() & self.grammar.fills[ids].any(axis=1)

    def advance(self, ids: Ints, moving: Mask | None = None) -> None:
        """Consume one id per row.

        Args:
            ids: The next ids, ``[rows]``.
            moving: Only these rows move.

        Raises:
            TokenizerError: An id cannot stand where it stands.
        """
        moving = np.ones(len(ids), np.bool_) if moving is None else moving
        fills = self.grammar.fills[ids]
        wrong = moving & ((fills & self.filled).any(axis=1) | ~fills.any(axis=1))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise TokenizerError(
                f"the id {int(ids[row])} cannot stand here",
                where=f"row {row}",
                why="it fills a field of the event that is filled, or none",
            )
        self.events += moving & self.over()
        self.filled[moving] |= fills[moving]
        self.filled[self.filled.all(axis=1)] = False


def merged_grammar(bundle: Bundle) -> MergedGrammar:
    """The grammar of a bundle's merged ids.

    Raises:
        ArtifactError: Its events cannot be told apart: merges across events, sources, or optional
            fields.
    """
    assert bundle.merges is not None
    fields = SlotGrammar.of(bundle.tokenizer)
    if bundle.merges.crosses_events:
        raise _undefined(
            bundle,
            "a merged token may hold parts of several events, so the model gives no probability "
            "to an event alone",
            "train with tokenizer.merges.across_events: false; this model embeds and fine-tunes",
        )
    if fields.forms is not None:
        raise _undefined(
            bundle,
            "merged tokens do not tell where an event of varying fields ends",
            "train without tokenizer.merges; this model embeds and fine-tunes",
        )
    return MergedGrammar(fields, bundle.merges, ordered=not bundle.permuted)


def generating_grammar(bundle: Bundle) -> SlotGrammar | MergedGrammar:
    """The grammar that futures of a bundle are generated under.

    Raises:
        ArtifactError: As `merged_grammar`; or merges of semantic ids.
    """
    if bundle.merges is None:
        return SlotGrammar.of(bundle.tokenizer)
    grammar = merged_grammar(bundle)
    if grammar.fields.existing is not None:
        raise _undefined(
            bundle,
            "merged tokens hold parts of semantic ids, which could join to ids of no entity",
            "train without tokenizer.merges to generate; this model embeds and is evaluated",
        )
    return grammar


def _undefined(bundle: Bundle, why: str, next_step: str) -> ArtifactError:
    return ArtifactError(
        "this model cannot be asked for single events",
        where=None if bundle.folder is None else str(bundle.folder),
        why=why,
        next_step=next_step,
    )
