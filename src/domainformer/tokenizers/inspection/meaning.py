"""What one token says, in the words of a person who has never seen the vocabulary.

::

    [AMOUNT=B07]             18 – 22.84, typically 20
    [DATE_DOW=1]             Monday
    [DATE_ELAPSED=B03]       2 d – 4 d since the last event
    [KIND_UNK]               a value that the fit did not keep
"""

from __future__ import annotations

from typing import Any

from domainformer.schema.fields import FieldType
from domainformer.tokenizers.slots import Block

_UNITS = ((86_400 * 365.25, "y"), (86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_NAMES = {
    "dow": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "month": (
        *("January", "February", "March", "April", "May", "June"),
        *("July", "August", "September", "October", "November", "December"),
    ),
}
_FIXED = {
    "missing": "no value",
    "unknown": "a value that the fit did not keep",
    "first": "the first event of its history",
    "marker": "a text begins",
}


def meaning(block: Block, local_id: int, *, short: bool = False) -> str:
    """What a token of a field says.

    Args:
        block: The field with its fitted tokenizer.
        local_id: The token, counted from the field's own first.
        short: As few words as tell it apart from its neighbours (for lists).

    Example:
        >>> import polars as pl
        >>> from domainformer.schema import FieldSpec
        >>> from domainformer.tokenizers.fields import CalendarTokenizer
        >>> from domainformer.tokenizers.slots import lay_out
        >>> spec = FieldSpec("day", "temporal", calendar_fields=("dow", "dom"))
        >>> column = pl.Series(["2024-03-29"]).str.to_date()
        >>> (block,) = lay_out([CalendarTokenizer(spec).fit(column)]).blocks
        >>> meaning(block, 1), meaning(block, 0), meaning(block, 11)
        ('Monday', 'no value', 'day 3 of the month')
    """
    return told(block, block.tokenizer.describe(local_id), short=short)


def told(block: Block, facts: dict[str, Any], *, short: bool = False) -> str:
    """`meaning`, of what ``describe`` gave."""
    kind = facts["kind"]
    if kind in _FIXED:
        brief = {"unknown": "any other value", "first": "first event"}
        return brief.get(kind, _FIXED[kind]) if short else _FIXED[kind]
    if kind == "hash":
        return f"rare value, bucket {facts['bucket']}" + ("" if short else " of the tail")
    if block.spec.field_type is FieldType.SIGN:
        return "below zero" if facts["token"].endswith("=NEG]") else "zero or above"
    if block.spec.field_type is FieldType.TEMPORAL:
        return _of_time(block, facts, short=short)
    if kind == "zero":
        return "exactly 0"
    if kind == "bin":
        return _of_bin(facts, short=short)
    return _of_value(facts)


def duration(seconds: float) -> str:
    """Seconds in the largest fitting unit.

    Example:
        >>> duration(45.3), duration(5400), duration(172800)
        ('45.3 s', '1.5 h', '2 d')
    """
    for size, unit in _UNITS:
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _of_time(block: Block, facts: dict[str, Any], *, short: bool) -> str:
    if facts["kind"] == "value":
        return _of_part(facts, short=short)
    after = "" if short else " since the last event"
    if facts["kind"] == "zero":
        return "same time" + ("" if short else " as the last event")
    dated = getattr(block.tokenizer, "time_kind", None) in ("date", "datetime")
    shown = duration if dated else "{:.6g}".format
    low, high = facts.get("low"), facts.get("high")
    if high is None:
        return f"{shown(low or 0.0)} or more{after}"
    # The lowest edge is the resolution of the clock: a microsecond tells nobody anything.
    if not low or (dated and low < 1):
        return f"under {shown(high)}{after}"
    return f"{shown(low)} – {shown(high)}{after}"


def _of_part(facts: dict[str, Any], *, short: bool) -> str:
    part, value = facts["part"], facts["value"]
    if part in _NAMES:
        name = _NAMES[part][value - 1]
        return name[:3] if short else name
    if short:
        return str(value)
    return {
        "dom": f"day {value} of the month",
        "hour": f"from {value:02d}:00 to {value:02d}:59",
        "quarter": f"quarter {value}",
        "year": f"year {value}",
    }.get(part, f"{part} {value}")


def _of_bin(facts: dict[str, Any], *, short: bool) -> str:
    low, high = facts["low"], facts["high"]
    if short:
        return str(facts["interval"])
    if high is None:
        size = f"{low or 0:.6g} or more"
    else:
        size = f"{low:.6g} – {high:.6g}" if low else f"under {high:.6g}"
    typical = facts.get("representative")
    return size if typical is None else f"{size}, typically {typical:.6g}"


def _of_value(facts: dict[str, Any]) -> str:
    """A category, number or piece of text; others by what their field says of them."""
    if "value" in facts:
        value = facts["value"]
        return repr(value) if isinstance(value, str) and value.strip() != value else shown(value)
    return str(facts.get("text", facts.get("meaning", facts["kind"])))


def shown(value: Any, *, most: int = 60) -> str:
    r"""A value on one line: controls escaped, long texts cut, the empty text visible.

    Example:
        >>> shown("two\nlines"), shown(""), shown(None)
        ('two\\nlines', "''", '–')
    """
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    if not text:
        return "''"
    # Lone surrogates and controls must not reach a terminal.
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= most else text[: most - 1] + "…"
