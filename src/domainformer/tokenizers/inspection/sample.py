"""What the checks look at: events with their ids, and the positions that ids may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data import EventTable
from domainformer.errors import DataError
from domainformer.schema.fields import FieldType
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.fitting import read_columns
from domainformer.tokenizers.inspection.annotate import event_at
from domainformer.tokenizers.slots import BPE


@dataclass(frozen=True)
class Sample:
    """Events of whole histories, and some of them to be looked at one by one.

    Args:
        tokenizer: The tokenizer.
        table: The histories.
        rows: The events to be looked at, in order.
        ids: Token ids of each of them, as `encode` gave them.
        events: Their values and the time of each one's predecessor.
    """

    tokenizer: DomainTokenizer
    table: EventTable
    rows: list[int]
    ids: list[list[int]]
    events: list[tuple[dict[str, Any], Any]]

    @classmethod
    def draw(
        cls,
        tokenizer: DomainTokenizer,
        table: EventTable | pl.DataFrame,
        events: int,
        seed: int,
    ) -> Sample:
        """Whole histories until there are enough events, and so many of their events."""
        columns = read_columns(tokenizer.schema, table)
        if not columns.frame.height:
            raise DataError("there are no events to look at", next_step="check the table's filters")
        table = _one_history(table) if isinstance(table, pl.DataFrame) else table
        generator = np.random.default_rng(seed)
        part = table.take_entities(draw_entities(table.lengths, events, generator))
        return cls.of_histories(tokenizer, part, events, generator)

    @classmethod
    def of_histories(
        cls,
        tokenizer: DomainTokenizer,
        part: EventTable,
        events: int,
        generator: np.random.Generator,
    ) -> Sample:
        """Some events of histories that were drawn by `draw_entities` with the same generator."""
        count = min(events, part.n_events)
        rows = np.sort(generator.choice(part.n_events, count, replace=False)).tolist()
        encoded = tokenizer.encode(part, compiled=False)
        ends = encoded.event_offsets
        ids = [encoded.ids[ends[row] : ends[row + 1]].tolist() for row in rows]
        labels = _shortest_labels(tokenizer, part.frame)
        pairs = [event_at(part, row) for row in rows]
        return cls(tokenizer, part, rows, ids, [(_serve(e, labels), before) for e, before in pairs])


def draw_entities(
    lengths: npt.NDArray[np.int64], events: int, generator: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Entities in random order until they have enough events.

    Args:
        lengths: Events of each entity.
        events: How many are enough.
        generator: Of the order.
    """
    order = generator.permutation(len(lengths))
    enough = int(np.searchsorted(np.cumsum(lengths[order]), events)) + 1
    return order[:enough]


def _one_history(frame: pl.DataFrame) -> EventTable:
    """The events of a frame as those of one entity, in the order of its rows."""
    entity = "entity"
    while entity in frame.columns:
        entity += "_"
    return EventTable.of(frame.with_columns(pl.lit(0).alias(entity)), entity=entity)


def _shortest_labels(tokenizer: DomainTokenizer, frame: pl.DataFrame) -> set[str]:
    """Columns of 32-bit floats that are read as labels."""
    as_labels = {
        spec.source
        for spec in tokenizer.schema.fields
        if spec.field_type.is_categorical or spec.field_type is FieldType.TEXT
    }
    return {name for name in as_labels if frame.schema.get(name) == pl.Float32}


def _serve(event: dict[str, Any], labels: set[str]) -> dict[str, Any]:
    """The event as a caller would write it: 0.1, not 0.10000000149011612, for a 32-bit float."""
    for name in labels:
        if event[name] is not None:
            event[name] = float(str(np.float32(event[name])))
    return event


class Positions:
    """Finds the first id of an event that stands where it may not, by the forms of the tokenizer.

    Args:
        tokenizer: The tokenizer.
    """

    def __init__(self, tokenizer: DomainTokenizer) -> None:
        self.forms = tokenizer.forms
        self.slots = tokenizer.layout.slots
        self.place = tokenizer.layout.slot_of_id.tolist()

    def problem(self, ids: list[int]) -> str | None:
        """What is wrong with the ids of one event; None where nothing is."""
        size = len(self.place)
        outside = [index for index in ids if not 0 <= index < size]
        if outside or not ids:
            return f"the id {outside[:1]} is outside the vocabulary of {size}"
        number = int(self.forms.form_of_id[ids[0]])
        if number < 0:
            return f"no event begins with the id {ids[0]}"
        form = self.forms.each[number]
        if form.most is not None and len(ids) > form.most:
            return f"{len(ids)} tokens are more than the {form.most} of its source"
        order = self.forms.slot_indices[number].tolist()
        rank = {slot: position for position, slot in enumerate(order)}
        last, room, filled = -1, 0, set()
        for index in ids:
            here = self.place[index]
            if here == BPE:
                room -= 1
                if room < 0:
                    return f"the piece of text {index} has no text, or is one too many"
            elif rank.get(here, -1) <= last:
                return f"the id {index} does not belong behind {form.slots[last].name!r}"
            else:
                last = rank[here]
                filled.add(last)
                slot = self.slots[here]
                room = slot.max_tokens if slot.ragged and index != slot.missing else 0
        first = 0
        for block in form.layout.blocks:
            parts = range(first, first := first + len(block.slots))
            empty = [part for part in parts if part not in filled]
            if empty and not (block.spec.optional and len(empty) == len(parts)):
                return f"the position {form.slots[empty[0]].name!r} is empty"
        return None
