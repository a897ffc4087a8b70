"""One event at a time, for online serving: the same ids as the columns, in a few microseconds.

A table encoder costs tens of microseconds for a single row; here each field's fitted table is asked
for one Python value, and what was looked up is remembered as ids of the vocabulary::

    number     bisect in the edges       ─▶ ids
    string     dictionary                ─▶ ids    (a new one goes through the field, once)
    time       dictionary of hours       ─▶ ids
    others     the field's encode_one    ─▶ ids

``tests/tokenizers/test_properties.py`` proves both paths equal on random events, and
``benchmarks/tokenize.py`` on the two million of its table.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Callable, Mapping
from typing import Any

from domainformer.errors import TokenizerError, nearest
from domainformer.tokenizers.base import MISSING
from domainformer.tokenizers.fields import (
    BinTokenizer,
    CalendarTokenizer,
    ElapsedTimeTokenizer,
    TextTokenizer,
)
from domainformer.tokenizers.fields.columns import as_float
from domainformer.tokenizers.slots import Block, Layout

_MICROSECOND = dt.timedelta(microseconds=1)
_NAN = float("nan")
# Values remembered by each field, and the longest string worth it.
_MOST_REMEMBERED = 1 << 16
_LONGEST_REMEMBERED = 256

Event = Mapping[str, Any]
_Ids = tuple[int, ...]
_Encode = Callable[[Any], _Ids]


class EventEncoder:
    """Encodes single events with the fitted fields of a layout.

    Args:
        layout: The fitted fields.
        vocab: Id → token.
    """

    def __init__(self, layout: Layout, vocab: list[str]) -> None:
        self._layout = layout
        self._vocab = vocab
        # What each field does: its column, its scalar encoder, whether it reads elapsed time.
        self._steps: list[tuple[str, _Encode, bool]] = []
        for block in layout.blocks:
            elapsed = isinstance(block.tokenizer, ElapsedTimeTokenizer)
            self._steps.append((block.spec.source, _scalar_encoder(layout, block), elapsed))

    def ids(self, event: Event, previous_time: Any) -> list[int]:
        """Token ids of one event (see `DomainTokenizer.encode_event`)."""
        ids: list[int] = []
        try:
            for column, encode, elapsed in self._steps:
                value = event[column]
                if elapsed:
                    value = gap(value, previous_time, field=column)
                ids += encode(value)
        except KeyError:
            raise self._missing_column(event) from None
        return ids

    def tokens(self, event: Event, previous_time: Any) -> list[str]:
        """Tokens of one event, as entries of the vocabulary."""
        return [self._vocab[index] for index in self.ids(event, previous_time)]

    def render(self, event: Event, previous_time: Any) -> str:
        """One event as a string whose Hugging Face encoding gives its ids."""
        ids = iter(self.ids(event, previous_time))
        parts: list[str] = []
        for block in self._layout.blocks:
            parts += [self._vocab[next(ids)] for _ in block.slots]
            tokenizer = block.tokenizer
            if isinstance(tokenizer, TextTokenizer):
                text = tokenizer.truncate(event[block.spec.source])
                if text is not None:
                    parts.append(tokenizer.escape(text))
                    for _ in tokenizer.encode_one(text)[1:]:
                        next(ids)
        return "".join(parts)

    def _missing_column(self, event: Event) -> TokenizerError:
        wanted = list(dict.fromkeys(step[0] for step in self._steps))
        missing = [column for column in wanted if column not in event]
        return TokenizerError(
            f"the event has no {', '.join(map(repr, missing))}",
            why=f"the schema reads {', '.join(wanted)}",
            next_step=nearest(missing[0], map(str, event))
            if missing and event
            else "give every column; None stands for a value that is not known",
        )


def _scalar_encoder(layout: Layout, block: Block) -> _Encode:
    """A function from one value of a field to its ids of the shared vocabulary."""
    tokenizer = block.tokenizer
    # A table stands for the addition of an offset: ids that extensions added lie elsewhere.
    names: list[int] = layout.ids_of(block).tolist()
    encode_one = tokenizer.encode_one

    def through_field(value: Any) -> _Ids:
        return tuple([names[local] for local in encode_one(value)])

    if isinstance(tokenizer, ElapsedTimeTokenizer):
        return through_field
    if isinstance(tokenizer, BinTokenizer):
        return _bins(tokenizer, [(index,) for index in names])
    if isinstance(tokenizer, CalendarTokenizer):
        return _hours(through_field)
    return _strings(through_field)


def _bins(tokenizer: BinTokenizer, names: list[_Ids]) -> _Encode:
    edges, absolute, field = tokenizer.edges.tolist(), tokenizer.absolute, tokenizer.spec.name

    def encode(value: Any) -> _Ids:
        number = value if type(value) is float else as_float(value, field=field)
        if number != number:
            return names[MISSING]
        return names[bisect_right(edges, abs(number) if absolute else number) + 1]

    return encode


def _hours(through_field: _Encode) -> _Encode:
    """Datetimes of one hour have the same calendar parts, and so have equal dates."""
    known: dict[int, _Ids] = {}

    def encode(value: Any) -> _Ids:
        kind = type(value)
        if kind is dt.datetime:
            key = value.toordinal() * 24 + value.hour
        elif kind is dt.date:
            key = -value.toordinal()
        else:
            return through_field(value)
        ids = known.get(key)
        if ids is None:
            ids = through_field(value)
            if len(known) < _MOST_REMEMBERED:
                known[key] = ids
        return ids

    return encode


def _strings(through_field: _Encode) -> _Encode:
    """Strings are remembered; other values are not, since True, 1 and 1.0 would be one key."""
    known: dict[str, _Ids] = {}

    def encode(value: Any) -> _Ids:
        if type(value) is not str:
            return through_field(value)
        ids = known.get(value)
        if ids is None:
            ids = through_field(value)
            if len(known) >= _MOST_REMEMBERED:
                known.clear()
            if len(value) <= _LONGEST_REMEMBERED:
                known[value] = ids
        return ids

    return encode


def gap(time: Any, previous: Any, *, field: str) -> float | None:
    """Time since the previous event, as `EventTable.elapsed` and its encoder read it.

    Args:
        time: This event's time: a date, a datetime, or a whole number; None where not known.
        previous: The previous event's; None where there is none, NaN where it is not known.
        field: The column, for the error.

    Returns:
        Seconds, or units of whole numbers; None at a first event, NaN where it cannot be known.

    Raises:
        TokenizerError: The two are of kinds that cannot be compared.

    Example:
        >>> gap(dt.datetime(2024, 5, 1, 12), dt.date(2024, 5, 1), field="time")
        43200.0
        >>> gap(7, 4, field="time")
        3.0
    """
    if time is None or time != time:
        return _NAN
    if previous is None:
        return None
    if previous != previous:
        return _NAN
    try:
        difference = _moment(time) - _moment(previous)
    except TypeError as error:
        raise TokenizerError(
            f"the times {time!r} and {previous!r} cannot be compared",
            where=f"column {field!r}",
            why=str(error),
            next_step="give both as datetimes of one kind, or both as whole numbers",
        ) from None
    if isinstance(difference, dt.timedelta):
        # As the columns do: microseconds rounded to a float first, which tells beyond 285 years.
        return float(difference // _MICROSECOND) / 1_000_000
    return float(difference)


def _moment(time: Any) -> Any:
    """A date as its midnight, a time with a zone in UTC, anything else as it is."""
    if type(time) is dt.date:
        return dt.datetime(time.year, time.month, time.day)
    # Python subtracts the wall clocks of one zone, whatever happened between (summer time).
    if isinstance(time, dt.datetime) and time.tzinfo is not None:
        return time.astimezone(dt.UTC)
    return time
