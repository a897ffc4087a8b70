"""Rows of ids with the owner of every token: what an attribution is summed up by.

::

    ids      BOS [KIND=tea] [AMOUNT=B03] [SHOP] cor ner │ [KIND=cash] [AMOUNT=B07] [SHOP_MISSING]
    event     −1     0           0          0    0   0  │     1            1             1
    field     −1    kind       amount      shop shop shop    kind        amount         shop
    unit      ·      0           1          2    2   2  │     3            4             5

A *unit* is one field of one event: its tokens stand side by side. BOS, the token that names an
event's source, and the tokens that are asked for (the question of a next-event score) belong to
no unit: they are given, and nothing is attributed to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.fields import TextTokenizer
from domainformer.tokenizers.fields.text import FIRST_PIECE
from domainformer.tokenizers.inspection.meaning import meaning
from domainformer.tokenizers.slots import BPE

Ints = npt.NDArray[np.int64]
NONE = -1


@dataclass(frozen=True, eq=False)
class Row:
    """One history.

    Args:
        ids: Token ids int64 [n], BOS first; empty where no events are read.
        slot: Index of the slot that each token belongs to; −1 for BOS.
        field: Index among the reader's fields; −1 where nothing is attributed.
        event: Number of the event, from 0 (the oldest); −1 for BOS.
        scored: So many tokens at the end are what is asked for.
    """

    ids: Ints
    slot: Ints
    field: Ints
    event: Ints
    scored: int = 0

    @property
    def n_events(self) -> int:
        """Events in the row."""
        return int(self.event[-1]) + 1 if len(self.event) else 0

    @cached_property
    def free(self) -> npt.NDArray[np.bool_]:
        """Tokens that belong to a unit, [n]."""
        return self.field >= 0

    @cached_property
    def unit(self) -> Ints:
        """The unit of each token, −1 for none, [n]."""
        starts = np.ones(len(self.ids), np.bool_)
        starts[1:] = (self.field[1:] != self.field[:-1]) | (self.event[1:] != self.event[:-1])
        number = np.cumsum(starts & self.free) - 1
        return np.where(self.free, number, NONE)

    @cached_property
    def starts(self) -> Ints:
        """First token of each unit."""
        return np.flatnonzero(np.diff(self.unit, prepend=NONE) * self.free)

    @cached_property
    def stops(self) -> Ints:
        """One past the last token of each unit."""
        return self.starts + np.bincount(self.unit[self.free], minlength=len(self.starts))

    @property
    def unit_event(self) -> Ints:
        """Event of each unit."""
        return self.event[self.starts]

    @property
    def unit_field(self) -> Ints:
        """Field of each unit."""
        return self.field[self.starts]

    def splice(self, replacements: Mapping[int, Ints]) -> Ints:
        """The ids with other tokens in the place of some units'.

        Args:
            replacements: New ids by unit; none leave the unit out.
        """
        parts, done = [], 0
        for unit in sorted(replacements):
            parts += [self.ids[done : self.starts[unit]], replacements[unit]]
            done = int(self.stops[unit])
        return np.concatenate([*parts, self.ids[done:]])

    def without_event(self, event: int) -> Ints:
        """The ids without an event's."""
        return self.ids[self.event != event]


_NOTHING = np.empty(0, np.int64)
EMPTY = Row(_NOTHING, _NOTHING, _NOTHING, _NOTHING)
"""A row of a model that reads no events."""


class RowReader:
    """Tells whose a token is, what stands for its absence, and what it says.

    Args:
        tokenizer: A fitted tokenizer.

    Example:
        >>> import polars as pl
        >>> from domainformer.schema import DomainSchema, FieldSpec
        >>> schema = DomainSchema("s", [
        ...     FieldSpec("kind", "categorical_fixed"), FieldSpec("sign", "sign")])
        >>> frame = pl.DataFrame({"kind": ["tea", "cash"], "sign": [1.0, -1.0]})
        >>> tokenizer = DomainTokenizer(schema).fit(frame)
        >>> reader = RowReader(tokenizer)
        >>> row = reader.read(np.array([1, *tokenizer.encode(frame).ids]))
        >>> row.event.tolist(), row.field.tolist()
        ([-1, 0, 0, 1, 1], [-1, 0, 1, 0, 1])
        >>> [tokenizer.vocab[i] for i in reader.without(row, 1)]
        ['[BOS]', '[KIND=tea]', '[SIGN_MISSING]', '[KIND=cash]', '[SIGN=NEG]']
    """

    def __init__(self, tokenizer: DomainTokenizer) -> None:
        self.tokenizer = tokenizer
        layout = tokenizer.layout
        self.slot_of_id = layout.slot_of_id
        names = list(dict.fromkeys(slot.field for slot in layout.slots))
        sourced = tokenizer.forms.sourced
        # The source of an event is its shape, not its content: no value could stand there instead.
        self.fields = tuple(names[1:] if sourced else names)
        own = {name: place for place, name in enumerate(self.fields)}
        self._field_of_slot = np.array([own.get(slot.field, NONE) for slot in layout.slots])
        self._missing_of_slot = np.array([slot.missing for slot in layout.slots], np.int64)
        optional = {block.spec.name for block in layout.blocks if block.spec.optional}
        self._optional = np.array([name in optional for name in self.fields], np.bool_)
        self._told: dict[bytes, str] = {}

    def read(self, ids: Ints, *, scored: int = 0) -> Row:
        """The owners of a row's tokens; the last ``scored`` of them are asked for."""
        ids = np.asarray(ids, np.int64)
        slot = self._slots(ids)
        event = np.cumsum(self.slot_of_id[ids] == 0) - 1
        field = np.where(slot >= 0, self._field_of_slot[slot], NONE)
        if scored:
            field[-scored:] = NONE
        return Row(ids, slot, field, np.where(slot >= 0, event, NONE), scored)

    def question(self, ids: Ints, field: int) -> Row | None:
        """The row up to its newest value of a field, whose tokens are what is asked for."""
        slot = self._slots(np.asarray(ids, np.int64))
        own = np.flatnonzero((slot >= 0) & (self._field_of_slot[slot] == field))
        if not len(own):
            return None
        event = np.cumsum(self.slot_of_id[ids] == 0)
        first = int(own[event[own] == event[own[-1]]][0])
        stop = int(own[-1]) + 1
        return self.read(ids[:stop], scored=stop - first)

    def missing(self, row: Row) -> Ints:
        """For every token the id that says that its field has no value; BOS is itself, [n]."""
        return np.where(row.slot >= 0, self._missing_of_slot[row.slot], row.ids)

    def without(self, row: Row, unit: int) -> Ints:
        """The ids with the MISSING of its slots in place of a unit; optional fields vanish."""
        return row.splice({unit: self.absent(row, unit)})

    def absent(self, row: Row, unit: int) -> Ints:
        """What stands for a unit without a value: its slots' MISSING, nothing if optional."""
        if self._optional[row.unit_field[unit]]:
            return np.empty(0, np.int64)
        own = slice(int(row.starts[unit]), int(row.stops[unit]))
        heads = self.slot_of_id[row.ids[own]] >= 0
        return self._missing_of_slot[row.slot[own][heads]]

    def value(self, ids: Ints) -> str:
        """What the tokens of one unit say, for people.

        A text is spelt out; several positions are joined by commas.
        """
        key = ids.tobytes()
        if key not in self._told:
            self._told[key] = self._tell(ids)
        return self._told[key]

    def _tell(self, ids: Ints) -> str:
        layout = self.tokenizer.layout
        owner = {slot: block for block in layout.blocks for slot in block.slots}
        words: list[str] = []
        pieces: list[int] = []
        for index in ids.tolist():
            if layout.slot_of_id[index] == BPE:
                pieces.append(int(layout.local_of_id[index]) - FIRST_PIECE)
            else:
                block = owner[layout.slots[layout.slot_of_id[index]]]
                words.append(meaning(block, int(layout.local_of_id[index]), short=True))
        if pieces:
            assert isinstance(block.tokenizer, TextTokenizer)
            assert block.tokenizer.bpe is not None
            return block.tokenizer.bpe.decode(pieces)
        return ", ".join(words)

    def _slots(self, ids: Ints) -> Ints:
        """The slot of each token; the pieces of a text have that of its marker."""
        slot = self.slot_of_id[ids]
        heads = np.maximum.accumulate(np.where(slot == BPE, 0, np.arange(len(ids))))
        return np.maximum(slot[heads], NONE)
