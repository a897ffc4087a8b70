"""One event at a time, for online serving: the same ids as the columns, in a few microseconds.

A table encoder costs tens of microseconds for a single row; here each field's fitted table is asked
for one Python value. ``tests/tokenizers/test_properties.py`` proves both paths equal.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

from domainformer.errors import TokenizerError, nearest
from domainformer.tokenizers.fields import ElapsedTimeTokenizer, TextTokenizer
from domainformer.tokenizers.fields.text import FIRST_PIECE
from domainformer.tokenizers.slots import Layout

_MICROSECOND = dt.timedelta(microseconds=1)
_NAN = float("nan")
_FIXED, _TEXT, _ELAPSED = range(3)

Event = Mapping[str, Any]
# What one field does: its column, its scalar encoder, what to add to its local ids, its kind.
_Step = tuple[str, Callable[[Any], tuple[int, ...]], int, int]


class EventEncoder:
    """Encodes single events with the fitted fields of a layout.

    Args:
        layout: The fitted fields.
        vocab: Id → token.
    """

    def __init__(self, layout: Layout, vocab: list[str]) -> None:
        self._layout = layout
        self._vocab = vocab
        self._piece = layout.first_bpe - FIRST_PIECE
        self._steps: list[_Step] = []
        for block in layout.blocks:
            tokenizer = block.tokenizer
            text = isinstance(tokenizer, TextTokenizer)
            elapsed = isinstance(tokenizer, ElapsedTimeTokenizer)
            kind = _TEXT if text else _ELAPSED if elapsed else _FIXED
            step: _Step = (block.spec.source, tokenizer.encode_one, block.start, kind)
            if block.added or (text and len(layout.pieces) > 1):
                # Ids that extensions added lie elsewhere, so a table stands for the addition.
                globally = _looked_up(tokenizer.encode_one, layout.ids_of(block).tolist())
                step = (block.spec.source, globally, 0, _FIXED)
            self._steps.append(step)

    def ids(self, event: Event, previous_time: Any) -> list[int]:
        """Token ids of one event (see `DomainTokenizer.encode_event`)."""
        ids: list[int] = []
        try:
            for column, encode_one, start, kind in self._steps:
                value = event[column]
                if kind == _ELAPSED:
                    value = gap(value, previous_time, field=column)
                local = encode_one(value)
                if kind == _TEXT:
                    ids.append(local[0] + start)
                    piece = self._piece
                    ids += [index + piece for index in local[1:]]
                else:
                    for index in local:
                        ids.append(index + start)
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


def _looked_up(
    encode_one: Callable[[Any], tuple[int, ...]], global_ids: list[int]
) -> Callable[[Any], tuple[int, ...]]:
    """A scalar encoder that gives ids of the shared vocabulary."""

    def encode(value: Any) -> tuple[int, ...]:
        return tuple([global_ids[local] for local in encode_one(value)])

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
        return (difference // _MICROSECOND) / 1_000_000
    return float(difference)


def _moment(time: Any) -> Any:
    """A date as its midnight, anything else as it is."""
    if type(time) is dt.date:
        return dt.datetime(time.year, time.month, time.day)
    return time
