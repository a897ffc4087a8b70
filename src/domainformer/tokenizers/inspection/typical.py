"""An event of typical values: an example for people where no table is at hand.

A tokenizer keeps no event of those it was fitted on, so one is made up of what it knows: the most
frequent label, the middle bin's representative, two words of the byte-pair vocabulary.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.fields import (
    CalendarTokenizer,
    CategoricalTokenizer,
    DiscreteTokenizer,
    ElapsedTimeTokenizer,
    MagnitudeBucketTokenizer,
    TextTokenizer,
)
from domainformer.tokenizers.fields.source import SourceTokenizer

_MADE_UP_YEAR = 2024
_LONGEST_WORD = 10


def typical_event(tokenizer: DomainTokenizer) -> tuple[dict[str, Any], Any]:
    """An event of typical values and the time of its predecessor; what is not known is None."""
    event: dict[str, Any] = dict.fromkeys(tokenizer.schema.columns)
    previous: Any = None
    for block in tokenizer.layout.blocks:
        column, field = block.spec.source, block.tokenizer
        if event[column] is None:
            event[column] = _typical_value(tokenizer, field)
        if isinstance(field, ElapsedTimeTokenizer):
            event[column], previous = _typical_gap(event[column], field)
    return event, previous


def _typical_value(tokenizer: DomainTokenizer, field: FieldTokenizer) -> Any:
    if isinstance(field, SourceTokenizer):
        return field.names[0]
    if isinstance(field, CategoricalTokenizer):
        return field.values[0] if field.values else None
    if isinstance(field, DiscreteTokenizer):
        return int(field.kept[len(field.kept) // 2]) if len(field.kept) else None
    if isinstance(field, MagnitudeBucketTokenizer):
        return _middle(field.representatives)
    if isinstance(field, CalendarTokenizer):
        year = field.anchor if "year" in field.parts else _MADE_UP_YEAR
        return dt.datetime(year, 3, 29, 17, 45)
    if isinstance(field, TextTokenizer):
        return _typical_text(tokenizer)
    return None


def _typical_gap(time: Any, field: ElapsedTimeTokenizer) -> tuple[Any, Any]:
    """A time and one before it, of the kind that the table had."""
    gap = _middle(field.representatives)
    if field.time_kind == "integer":
        return 1000, 1000 - int(gap)
    now = time or dt.datetime(_MADE_UP_YEAR, 3, 29, 17, 45)
    if field.time_kind == "date":
        now = dt.datetime.combine(now.date(), dt.time())
        return now.date(), (now - dt.timedelta(seconds=gap)).date()
    return now, now - dt.timedelta(seconds=gap)


def _middle(representatives: npt.NDArray[np.float64]) -> float:
    """The one in the middle of those that are known, or 0."""
    known = representatives[np.isfinite(representatives)]
    return float(known[(len(known) + 1) // 2]) if len(known) > 1 else 0.0


def _typical_text(tokenizer: DomainTokenizer) -> str:
    """Two words that the vocabulary knows: a beginning and a continuation."""
    vocab = tokenizer.vocab
    pieces = [vocab[index] for index in tokenizer.layout.piece_ids.tolist()]
    words = [piece for piece in pieces if piece.isalpha() and piece.strip("Ġ").isascii()]
    words = [word for word in words if len(word) <= _LONGEST_WORD]
    begins = [token for token in words if not token.startswith("Ġ")]
    follows = [token[1:] for token in words if token.startswith("Ġ") and len(token) > 1]
    chosen = [max(some, key=len) for some in (begins, follows) if some]
    return " ".join(chosen)
