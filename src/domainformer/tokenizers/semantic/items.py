"""Tables of entities, one row each: read, checked, or summed up from events.

An items table says what entities are like (a title, a price, tags). Where there is none, the
events themselves say something of the entities in them::

    event columns    strings of some words ─▶ the commonest text      labels ─▶ a set
                     numbers ─▶ mean and spread                       rows   ─▶ how many
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.data import EventTable
from domainformer.data.frames import to_polars
from domainformer.data.readers import scan
from domainformer.errors import DataError, nearest
from domainformer.tokenizers.fields.columns import canonical_text, dictionary

# Labels of an entity beyond these say little, and long tails cost much.
_MOST_LABELS = 16
_WORDS_OF_TEXT = 2.0


class Items(NamedTuple):
    """Entities in the order of their names.

    Args:
        names: Canonical texts, sorted, distinct.
        frame: Their feature columns, a row each.
    """

    names: list[str]
    frame: pl.DataFrame


def read_items(data: Any, column: str) -> Items:
    """A table of one row per entity, as polars, pandas or pyarrow give it.

    Args:
        data: The table.
        column: Holds the entities; rows without one are left out.

    Raises:
        DataError: The column is missing, or an entity has two rows.

    Example:
        >>> items = read_items(pl.DataFrame({"id": [7, 3], "title": ["b", "a"]}), "id")
        >>> items.names, items.frame["title"].to_list()
        (['3', '7'], ['a', 'b'])
    """
    frame = to_polars(data, columns=None, where="the items table")
    if column not in frame.columns:
        raise DataError(
            f"the items have no column {column!r}",
            why=f"it must hold the entities; there are {', '.join(frame.columns)}",
            next_step="rename the column to the one that the field reads",
        )
    codes, distinct = dictionary(frame[column], field=column)
    texts = [canonical_text(value) for value in distinct]
    names = [(texts[code], row) for row, code in enumerate(codes.tolist())]
    known = sorted((name, row) for name, row in names if name is not None)
    for (name, row), (other, _) in zip(known[1:], known, strict=False):
        if name == other:
            raise DataError(
                f"the entity {name!r} has two rows",
                where=f"items table, row {row}",
                next_step="keep one row per entity; values are compared by their text",
            )
    rows = [row for _, row in known]
    return Items([name for name, _ in known], frame.drop(column)[rows])


def items_of(data: Any, column: str) -> Items:
    """Entities from a table of them, from the path of one, or summed up from an event table."""
    if isinstance(data, EventTable):
        return items_of_events(data, column)
    if isinstance(data, str | Path):
        data, _ = scan(data).collect()
    return read_items(data, column)


def merged_items(given: Items, others: list[str]) -> Items:
    """The given entities and further ones, of which nothing is known but the name."""
    new = sorted(set(others) - set(given.names))
    if not new:
        return given
    schema = given.frame.schema
    blank = pl.DataFrame({name: [None] * len(new) for name in schema}, schema=schema)
    names = [*given.names, *new]
    frame = pl.concat([given.frame, blank]) if given.frame.width else given.frame
    order = sorted(range(len(names)), key=names.__getitem__)
    return Items([names[i] for i in order], frame[order] if frame.width else frame)


class Occurrences(NamedTuple):
    """Where entities occur in events.

    Args:
        names: Canonical texts, sorted.
        codes: Index into the names at each event, −1 for null.
        offsets: Histories: the events of history i are ``offsets[i]:offsets[i + 1]``.
    """

    names: list[str]
    codes: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    @classmethod
    def of(cls, events: EventTable | pl.DataFrame, column: str) -> Occurrences:
        """The occurrences in events; a frame alone is one history.

        Raises:
            DataError: There is no such column.
        """
        frame = events.frame if isinstance(events, EventTable) else events
        if column not in frame.columns:
            raise DataError(
                f"the events have no column {column!r}", next_step=nearest(column, frame.columns)
            )
        codes, distinct = dictionary(frame[column], field=column)
        texts = [canonical_text(value) for value in distinct]
        names = sorted({text for text in texts if text is not None})
        index: dict[str | None, int] = {name: row for row, name in enumerate(names)}
        to_name = np.array([index.get(text, -1) for text in texts], np.int64)
        offsets = events.offsets if isinstance(events, EventTable) else np.array([0, frame.height])
        return cls(names, to_name[codes], np.asarray(offsets, np.int64))

    def under(self, names: list[str]) -> npt.NDArray[np.int64]:
        """Codes as indices into other names, which contain all of these."""
        index = {name: row for row, name in enumerate(names)}
        to_other = np.array([*(index[name] for name in self.names), -1], np.int64)
        return to_other[self.codes]


def items_of_events(events: EventTable | pl.DataFrame, column: str) -> Items:
    """What the other columns of events say of the entities in one of them.

    Args:
        events: The events; the columns of their owner and time are not read.
        column: Holds the entities.

    Example:
        >>> events = pl.DataFrame({"p": ["b", "a", "b"], "price": [2.0, 5.0, 4.0]})
        >>> items = items_of_events(events, "p")
        >>> items.names, items.frame["price_mean"].to_list(), items.frame["events"].to_list()
        (['a', 'b'], [5.0, 3.0], [1, 2])
    """
    occurrences = Occurrences.of(events, column)
    frame = events.frame if isinstance(events, EventTable) else events
    owners = {events.entity, events.time} if isinstance(events, EventTable) else set()
    said = [name for name in frame.columns if name not in {column, *owners}]
    keyed = (
        frame.select(said).with_columns(pl.Series("", occurrences.codes)).filter(pl.col("") >= 0)
    )
    wanted = [pl.len().alias("events")]
    for name in said:
        wanted += _summaries(frame[name])
    summed = keyed.group_by("").agg(wanted).sort("")
    return Items(occurrences.names, summed.drop(""))


def _summaries(column: pl.Series) -> list[pl.Expr]:
    """What is kept of one event column for an entity."""
    name, dtype = pl.col(column.name), column.dtype
    if dtype.is_numeric():
        finite = name.cast(pl.Float64).filter(name.cast(pl.Float64).is_finite())
        return [
            finite.mean().alias(f"{column.name}_mean"),
            finite.std(ddof=0).alias(f"{column.name}_spread"),
        ]
    if dtype == pl.String:
        words = column.str.count_matches(r"\w+").mean()
        if isinstance(words, float) and words >= _WORDS_OF_TEXT:
            # The commonest text; of several equally common ones the first by its letters.
            return [name.drop_nulls().mode().sort().first().alias(column.name)]
    if dtype in (pl.String, pl.Categorical, pl.Enum, pl.Boolean):
        labels = name.cast(pl.String).drop_nulls()
        return [labels.unique().sort().head(_MOST_LABELS).alias(column.name)]
    return []
