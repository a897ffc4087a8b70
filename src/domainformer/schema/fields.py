"""What one field of an event is, and how each of its tokens is spelt.

A field reads one column of the event table and becomes one or more positions of the event's token
sequence. The spelling of every token is decided here and nowhere else, so that the fitted
tokenizers, the saved vocabulary and the single-event path cannot disagree::

    SIGN                  [AMOUNT=NEG] [AMOUNT=POS]                       [AMOUNT_MISSING]
    NUMERICAL_CONTINUOUS  [AMOUNT=B00] [AMOUNT=B01] …                     [AMOUNT_MISSING]
    NUMERICAL_DISCRETE    [QUANTITY=3] [QUANTITY=-1] … [QUANTITY_UNK]     [QUANTITY_MISSING]
    CATEGORICAL_*         [KIND=Postage] … [KIND_HASH=07] [KIND_UNK]      [KIND_MISSING]
      semantic ids        [KIND_1=017] [KIND_2=203] … (see semantic.py)   [KIND_1_MISSING] …
    TEMPORAL              [TIME_MONTH=01] … [TIME_ELAPSED=FIRST] …        [TIME_MONTH_MISSING] …
    TEXT                  [MERCHANT] and then byte-level BPE tokens       [MERCHANT_MISSING]

The prefix is the field's name in capitals with everything but letters, digits and ``_`` replaced.
"""

from __future__ import annotations

import re
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from pydantic import ValidationError

from domainformer.config import StrictConfig
from domainformer.errors import SchemaError, nearest
from domainformer.schema.semantic import MAX_CODES, MAX_LEVELS, code_problems, semantic_stems

#: Ids 0 to 3 of every vocabulary.
GENERIC_SPECIALS: tuple[str, ...] = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")
MAX_BINS = 4096


class FieldType(StrEnum):
    """The seven kinds of field.

    Example:
        >>> FieldType("sign") is FieldType.SIGN
        True
    """

    NUMERICAL_CONTINUOUS = "numerical_continuous"
    NUMERICAL_DISCRETE = "numerical_discrete"
    CATEGORICAL_FIXED = "categorical_fixed"
    CATEGORICAL_ENTITY = "categorical_entity"
    TEMPORAL = "temporal"
    TEXT = "text"
    SIGN = "sign"

    @property
    def is_categorical(self) -> bool:
        """Whether the field's tokens stand for the values of a learned vocabulary of labels."""
        return self in (FieldType.CATEGORICAL_FIXED, FieldType.CATEGORICAL_ENTITY)


class CalendarPart(NamedTuple):
    """One part of a date: its name, smallest value, number of values, and digits in a token."""

    name: str
    first: int
    size: int
    digits: int


#: The parts that a TEMPORAL field may show, by name. A year is a number from 0 to 9 after the
#: field's anchor year.
CALENDAR_PARTS: MappingProxyType[str, CalendarPart] = MappingProxyType(
    {
        part.name: part
        for part in (
            CalendarPart("month", 1, 12, 2),
            CalendarPart("dow", 1, 7, 1),
            CalendarPart("dom", 1, 31, 2),
            CalendarPart("hour", 0, 24, 2),
            CalendarPart("quarter", 1, 4, 1),
            CalendarPart("year", 0, 10, 1),
        )
    }
)

_LABELS = frozenset({"vocab_size", "min_frequency", "hash_buckets"})
_OPTIONS: dict[FieldType, frozenset[str]] = {
    FieldType.NUMERICAL_CONTINUOUS: frozenset({"n_bins", "binning", "edges"}),
    FieldType.NUMERICAL_DISCRETE: frozenset({"vocab_size", "min_frequency"}),
    FieldType.CATEGORICAL_FIXED: _LABELS,
    FieldType.CATEGORICAL_ENTITY: _LABELS | {"semantic_levels", "semantic_codes"},
    FieldType.TEMPORAL: frozenset({"calendar_fields", "elapsed_bins", "year_anchor"}),
    FieldType.TEXT: frozenset({"max_tokens"}),
    FieldType.SIGN: frozenset(),
}
_FOR_ALL = frozenset({"name", "field_type", "column", "optional", "description"})


class FieldSpec(StrictConfig):
    """One field of an event: what it is called, what it reads and how it is tokenized.

    Args:
        name: The field's name; its tokens carry it as their prefix.
        field_type: One of :class:`FieldType`, or its value as a string.
        vocab_size: Discrete and categorical: keep at most this many values (None: all).
        n_bins: Continuous: bins of the magnitude |x|, of which B00 holds exactly zero.
        calendar_fields: Temporal: calendar parts in token order, out of month, dow, dom, hour,
            quarter and year; may be empty where ``elapsed_bins`` is given.
        column: The source column where its name differs from the field's.
        optional: A value that is null emits no token at all, instead of the field's MISSING. The
            first field of an event cannot be optional (with sources, any field can be).
        binning: Continuous: ``"quantile"``, ``"log"`` (log-uniform) or ``"fixed"`` (``edges``).
        edges: Continuous, fixed: the k inner borders of |x|, positive and increasing; they make
            k + 1 bins beside the zero bin.
        min_frequency: Discrete and categorical: rarer values become the field's UNK.
        hash_buckets: Categorical: values outside the vocabulary share this many hash tokens.
        semantic_levels: Entity: codes of a semantic id (0: one token per entity).
        semantic_codes: Entity: values of each code.
        elapsed_bins: Temporal: bins of the time since the entity's previous event, of which B00
            holds exactly zero (0: no elapsed token).
        year_anchor: Temporal: the first of the ten year tokens (None: the first year seen in fit).
        max_tokens: Text: at most this many BPE tokens an event.
        description: A note for the reader.

    Raises:
        SchemaError: An option is unknown, impossible, or does not belong to the type; all
            problems of the field are told at once.

    Example:
        >>> FieldSpec("amount", FieldType.NUMERICAL_CONTINUOUS, n_bins=32).source
        'amount'
        >>> FieldSpec("direction", "sign", column="amount").source
        'amount'
    """

    name: str
    field_type: FieldType
    vocab_size: int | None = None
    n_bins: int = 21
    calendar_fields: tuple[str, ...] = ("month", "dow", "dom", "hour")
    column: str | None = None
    optional: bool = False
    binning: Literal["quantile", "log", "fixed"] = "quantile"
    edges: tuple[float, ...] | None = None
    min_frequency: int = 1
    hash_buckets: int = 0
    semantic_levels: int = 0
    semantic_codes: int = 256
    elapsed_bins: int = 0
    year_anchor: int | None = None
    max_tokens: int = 16
    description: str = ""

    def __init__(self, name: str = "", field_type: FieldType | str = "", **options: Any) -> None:
        where = f"field {name!r}" if name else "a field without a name"
        try:
            super().__init__(**{"name": name, "field_type": field_type, **options})
        except ValidationError as error:
            problems = [_told(problem) for problem in error.errors(include_url=False)]
        else:
            problems = _problems(self)
        if problems:
            raise SchemaError(
                "the field cannot be built" if len(problems) == 1 else "the field has errors",
                where=where,
                why="\n         ".join(problems),
            )

    @property
    def source(self) -> str:
        """The column that the field reads."""
        return self.column if self.column is not None else self.name

    @property
    def prefix(self) -> str:
        """The beginning of each of the field's tokens, after the bracket."""
        return token_prefix(self.name)

    @property
    def bin_count(self) -> int:
        """Continuous: the largest number of bins that a fit can make, the zero bin included."""
        return self.n_bins if self.edges is None else len(self.edges) + 2

    def options(self) -> dict[str, Any]:
        """The values that differ from the defaults, as plain data (what the YAML shows)."""
        return self.model_dump(mode="json", exclude_defaults=True)


def _told(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key ({nearest(key, FieldSpec.model_fields)})"
    if key == "field_type":
        hint = nearest(str(problem["input"]), [kind.value for kind in FieldType])
        return f"field_type: {str(problem['input'])!r} is not a field type ({hint})"
    return f"{key}: {problem['msg'].lower()} (given: {problem['input']!r})"


def _problems(spec: FieldSpec) -> list[str]:
    """Everything that is wrong with a field whose options have the right Python types."""
    problems = [] if spec.name.strip() else ["name: a field needs a name"]
    if spec.column is not None and not spec.column:
        problems.append("column: the name of a column cannot be empty")
    for option in spec.options().keys() - _FOR_ALL - _OPTIONS[spec.field_type]:
        takes = ", ".join(sorted(_OPTIONS[spec.field_type])) or "no options of its own"
        problems.append(f"{option}: does not belong to a {spec.field_type} field ({takes})")
    for option, low, high in (
        ("vocab_size", 1, None),
        ("n_bins", 2, MAX_BINS),
        ("min_frequency", 1, None),
        ("hash_buckets", 0, 1 << 20),
        ("semantic_levels", 0, MAX_LEVELS),
        ("semantic_codes", 2, MAX_CODES),
        ("elapsed_bins", 0, MAX_BINS),
        ("year_anchor", 1, 9990),
        ("max_tokens", 1, 1 << 16),
    ):
        value = getattr(spec, option)
        if value is not None and (value < low or (high is not None and value > high)):
            limit = f"at least {low}" if high is None else f"from {low} to {high}"
            problems.append(f"{option}: must be {limit} (given: {value})")
    if spec.elapsed_bins == 1:
        problems.append("elapsed_bins: one bin is the zero bin, so give at least 2 (or 0: none)")
    return sorted(problems) + _edge_problems(spec) + _calendar_problems(spec) + code_problems(spec)


def _edge_problems(spec: FieldSpec) -> list[str]:
    if spec.edges is None:
        fixed = spec.binning == "fixed"
        return ["edges: binning 'fixed' needs them, for example (10, 100)"] if fixed else []
    problems = []
    if spec.binning != "fixed":
        problems.append(f"edges: only binning 'fixed' takes them (given: {spec.binning!r})")
    finite = all(0 < edge < float("inf") for edge in spec.edges)
    increasing = all(a < b for a, b in zip(spec.edges, spec.edges[1:], strict=False))
    if not (spec.edges and finite and increasing):
        problems.append(f"edges: must be positive, finite and increasing (given: {spec.edges})")
    if spec.n_bins not in (FieldSpec.model_fields["n_bins"].default, len(spec.edges) + 2):
        problems.append(
            f"n_bins: {len(spec.edges)} edges make {len(spec.edges) + 2} bins, zero's included "
            f"(given: {spec.n_bins})"
        )
    return problems


def _calendar_problems(spec: FieldSpec) -> list[str]:
    problems = [
        f"calendar_fields: {part!r} is not a calendar part ({nearest(part, CALENDAR_PARTS)})"
        for part in spec.calendar_fields
        if part not in CALENDAR_PARTS
    ]
    if len(set(spec.calendar_fields)) < len(spec.calendar_fields):
        problems.append(f"calendar_fields: a part is named twice (given: {spec.calendar_fields})")
    if spec.field_type is FieldType.TEMPORAL:
        if not spec.calendar_fields and not spec.elapsed_bins:
            problems.append("calendar_fields: without parts the field needs elapsed_bins")
        if spec.year_anchor is not None and "year" not in spec.calendar_fields:
            problems.append("year_anchor: calendar_fields does not contain 'year'")
    return problems


def token_prefix(name: str) -> str:
    """The prefix that all tokens of a field share.

    Example:
        >>> token_prefix("unit price (£)")
        'UNIT_PRICE_'
    """
    return re.sub(r"\W+", "_", name).upper()


def missing_token(name: str) -> str:
    """Stands where the field's value is null."""
    return f"[{token_prefix(name)}_MISSING]"


def unknown_token(name: str) -> str:
    """Stands for a value that the fit did not see or did not keep."""
    return f"[{token_prefix(name)}_UNK]"


def sign_tokens(name: str) -> tuple[str, str]:
    """The tokens of a negative and of a positive value; zero is positive."""
    prefix = token_prefix(name)
    return f"[{prefix}=NEG]", f"[{prefix}=POS]"


def bin_token(name: str, index: int) -> str:
    """The token of one magnitude bin; bin 0 holds exactly zero.

    Example:
        >>> bin_token("amount", 3)
        '[AMOUNT=B03]'
    """
    return f"[{token_prefix(name)}=B{index:02d}]"


def category_token(name: str, value: str) -> str:
    """The token of one category or discrete number, with its value escaped.

    Example:
        >>> category_token("kind", "N'Papers [A]"), category_token("quantity", "-1")
        ("[KIND=N'Papers%20%5BA%5D]", '[QUANTITY=-1]')
    """
    return f"[{token_prefix(name)}={escape_value(value)}]"


def discrete_token(name: str, value: int) -> str:
    """The token of one whole number."""
    return f"[{token_prefix(name)}={value}]"


def hash_token(name: str, bucket: int) -> str:
    """The token that the values of one hash bucket of the tail share."""
    return f"[{token_prefix(name)}_HASH={bucket:02d}]"


def calendar_tokens(name: str, part: str) -> tuple[str, ...]:
    """The tokens of one calendar part in the order of its values.

    Example:
        >>> calendar_tokens("time", "quarter")
        ('[TIME_QUARTER=1]', '[TIME_QUARTER=2]', '[TIME_QUARTER=3]', '[TIME_QUARTER=4]')
    """
    shape = CALENDAR_PARTS[part]
    stem = f"{token_prefix(name)}_{part.upper()}"
    values = range(shape.first, shape.first + shape.size)
    return tuple(f"[{stem}={value:0{shape.digits}d}]" for value in values)


def calendar_missing_token(name: str, part: str) -> str:
    """Stands at one calendar part's position where the time is null.

    Each part has its own, so that the tokens of two positions of an event never overlap.
    """
    return f"[{token_prefix(name)}_{part.upper()}_MISSING]"


def elapsed_first_token(name: str) -> str:
    """Stands at an entity's first event, which has no previous one."""
    return f"[{token_prefix(name)}_ELAPSED=FIRST]"


def elapsed_bin_token(name: str, index: int) -> str:
    """The token of one bin of elapsed time; bin 0 holds exactly zero, a tie."""
    return f"[{token_prefix(name)}_ELAPSED=B{index:02d}]"


def elapsed_missing_token(name: str) -> str:
    """Stands at the elapsed position where this time or the previous one is null."""
    return f"[{token_prefix(name)}_ELAPSED_MISSING]"


def text_token(name: str) -> str:
    """The marker that opens a text; an empty string is the marker alone."""
    return f"[{token_prefix(name)}]"


def escape_value(value: str) -> str:
    """Percent-encode what must not stand inside a token: blanks, controls, brackets and ``%``.

    Injective, and undone by :func:`unescape_value`.

    Example:
        >>> escape_value("50% off"), unescape_value(escape_value("50% off"))
        ('50%25%20off', '50% off')
    """
    return "".join(
        "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
        if char in "[]%" or char.isspace() or not char.isprintable()
        else char
        for char in value
    )


def unescape_value(text: str) -> str:
    """The value that :func:`escape_value` was given."""
    return unquote(text, errors="surrogatepass")


def token_stems(spec: FieldSpec) -> frozenset[str]:
    """The beginnings of all tokens that the field can ever own, up to ``=`` or ``]``.

    Two fields whose stems are disjoint cannot own the same token, whatever values a fit finds.

    Example:
        >>> sorted(token_stems(FieldSpec("kind", "categorical_fixed", hash_buckets=8)))
        ['[KIND=', '[KIND_HASH=', '[KIND_MISSING]', '[KIND_UNK]']
    """
    name, prefix = spec.name, spec.prefix
    if spec.field_type is FieldType.TEMPORAL:
        parts = [part.upper() for part in spec.calendar_fields]
        parts += ["ELAPSED"] if spec.elapsed_bins else []
        return frozenset(
            stem for part in parts for stem in (f"[{prefix}_{part}=", f"[{prefix}_{part}_MISSING]")
        )
    if spec.semantic_levels:
        return semantic_stems(prefix, spec.semantic_levels)
    stems = {missing_token(name)}
    stems.add(text_token(name) if spec.field_type is FieldType.TEXT else f"[{prefix}=")
    if spec.field_type.is_categorical or spec.field_type is FieldType.NUMERICAL_DISCRETE:
        stems.add(unknown_token(name))
    if spec.hash_buckets:
        stems.add(f"[{prefix}_HASH=")
    return frozenset(stems)
