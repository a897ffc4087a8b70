"""From facts to fields: what a column becomes, and the sentence that says why.

The rules, in the order in which they are asked::

    strings, booleans   ≤ 512 values → CATEGORICAL_FIXED
                        codes that repeat → CATEGORICAL_ENTITY · words: ≤ 5,000 values that repeat
                        often → CATEGORICAL_ENTITY, else TEXT
    whole numbers       named as ids → as strings · few, status-like → CATEGORICAL_FIXED
                        ≤ 64 values → NUMERICAL_DISCRETE
    other numbers       NUMERICAL_CONTINUOUS, with a SIGN before it where values are negative
    dates, datetimes    TEMPORAL with the calendar parts that vary and can be learned
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from domainformer.schema.fields import FieldSpec, FieldType
from domainformer.schema.profile import ColumnProfile, TimeProfile, percent, words_of
from domainformer.schema.roles import is_identifier_name

FIXED_LIMIT = 512
ENTITY_LIMIT = 5_000
#: Codes beyond the most frequent ones share the hash buckets.
CODE_LIMIT = 20_000
DISCRETE_LIMIT = 64
FEW = 12
#: From this share of negative values on, a sign token is worth its place in every event.
SIGN_SHARE = 0.001
ELAPSED_BINS = 16
DEFAULT_BINS, FINE_BINS = 21, 64
#: A month can only be told from "late in the data" when the data covers more than a year.
MONTH_SPAN_DAYS = 400
#: Whole numbers from here on look like seconds (or finer units) since 1970.
EPOCH_SECONDS = 500_000_000
#: Byte-level BPE, trained on the column, takes about this many characters a token.
CHARACTERS_A_TOKEN = 3

_STATUS_WORDS = frozenset(
    ["status", "state", "type", "kind", "class", "category", "group", "level", "grade", "flag"]
    + ["segment", "mode", "gender", "sex", "stage", "tier", "channel", "method", "reason"]
)
_PROSE_WORDS = frozenset(
    ["text", "description", "memo", "note", "notes", "comment", "comments", "narrative", "message"]
    + ["remark", "remarks", "review", "details"]
)


@dataclass(frozen=True)
class Decision:
    """The fields that a column becomes, and why."""

    fields: tuple[FieldSpec, ...]
    reason: str


def decide(profile: ColumnProfile, *, bins: int = DEFAULT_BINS) -> Decision:
    """What a column (not the entity, the time or the label) becomes.

    Args:
        profile: Its facts; strings, booleans or numbers.
        bins: Magnitude bins, should it become continuous.

    Example:
        >>> from domainformer.schema.profile import profile_column
        >>> import polars as pl
        >>> decision = decide(profile_column(pl.Series("status", [0, 1, 2, 0, 0, 1] * 20)))
        >>> decision.fields[0].field_type, decision.reason
        (<FieldType.CATEGORICAL_FIXED: 'categorical_fixed'>, '3 whole numbers that name a status')
    """
    if profile.kind in ("string", "boolean"):
        return _labels(profile)
    if profile.whole and is_identifier_name(profile.column) and profile.distinct > FEW:
        return _codes(profile, "whole numbers that name things, not amounts")
    return _few_numbers(profile) or _amounts(profile, bins)


def decide_time(column: str, time: TimeProfile | None) -> Decision:
    """What the column of times becomes; perhaps nothing.

    Args:
        column: The column's name.
        time: Its facts (None: it holds no value).
    """
    if time is None:
        return Decision((), "it orders the events, but holds no value to learn from")
    parts, said = _calendar_parts(time)
    if time.regular:
        said.append("events follow each other at one step, so elapsed time would say nothing")
    elif time.tie_share:
        said.append(f"elapsed time in {ELAPSED_BINS} bins ({percent(time.tie_share)} ties)")
    else:
        said.append(f"elapsed time in {ELAPSED_BINS} bins")
    if not parts and time.regular and time.parts.get("month", 0) > 1:
        parts = ("month",)
        said.append("the month is all that is left of it")
    if not parts and time.regular:
        return Decision((), "it orders the events; " + "; ".join(said))
    bins = 0 if time.regular else ELAPSED_BINS
    spec = FieldSpec(column, FieldType.TEMPORAL, calendar_fields=parts, elapsed_bins=bins)
    return Decision((spec,), "; ".join(said))


def decide_further_time(column: str, time: TimeProfile | None) -> Decision:
    """What a date beside the column of times becomes: its calendar parts, or nothing."""
    parts, said = _calendar_parts(time) if time is not None else ((), [])
    if not parts:
        return Decision((), "a further date without a calendar part that varies")
    spec = FieldSpec(column, FieldType.TEMPORAL, calendar_fields=parts)
    return Decision((spec,), "; ".join(["a further date of the event", *said]))


def _calendar_parts(time: TimeProfile) -> tuple[tuple[str, ...], list[str]]:
    if time.kind == "integer":
        epoch = time.latest >= EPOCH_SECONDS
        hint = " (they look like Unix times: converted to datetimes they would)" if epoch else ""
        return (), [f"whole numbers have no calendar{hint}"]
    parts, said = [], []
    if time.parts["month"] > 1 and time.span_days >= MONTH_SPAN_DAYS:
        parts.append("month")
    else:
        said.append(
            f"no month: in {time.span_days:.0f} days no month comes twice, so that a later one "
            "would be new to the model"
        )
    if time.monthly:
        said.append("dates are months, so no day")
    else:
        parts += [part for part in ("dow", "dom") if time.parts[part] > 1]
    if time.time_of_day:
        parts.append("hour")
        said.append("times of day exist")
    elif time.kind == "datetime":
        said.append("datetimes without a time of day, so no hour")
    else:
        said.append("dates, so no hour")
    return tuple(parts), said


def _labels(profile: ColumnProfile) -> Decision:
    name, distinct = profile.column, profile.distinct
    words = profile.words >= 0.3
    if distinct <= FIXED_LIMIT and (profile.repeats >= 2 or distinct <= FEW):
        options: dict[str, Any] = {"min_frequency": 2} if distinct > 32 else {}
        spec = FieldSpec(name, FieldType.CATEGORICAL_FIXED, **options)
        return Decision((spec,), f"{distinct:,} values that repeat{_spelt(profile)}")
    if not words and profile.repeats >= 2:
        return _codes(profile, "codes that repeat")
    prose = bool(_PROSE_WORDS & set(words_of(name)))
    if words and not prose and distinct <= ENTITY_LIMIT and profile.repeats >= 5:
        return _codes(profile, "names that repeat")
    tokens = max(4, min(16, -(-profile.length_95 // CHARACTERS_A_TOKEN)))
    spec = FieldSpec(name, FieldType.TEXT, max_tokens=tokens)
    kind = "texts of several words" if words else "strings that hardly repeat"
    return Decision(
        (spec,),
        f"{distinct:,} {kind}, 95 % within {profile.length_95} characters: "
        f"at most {tokens} BPE tokens an event{_spelt(profile)}",
    )


def _spelt(profile: ColumnProfile) -> str:
    """A warning about numbers and dates that were read as text."""
    if profile.looks_like is None:
        return ""
    return f"; these look like {profile.looks_like} read as text: convert the column first"


def _codes(profile: ColumnProfile, what: str) -> Decision:
    distinct = profile.distinct
    if distinct <= FIXED_LIMIT:
        options = {"min_frequency": 2} if distinct > 32 else {}
        spec = FieldSpec(profile.column, FieldType.CATEGORICAL_FIXED, **options)
        return Decision((spec,), f"{distinct:,} {what}")
    buckets = 64 if distinct <= ENTITY_LIMIT else 256
    options = {"min_frequency": 2, "hash_buckets": buckets}
    if distinct > CODE_LIMIT:
        options["vocab_size"] = CODE_LIMIT
    spec = FieldSpec(profile.column, FieldType.CATEGORICAL_ENTITY, **options)
    return Decision(
        (spec,), f"{distinct:,} {what}; rare and new ones share {buckets} buckets{_spelt(profile)}"
    )


def _few_numbers(profile: ColumnProfile) -> Decision | None:
    """Numbers with few different values are labels or counts (None: there are many)."""
    name, distinct = profile.column, profile.distinct
    words = words_of(name)
    if distinct <= FEW and (profile.repeats >= 10 or distinct <= 2):
        status = next((word for word in words if word in _STATUS_WORDS), None)
        reasons = (
            (status is not None, f"{distinct} whole numbers that name a {status}"),
            (is_identifier_name(name), f"{distinct} numbers that name things"),
            (distinct <= 2, f"{distinct} different numbers: a flag"),
            (profile.is_static, f"{distinct} different numbers, one for each entity"),
            (profile.negative_share > 0, f"{distinct} small numbers with negative codes"),
            (not profile.whole, f"only {distinct} different numbers"),
        )
        for holds, reason in reasons:
            if holds:
                return Decision((FieldSpec(name, FieldType.CATEGORICAL_FIXED),), reason)
    if profile.whole and distinct <= DISCRETE_LIMIT:
        spec = FieldSpec(name, FieldType.NUMERICAL_DISCRETE)
        return Decision((spec,), f"{distinct} different whole numbers, one token each")
    return None


def _amounts(profile: ColumnProfile, bins: int) -> Decision:
    name = profile.column
    said = [f"{profile.distinct:,} different numbers in {bins} quantile bins"]
    specs = [FieldSpec(name, FieldType.NUMERICAL_CONTINUOUS, n_bins=bins)]
    if profile.negative_share >= SIGN_SHARE:
        specs.insert(0, FieldSpec(f"{name}_sign", FieldType.SIGN, column=name))
        said.append(f"{percent(profile.negative_share)} are negative, so a sign comes first")
    elif profile.negative_share > 0:
        said.append(
            f"too few negatives for a sign ({percent(profile.negative_share)}): |x| is read"
        )
    if profile.zero_share:
        said.append(f"zero ({percent(profile.zero_share)}) has its own bin")
    return Decision(tuple(specs), "; ".join(said))
