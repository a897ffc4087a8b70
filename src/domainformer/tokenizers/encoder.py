"""From a table to ids: every field one column at a time, then one pass that joins them.

::

    frame ─▶ column ─▶ codes + table of ids ─╮
             column ─▶ codes + table of ids ─┼─▶ kernels.join ─▶ ids, event offsets
             text   ─▶ codes + ragged table ─╯

No Python object per event, and never a token string: distinct values are looked up once, and the
rest is arrays. A large table is encoded in passes of a few million events, so that the codes of
one pass are all that is held beside the table and the ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from domainformer.data import EventTable
from domainformer.data.keys import NULL_TIME
from domainformer.errors import SchemaError, TokenizerError
from domainformer.tokenizers.base import MISSING, FieldTokenizer, Int32Array
from domainformer.tokenizers.fields import (
    BinTokenizer,
    ElapsedTimeTokenizer,
    LookupTokenizer,
    TextTokenizer,
)
from domainformer.tokenizers.fields.columns import dictionary
from domainformer.tokenizers.fields.text import MARKER
from domainformer.tokenizers.kernels import (
    Ids,
    Joined,
    Spans,
    distinct_keys,
    join,
    numba_available,
)
from domainformer.tokenizers.slots import Block, Layout

_EVENTS_PER_PASS = 1 << 22
# Numbering strings by their storage pays from some thousand rows on, if each is used often.
_FEWEST_NUMBERED = 1 << 14
_LEAST_REPETITION = 4


@dataclass(frozen=True)
class Columns:
    """The columns that field tokenizers read.

    Args:
        frame: The events.
        elapsed: Time since the entity's previous event, as `ElapsedTimeTokenizer` reads it (null:
            no previous event; NaN: not known); None where the table cannot tell.
        time: Name of the time column that ``elapsed`` belongs to.
    """

    frame: pl.DataFrame
    elapsed: pl.Series | None = None
    time: str | None = None

    @classmethod
    def of(cls, table: EventTable | pl.DataFrame, *, elapsed: bool) -> Columns:
        """The columns of a table; a frame alone has no elapsed times, and few schemas ask."""
        if isinstance(table, pl.DataFrame):
            return cls(table)
        return cls(table.frame, elapsed_column(table) if elapsed else None, table.time)

    def read_by(self, tokenizer: FieldTokenizer) -> pl.Series:
        """The column that a field tokenizer reads.

        Raises:
            SchemaError: It needs elapsed times that this table does not have.
        """
        spec = tokenizer.spec
        if not isinstance(tokenizer, ElapsedTimeTokenizer):
            return self.frame[spec.source]
        if self.elapsed is None or spec.source != self.time:
            raise SchemaError(
                f"field {spec.name!r} needs the time since the entity's previous event",
                where=f"column {spec.source!r}",
                why=f"the table's time column is {self.time!r}"
                if self.time
                else "these events have no entities and no time column",
                next_step=f"build the table with EventTable.of(…, entity=…, time={spec.source!r}), "
                "or set the field's elapsed_bins to 0",
            )
        return self.elapsed

    def slice(self, start: int, length: int) -> Columns:
        """Some consecutive events."""
        elapsed = None if self.elapsed is None else self.elapsed.slice(start, length)
        return Columns(self.frame.slice(start, length), elapsed, self.time)


def elapsed_column(table: EventTable) -> pl.Series | None:
    """Elapsed time with null for a first event and NaN where this or the last time is null.

    Example:
        >>> frame = pl.DataFrame({"who": ["a", "a", "b"], "at": [3, None, 4]})
        >>> elapsed_column(EventTable.of(frame, entity="who", time="at")).to_list()
        [nan, nan, None]
    """
    if table.time is None:
        return None
    first = np.zeros(table.n_events, dtype=bool)
    first[table.offsets[:-1]] = True
    first &= table.time_values != NULL_TIME
    gaps = table.elapsed().fill_null(float("nan"))
    return gaps.set(pl.Series(first), None) if first.any() else gaps


def encode_columns(
    layout: Layout,
    columns: Columns,
    dtype: np.dtype[np.unsignedinteger],
    *,
    compiled: bool | None = None,
) -> Joined:
    """Ids of all events, one after the other.

    Args:
        layout: The fitted fields.
        columns: What they read.
        dtype: Type of the ids.
        compiled: Use numba; None where it is installed.
    """
    n_events = columns.frame.height
    compiled = numba_available() if compiled is None else compiled
    parts = [
        join(_spans(layout, part, dtype, compiled), part.frame.height, dtype, compiled=compiled)
        for part in _passes(columns, n_events)
    ]
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    offsets = [part.offsets[1:] + end for part, end in zip(parts, ends, strict=False)]
    ids: Ids = np.concatenate([np.empty(0, dtype), *(part.ids for part in parts)])
    return Joined(ids, np.concatenate([np.zeros(1, np.int64), *offsets]))


def shard_bounds(offsets: npt.NDArray[np.int64], events: int) -> list[tuple[int, int]]:
    """Ranges of entities of about ``events`` events each, at least one entity in each.

    Example:
        >>> shard_bounds(np.array([0, 3, 4, 9, 10]), 4)
        [(0, 2), (2, 3), (3, 4)]
    """
    bounds, first, count = [], 0, len(offsets) - 1
    while first < count:
        stop = int(np.searchsorted(offsets, offsets[first] + events, side="right")) - 1
        bounds.append((first, max(first + 1, stop)))
        first = bounds[-1][1]
    return bounds


def _passes(columns: Columns, n_events: int) -> Iterator[Columns]:
    for start in range(0, n_events, _EVENTS_PER_PASS):
        yield columns.slice(start, min(_EVENTS_PER_PASS, n_events - start))


def _spans(layout: Layout, columns: Columns, dtype: npt.DTypeLike, compiled: bool) -> list[Spans]:
    """All fields as codes into rows of global ids."""
    spans = []
    numbered: dict[str, _Numbered | None] = {}
    for block in layout.blocks:
        column = columns.read_by(block.tokenizer)
        known = None
        if compiled and column.dtype == pl.String and len(column) >= _FEWEST_NUMBERED:
            source = block.spec.source
            if source not in numbered:
                numbered[source] = _number_strings(column)
            known = numbered[source]
        if known is None:
            spans.append(_block_spans(layout, block, column, dtype))
        else:
            few = _block_spans(layout, block, known.values, dtype)
            spans.append(few._replace(codes=few.codes[known.codes]))
    return spans


class _Numbered(NamedTuple):
    """A column as codes into few values, which may repeat: ``values[codes]``."""

    codes: Int32Array
    values: pl.Series


def _number_strings(column: pl.Series) -> _Numbered | None:
    """Find equal strings by where they are stored, or None where too few are stored together.

    Arrow keeps a string as a view of 16 bytes: short ones whole, long ones as a place in a buffer.
    Equal views are equal strings, and columns that were read from dictionaries (Parquet) or
    gathered store each string once or a few times. That shrinks the column many times over
    before any string is looked at, at a few nanoseconds per row.
    """
    nulls = column.is_null().to_numpy() if column.null_count() else None
    # The view of a null is arbitrary, and may be that of the empty string.
    plain = column if nulls is None else column.fill_null("")
    array = plain.to_arrow(compat_level=pl.CompatLevel.newest())
    if array.type != pa.string_view():
        return None
    views = np.frombuffer(array.buffers()[1], dtype=np.uint64).reshape(-1, 2)
    views = views[array.offset : array.offset + len(array)]
    found = distinct_keys(views, most=len(column) // _LEAST_REPETITION)
    if found is None:
        return None
    values, codes = plain.gather(found.first), found.codes
    if nulls is not None:
        codes[nulls] = len(values)
        values = values.extend(pl.Series([None], dtype=pl.String))
    return _Numbered(codes, values)


def _block_spans(layout: Layout, block: Block, column: pl.Series, dtype: npt.DTypeLike) -> Spans:
    """One field as codes into rows of global ids."""
    tokenizer = block.tokenizer
    if isinstance(tokenizer, TextTokenizer):
        return _text_spans(layout, block, tokenizer, column, dtype)
    if isinstance(tokenizer, LookupTokenizer):
        codes, rows = tokenizer.codes(column)
        return Spans.of_table(codes, layout.to_global(block, rows).astype(dtype))
    if isinstance(tokenizer, BinTokenizer):
        # A bin's id is its own code.
        own = np.arange(len(tokenizer.vocab))[:, None]
        codes = tokenizer.encode(column)[:, 0]
        return Spans.of_table(codes, layout.to_global(block, own).astype(dtype))
    raise TokenizerError(
        f"the encoder does not know {type(tokenizer).__name__}",
        where=f"field {block.spec.name!r}",
        next_step="derive it from BinTokenizer, LookupTokenizer or TextTokenizer",
    )


def _text_spans(
    layout: Layout,
    block: Block,
    tokenizer: TextTokenizer,
    column: pl.Series,
    dtype: npt.DTypeLike,
) -> Spans:
    """A text field; equal to its own `codes`, but in arrays from the first id on."""
    if column.dtype != pl.String or tokenizer.bpe is None:
        codes, table = tokenizer.codes(column)
        ids = layout.to_global(block, table.values).astype(dtype)
        return Spans(codes, ids, table.offsets, None)
    codes, (_, *texts) = dictionary(column, field=block.spec.name)
    pieces = [row.ids for row in tokenizer.bpe.truncate(texts, tokenizer.spec.max_tokens)]
    # Row 0 is the missing token alone; the others are the marker and their pieces.
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces)) + 1
    offsets = np.concatenate([[0, 1], 1 + np.cumsum(lengths)])
    ids = np.full(int(offsets[-1]), block.start + MARKER, dtype=dtype)
    ids[0] = block.start + MISSING
    is_piece = np.ones(len(ids), dtype=bool)
    is_piece[offsets[:-1]] = False
    flat = np.fromiter(chain.from_iterable(pieces), np.int64, int(is_piece.sum()))
    ids[is_piece] = layout.of_pieces(flat)
    return Spans(codes, ids, offsets, None)
