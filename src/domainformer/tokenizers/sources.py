"""Encoding where events differ: sources with fields of their own, optional fields, budgets.

::

    rows by source   cards     ─▶ encode_columns of its fields ─▶ trim ─╮
                     transfers ─▶ encode_columns of its fields ─▶ trim ─┼─▶ interleave ─▶ ids
                     app       ─▶ encode_columns of its fields ─▶ trim ─╯

Each source's rows go through the same encoder as a table of one kind; putting them back into the
order of the table is one more ragged concatenation. There is no Python per event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import TokenizerError, nearest
from domainformer.schema import DomainSchema
from domainformer.tokenizers.base import Int32Array
from domainformer.tokenizers.encoder import Columns, encode_columns
from domainformer.tokenizers.events import EventEncoder
from domainformer.tokenizers.fields import ElapsedTimeTokenizer, TextTokenizer
from domainformer.tokenizers.fields.columns import canonical_text
from domainformer.tokenizers.fields.source import SourceTokenizer
from domainformer.tokenizers.fields.text import FIRST_PIECE
from domainformer.tokenizers.forms import EventForm, Forms, Ints
from domainformer.tokenizers.kernels import Joined, Spans, join
from domainformer.tokenizers.slots import BPE
from domainformer.tokenizers.trimming import trim, trim_one

_EVENTS_PER_PASS = 1 << 22


def encode_forms(
    forms: Forms,
    columns: Columns,
    dtype: np.dtype[np.unsignedinteger[Any]],
    *,
    compiled: bool | None = None,
) -> Joined:
    """Ids of all events of a table, whatever their forms.

    Args:
        forms: The forms of a fitted tokenizer.
        columns: The table.
        dtype: Type of the ids.
        compiled: Use numba; None where it is installed.

    Raises:
        TokenizerError: An event has no source, or one that the schema does not name.
    """
    if forms.plain:
        return encode_columns(forms.layout, columns, dtype, compiled=compiled)
    if not forms.sourced:
        joined = encode_columns(forms.layout, columns, dtype, compiled=compiled)
        return trim(forms.each[0], joined)
    n_events = columns.frame.height
    number = source_numbers(forms.opening.tokenizer, columns.frame)
    parts = []
    for start in range(0, n_events, _EVENTS_PER_PASS):
        stop = min(start + _EVENTS_PER_PASS, n_events)
        part = columns.slice(start, stop - start)
        parts.append(_encode_pass(forms, part, number[start:stop], dtype, compiled))
    ids = np.concatenate([np.empty(0, dtype), *(part.ids for part in parts)])
    lengths = np.concatenate([np.empty(0, np.int64), *(np.diff(part.offsets) for part in parts)])
    return Joined(ids, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]))


def _encode_pass(
    forms: Forms,
    columns: Columns,
    number: Int32Array,
    dtype: np.dtype[np.unsignedinteger[Any]],
    compiled: bool | None,
) -> Joined:
    parts = []
    for index, form in enumerate(forms.each):
        rows = np.flatnonzero(number == index)
        if len(rows):
            own = _rows_of(form, columns, rows)
            encoded = encode_columns(form.layout, own, dtype, compiled=compiled)
            parts.append((rows, trim(form, encoded)))
    return interleave(parts, columns.frame.height, dtype, compiled=compiled)


def _rows_of(form: EventForm, columns: Columns, rows: Ints) -> Columns:
    """Some rows of the columns that a form reads."""
    blocks = form.layout.blocks
    wanted = list(dict.fromkeys(block.spec.source for block in blocks))
    frame = columns.frame.select(wanted)[rows]
    asked = any(isinstance(block.tokenizer, ElapsedTimeTokenizer) for block in blocks)
    elapsed = columns.elapsed.gather(rows) if asked and columns.elapsed is not None else None
    return Columns(frame, elapsed, columns.time)


def interleave(
    parts: Sequence[tuple[Ints, Joined]],
    n_events: int,
    dtype: npt.DTypeLike,
    *,
    compiled: bool | None = None,
) -> Joined:
    """Put the events of several parts in one order.

    Args:
        parts: For each part, which places its events have among all, ascending, and their ids.
        n_events: Number of all events; each has its place in one part.
        dtype: Type of the ids.
        compiled: Use numba; None where it is installed.

    Example:
        >>> a = Joined(np.array([7, 8, 9], np.uint8), np.array([0, 1, 3]))
        >>> b = Joined(np.array([4, 5], np.uint8), np.array([0, 2]))
        >>> interleave([(np.array([0, 2]), a), (np.array([1]), b)], 3, np.uint8).ids
        array([7, 4, 5, 8, 9], dtype=uint8)
    """
    code = np.empty(n_events, np.int32)
    seen = 0
    for rows, _ in parts:
        code[rows] = np.arange(seen, seen + len(rows))
        seen += len(rows)
    ids = np.concatenate([np.empty(0, dtype), *(part.ids for _, part in parts)])
    lengths = [np.diff(part.offsets) for _, part in parts]
    offsets = np.cumsum(np.concatenate([np.zeros(1, np.int64), *lengths]))
    return join([Spans(code, ids, offsets, None)], n_events, dtype, compiled=compiled)


def source_numbers(tokenizer: Any, frame: pl.DataFrame) -> Int32Array:
    """Which source each row is of, counted from 0 in the schema's order.

    Args:
        tokenizer: A :class:`SourceTokenizer`.
        frame: Events with the column of the sources.

    Raises:
        TokenizerError: An event has no source, or one that the schema does not name.
    """
    codes, table = tokenizer.codes(frame[tokenizer.spec.source])
    return np.asarray(table[:, 0][codes] - 1, np.int32)


@dataclass(frozen=True)
class FieldRows:
    """Which rows of a table a field is fitted on: those of the sources that use it.

    Args:
        users: For each field the sources that use it, counted from 0; empty without sources.
        number: The source of each row; None without sources.
    """

    users: Mapping[str, tuple[int, ...]]
    number: Int32Array | None

    @classmethod
    def of(cls, schema: DomainSchema, frame: pl.DataFrame) -> FieldRows:
        """The rows of each field of a table.

        Raises:
            TokenizerError: An event has no source, or one that the schema does not name.

        Example:
            >>> from domainformer.schema import FieldSpec
            >>> schema = DomainSchema("bank",
            ...     [FieldSpec("amount", "sign"), FieldSpec("screen", "categorical_fixed")],
            ...     sources={"cards": {"fields": ["amount"]}, "app": {"fields": ["screen"]}})
            >>> frame = pl.DataFrame({"source": ["app", "cards"], "screen": ["home", None]})
            >>> FieldRows.of(schema, frame).take("screen", frame["screen"]).to_list()
            ['home']
        """
        if schema.source_spec is None:
            return cls({}, None)
        users: dict[str, tuple[int, ...]] = {}
        for index, source in enumerate(schema.sources.values()):
            for name in source.fields:
                users[name] = (*users.get(name, ()), index)
        names = tuple(schema.sources)
        return cls(users, source_numbers(SourceTokenizer(schema.source_spec, names), frame))

    def take(self, field: str, column: pl.Series) -> pl.Series:
        """The values of a column in the rows of a field."""
        if self.number is None or field not in self.users:
            return column
        return column.filter(pl.Series(np.isin(self.number, self.users[field])))


class FormEncoder:
    """Encodes single events of several forms; equal to `encode_forms`.

    Args:
        forms: The forms of a fitted tokenizer.
        vocab: Id → token.
    """

    def __init__(self, forms: Forms, vocab: list[str]) -> None:
        self._vocab = vocab
        self._layout = forms.layout
        self._column = forms.opening.spec.source if forms.sourced else None
        self._forms = {
            form.source: (EventEncoder(form.layout, vocab), form, frozenset(form.never.tolist()))
            for form in forms.each
        }
        texts = (b.tokenizer for b in forms.layout.blocks if isinstance(b.tokenizer, TextTokenizer))
        self._bpe = next((text.bpe for text in texts), None)

    def ids(self, event: Mapping[str, Any], previous_time: Any) -> list[int]:
        """Token ids of one event (see `DomainTokenizer.encode_event`)."""
        source = None if self._column is None else event.get(self._column)
        if source is not None and type(source) is not str:
            source = canonical_text(source)
        if source not in self._forms:
            raise self._unknown(source)
        encoder, form, hidden = self._forms[source]
        return trim_one(form, hidden, encoder.ids(event, previous_time))

    def tokens(self, event: Mapping[str, Any], previous_time: Any) -> list[str]:
        """Tokens of one event, as entries of the vocabulary."""
        return [self._vocab[index] for index in self.ids(event, previous_time)]

    def render(self, event: Mapping[str, Any], previous_time: Any) -> str:
        """One event as a string whose Hugging Face encoding gives its ids."""
        parts: list[str] = []
        pieces: list[int] = []
        for index in [*self.ids(event, previous_time), None]:
            if index is not None and self._layout.slot_of_id[index] == BPE:
                pieces.append(int(self._layout.local_of_id[index]) - FIRST_PIECE)
                continue
            if pieces and self._bpe is not None:
                parts.append(self._bpe.escape(self._bpe.decode(pieces)))
                pieces = []
            if index is not None:
                parts.append(self._vocab[index])
        return "".join(parts)

    def _unknown(self, source: Any) -> TokenizerError:
        names = [name for name in self._forms if name is not None]
        return TokenizerError(
            "the event has no source" if source is None else f"there is no source {source!r}",
            where=f"column {self._column!r}",
            why="the source decides which fields an event has",
            next_step=f"give one of: {', '.join(names)}"
            if source is None
            else nearest(str(source), names),
        )
