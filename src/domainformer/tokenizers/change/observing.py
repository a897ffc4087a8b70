"""What some events look like to a tokenizer, in parts that add up.

A table larger than memory comes as several, each with whole histories; counts of all of them are
the sum of the counts of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import polars as pl

from domainformer.data import EventTable
from domainformer.errors import DataError
from domainformer.schema import DomainSchema
from domainformer.tokenizers.fitting import read_columns
from domainformer.tokenizers.occupancy import outside_range
from domainformer.tokenizers.reference import Reference, SlotReference
from domainformer.tokenizers.slots import Layout
from domainformer.tokenizers.sources import FieldRows

Events = EventTable | pl.DataFrame
Counts = tuple[int, int]


@dataclass(frozen=True)
class Observation:
    """What some events look like.

    Args:
        counts: Of every position.
        outside: By position that has a range: values outside of that of the fit, and values in all.
    """

    counts: Reference
    outside: dict[str, Counts]

    @classmethod
    def of_table(
        cls,
        layout: Layout,
        schema: DomainSchema,
        table: Events,
        then: Reference | None,
        progress: Callable[[str], None] | None = None,
    ) -> Observation:
        """Look at one table.

        Args:
            layout: The fitted fields.
            schema: Theirs.
            table: Events.
            then: What the fit has seen: its ranges.
            progress: Called with the name of each field.

        Raises:
            SchemaError: The table does not fit the schema.
        """
        columns = read_columns(schema, table)
        rows = FieldRows.of(schema, columns.frame)
        outside: dict[str, Counts] = {}
        for block in layout.blocks:
            if progress is not None:
                progress(block.spec.name)
            column = rows.take(block.spec.name, columns.read_by(block.tokenizer))
            for slot in block.slots:
                before = None if then is None else then.slot(slot.name)
                found = outside_range(block.tokenizer, slot.part, column, _ends(before))
                if found is not None:
                    outside[slot.name] = found
        return cls(Reference.of_table(layout, schema, table, most=None), outside)

    def __add__(self, other: Observation) -> Observation:
        outside = dict(self.outside)
        for name, (hits, known) in other.outside.items():
            before = outside.get(name, (0, 0))
            outside[name] = before[0] + hits, before[1] + known
        return Observation(self.counts + other.counts, outside)

    def outside_share(self, slot: str) -> float | None:
        """Share of a position's values outside of its range; None where it has none."""
        if slot not in self.outside:
            return None
        hits, known = self.outside[slot]
        return hits / known if known else 0.0


def observe(
    layout: Layout,
    schema: DomainSchema,
    tables: Events | Iterable[Events],
    then: Reference | None,
    progress: Callable[[str], None] | None = None,
) -> Observation:
    """Look at one table, or at all parts of one, each with whole histories.

    Raises:
        SchemaError: A table does not fit the schema.
        TokenizerError: One is no table.
        DataError: There are no events.
    """
    parts = [tables] if isinstance(tables, Events) or not isinstance(tables, Iterable) else tables
    total: Observation | None = None
    for part in parts:
        seen = Observation.of_table(layout, schema, part, then, progress)
        total = seen if total is None else total + seen
    if total is None or not total.counts.events:
        raise DataError("there are no events to look at", next_step="check the table's filters")
    return total


def _ends(before: SlotReference | None) -> tuple[float, float] | None:
    if before is None or before.low is None or before.high is None:
        return None
    return before.low, before.high
