"""Every field of a table as codes into rows of ids: what `kernels.join` puts together.

::

    numbers, times         stay columns of numbers; their codes are computed while joining
    strings, categories    distinct values first, then one look-up for each of these
    text                   distinct texts first, then byte-pair encoding of each of these

With numba the distinct strings are found in Arrow's buffers, a dictionary column (Categorical,
Enum) is used by its own codes, and plain texts are encoded without becoming Python strings.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import TokenizerError
from domainformer.tokenizers.base import MISSING, Ragged
from domainformer.tokenizers.fields import (
    BinTokenizer,
    CalendarTokenizer,
    LookupTokenizer,
    TextTokenizer,
)
from domainformer.tokenizers.fields.columns import canonical_text, dictionary
from domainformer.tokenizers.fields.text import FIRST_PIECE, MARKER
from domainformer.tokenizers.kernels import (
    Ids,
    Spans,
    Stepped,
    distinct_codes,
    distinct_strings,
    encode_plain,
    string_views,
)
from domainformer.tokenizers.kernels.sources import Codes, Int64Array
from domainformer.tokenizers.slots import Block, Layout

# A column of which more strings than this share are distinct is not worth numbering.
_MOST_DISTINCT = 0.5
# The longest dictionary of texts that is kept for the next call.
_MOST_REMEMBERED = 1 << 17


class Known(NamedTuple):
    """A column by its distinct values: row ``i`` has ``values[rows[codes[i]]]``.

    Attributes:
        codes: Integers [n_rows].
        rows: For each code its value; codes that do not occur have any.
        values: The values, strings, the last one null if the column has nulls.
    """

    codes: Codes
    rows: Int64Array
    values: pl.Series


def known_values(column: pl.Series) -> Known | None:
    """A column of strings or categories by its distinct values (compiled only).

    ::

        strings     "b"  null  "b"  "a"   ─▶  codes 0 2 0 1,  values "b" "a" null
        categories   7    –     7    4    ─▶  codes as they are, rows 7 ↦ 0, 4 ↦ 1

    Returns:
        None for other columns, and where most strings are distinct.
    """
    kind = column.dtype
    if kind not in (pl.String, pl.Categorical, pl.Enum) or len(column) == column.null_count():
        return None
    nulls = column.is_null().to_numpy() if column.null_count() else None
    if kind == pl.String:
        # What a null holds is arbitrary.
        plain = column if nulls is None else column.fill_null("")
        views = string_views(plain)
        found = None if views is None else distinct_strings(views, most=_MOST_DISTINCT)
        if found is None:
            return None
        codes: Codes = found.codes
        values, rows = plain.gather(found.first), np.arange(len(found.first))
    else:
        physical = column.to_physical()
        n_codes = int(physical.max()) + 1  # type: ignore[arg-type]
        if nulls is not None:
            physical = physical.cast(pl.UInt32).fill_null(n_codes)
        codes = physical.to_numpy()
        first = distinct_codes(codes, n_codes + (nulls is not None))[:n_codes]
        present = first >= 0
        values = column.gather(first[present]).cast(pl.String)
        rows = np.where(present, np.cumsum(present) - 1, 0)
    if nulls is not None:
        if kind == pl.String:
            codes[nulls] = len(rows)
        rows = np.append(rows, len(values))
        values = values.extend(pl.Series([None], dtype=pl.String))
    return Known(codes, rows, values)


def field_spans(
    layout: Layout,
    block: Block,
    column: pl.Series,
    dtype: npt.DTypeLike,
    known: Known | None,
    *,
    compiled: bool,
) -> Spans:
    """One field as codes into rows of global ids.

    Args:
        layout: The vocabulary.
        block: The field.
        column: What it reads.
        dtype: Type of the ids.
        known: The column by its distinct values, if these were found.
        compiled: Whether plain texts are encoded by the compiled loop.

    Raises:
        TokenizerError: The field is of no shape that the encoder knows.
    """
    tokenizer = block.tokenizer
    # Local id → global id: a field's ids may lie apart.
    names: Ids = layout.ids_of(block).astype(dtype)
    if isinstance(tokenizer, TextTokenizer):
        return _text_spans(tokenizer, column, names, known, compiled=compiled)
    if isinstance(tokenizer, BinTokenizer):
        return Spans.of_table(tokenizer.binned(column), names[:, None])
    if isinstance(tokenizer, CalendarTokenizer) and (plan := tokenizer.plan(column)) is not None:
        steps = Stepped(plan.times, plan.unit, plan.first, plan.missing)
        return Spans.of_table(steps, names[plan.table])
    if isinstance(tokenizer, LookupTokenizer):
        if known is None:
            codes, table = tokenizer.codes(column)
            return Spans.of_table(codes, names[table])
        codes, table = tokenizer.codes(known.values)
        return Spans.of_table(known.codes, names[table[codes[known.rows]]])
    raise TokenizerError(
        f"the encoder does not know {type(tokenizer).__name__}",
        where=f"field {block.spec.name!r}",
        next_step="derive it from BinTokenizer, LookupTokenizer or TextTokenizer",
    )


def _text_spans(
    tokenizer: TextTokenizer, column: pl.Series, names: Ids, known: Known | None, *, compiled: bool
) -> Spans:
    """A text field; equal to its own `codes`."""
    if known is not None:
        ids, row = _remembered_rows(tokenizer, known.values, names)
        table = Ragged(ids.values, ids.offsets).take(row[known.rows])  # type: ignore[arg-type]
        return Spans(known.codes, table.values, table.offsets, None)  # type: ignore[arg-type]
    if compiled and column.dtype == pl.String and len(column):
        ids, row = _rows_of_strings(tokenizer, column, names)
        return Spans(row, ids.values, ids.offsets, None)
    codes, distinct = dictionary(column, field=tokenizer.spec.name)
    ids = _looked_up(tokenizer.pieces([canonical_text(value) for value in distinct]), names)
    return Spans(codes, ids.values, ids.offsets, None)


class _Rows(NamedTuple):
    """Rows of global ids, one after the other."""

    values: Ids
    offsets: Int64Array


class _Seen(NamedTuple):
    """A table of distinct texts that was made before."""

    texts: pl.Series
    names: Ids
    found: tuple[_Rows, Int64Array]


def _remembered_rows(
    tokenizer: TextTokenizer, texts: pl.Series, names: Ids
) -> tuple[_Rows, Int64Array]:
    """As `_rows_of_strings`; a dictionary that comes again is compared, not encoded."""
    if len(texts) > _MOST_REMEMBERED:
        return _rows_of_strings(tokenizer, texts, names)
    for seen in tuple(tokenizer.tables):
        if np.array_equal(seen.names, names) and seen.texts.equals(texts):
            return seen.found
    found = _rows_of_strings(tokenizer, texts, names)
    tokenizer.tables.append(_Seen(texts, names, found))
    return found


def _rows_of_strings(
    tokenizer: TextTokenizer, texts: pl.Series, names: Ids
) -> tuple[_Rows, Int64Array]:
    """Rows of global ids of strings, and which row each string has (compiled only)."""
    assert tokenizer.bpe is not None
    array = texts.to_arrow(compat_level=pl.CompatLevel.oldest())
    _, ends, data = array.buffers()
    offsets = np.frombuffer(ends, np.int64)[array.offset : array.offset + len(array) + 1]
    text = (
        np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
    )
    values, starts, plain = encode_plain(
        text, offsets, tokenizer.spec.max_tokens, tokenizer.bpe.merges, names[MARKER:]
    )
    row = np.arange(len(texts))
    special = ~plain
    if texts.null_count():
        special |= texts.is_null().to_numpy()
    others = np.flatnonzero(special)
    if not len(others):
        return _Rows(values, starts), row
    slow = _looked_up(tokenizer.pieces(texts.gather(others).to_list()), names)
    row[others] = len(texts) + np.arange(len(others))
    joined = np.concatenate([values, slow.values])
    return _Rows(joined, np.concatenate([starts, starts[-1] + slow.offsets[1:]])), row


def _looked_up(pieces: list[list[int] | None], names: Ids) -> _Rows:
    """Rows of global ids: MISSING alone for None, else the marker and the pieces."""
    lengths = np.fromiter((0 if row is None else len(row) for row in pieces), np.int64, len(pieces))
    offsets = np.concatenate([[0], np.cumsum(lengths + 1)])
    ids = np.empty(int(offsets[-1]), np.int64)
    ids[offsets[:-1]] = [MISSING if row is None else MARKER for row in pieces]
    is_piece = np.ones(len(ids), np.bool_)
    is_piece[offsets[:-1]] = False
    flat = chain.from_iterable(row for row in pieces if row)
    ids[is_piece] = np.fromiter(flat, np.int64, int(lengths.sum())) + FIRST_PIECE
    return _Rows(names[ids], offsets)
