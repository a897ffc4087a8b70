"""Which columns say nothing, and which say what another one says as well."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl

from domainformer.schema.profile import ColumnProfile, kind_of, percent, share
from domainformer.schema.relations import (
    DETERMINES,
    READABLE_LIMIT,
    SAMPLE_ROWS,
    Relation,
    never_returns,
    redundant,
    relate,
    relations,
    same_values,
    thin,
)
from domainformer.schema.roles import is_identifier_name
from domainformer.schema.survey import Survey

#: Columns with fewer values than this share of the rows are left out.
ALMOST_EMPTY = 0.001
#: A column that is empty for this share of the events at either end of the data is left out.
LATE_SHARE = 0.2
#: Columns with more different values than this are not compared with others.
RELATION_LIMIT = 50_000


def drop_silent(survey: Survey) -> None:
    """Leave out what is empty, constant, late, unreadable, or only numbers the events."""
    keys = [survey.entity, *([survey.time] if survey.time else [])]
    for column in survey.open_columns():
        profile = survey.profiles[column]
        filled = 1 - profile.null_share
        if not profile.distinct:
            reason = "it has no value"
        elif profile.kind == "other":
            reason = f"a column of type {profile.dtype} is not a field"
        elif filled < ALMOST_EMPTY:
            reason = f"only {percent(filled)} of the events have a value"
        elif profile.distinct == 1 and not profile.null_share:
            reason = "it has the same value everywhere"
        elif (late := _late(survey, profile)) is not None:
            reason = late
        elif _numbers_events(survey, profile, keys):
            reason = f"it numbers the events: no value comes back at another {' and '.join(keys)}"
        else:
            continue
        survey.dropped[column] = reason


def _late(survey: Survey, profile: ColumnProfile) -> str | None:
    """Why a column that is recorded in only a part of the period is left out.

    Held-out later events would otherwise be full of tokens that training has not seen.
    """
    if survey.time is None or profile.null_share < LATE_SHARE:
        return None
    times = survey.frame[survey.time]
    if kind_of(times.dtype) not in ("date", "datetime"):
        return None
    filled = times.filter(survey.frame[profile.column].is_not_null()).drop_nulls()
    first, last = filled.quantile(0.01, "nearest"), filled.quantile(0.99, "nearest")
    if first is None or last is None:
        return None
    moments = times.drop_nulls()
    if share(moments < first) >= LATE_SHARE:
        return f"it is recorded only from {_day(first)} on: earlier events have no value"
    if share(moments > last) >= LATE_SHARE:
        return f"it is recorded only until {_day(last)}: later events have no value"
    return None


def _day(moment: Any) -> str:
    return str(moment.date() if isinstance(moment, datetime) else moment)


def _numbers_events(survey: Survey, profile: ColumnProfile, keys: list[str]) -> bool:
    """Whether a column is an identifier of events or baskets, which no later event repeats."""
    if profile.kind == "string":
        possible = profile.words < 0.3
    else:
        possible = profile.whole and is_identifier_name(profile.column)
    few = profile.distinct <= max(2 * survey.profiles[survey.entity].distinct, 20)
    if not possible or (few and profile.repeats > 1.05):
        return False
    return never_returns(survey.frame, profile.column, keys)


def drop_repeated(survey: Survey) -> None:
    """Leave out what another column says as well, and note dependences that remain."""
    profiles = survey.profiles
    labels = [c for c in survey.open_columns() if _is_label_like(profiles[c])]
    sample = thin(survey.frame)
    if sample.height < survey.frame.height and len(labels) > 1:
        survey.notes.append(
            f"dependences between columns were measured on {sample.height:,} evenly spaced rows "
            f"(tables beyond {SAMPLE_ROWS:,} are thinned)"
        )
    for relation in relations(sample, labels):
        pair = redundant(relation, profiles)
        if pair is None:
            _note_level(survey, relation)
        elif not {relation.a, relation.b} & survey.dropped.keys():
            gone, kept = pair
            bond = "is one-to-one with" if relation.one_to_one else "is determined by"
            strength = min if relation.one_to_one else max
            how = percent(strength(relation.a_tells_b, relation.b_tells_a))
            survey.dropped[gone] = f"it {bond} {kept} ({how}), which {_why_kept(survey, kept)}"
    numbers = [c for c in survey.open_columns() if profiles[c].is_number]
    _drop_equal(survey, [c for c in numbers if profiles[c].distinct > 64])
    times = [c for c in survey.frame.columns if profiles[c].kind in ("date", "datetime")]
    times.sort(key=lambda c: c != survey.time)
    _drop_equal(survey, [c for c in times if c == survey.time or c in survey.open_columns()])
    _drop_signs(survey, sample, numbers)


def _is_label_like(profile: ColumnProfile) -> bool:
    if not 2 <= profile.distinct <= RELATION_LIMIT or profile.repeats < 1.5:
        return False
    if profile.kind in ("string", "boolean"):
        return True
    return profile.whole and (is_identifier_name(profile.column) or profile.distinct <= 64)


def _why_kept(survey: Survey, kept: str) -> str:
    profile = survey.profiles[kept]
    return (
        "reads better" if profile.letters >= 4 and profile.distinct <= READABLE_LIMIT else "is kept"
    )


def _note_level(survey: Survey, relation: Relation) -> None:
    fine, coarse, strength = (
        (relation.a, relation.b, relation.a_tells_b)
        if relation.a_tells_b >= relation.b_tells_a
        else (relation.b, relation.a, relation.b_tells_a)
    )
    if {fine, coarse} & survey.dropped.keys():
        return
    how = "determined" if strength >= DETERMINES else "almost determined"
    survey.partners.setdefault(coarse, f"{how} by {fine} ({percent(strength)}): a coarser level")


def _drop_equal(survey: Survey, columns: list[str]) -> None:
    """Of columns that hold the same values, the first stays."""
    for at, column in enumerate(columns):
        for other in columns[:at]:
            if other in survey.dropped:
                continue
            equal = same_values(survey.frame[column], survey.frame[other])
            if equal >= DETERMINES:
                survey.dropped[column] = f"it equals {other} in {percent(equal)} of the events"
                break


def _drop_signs(survey: Survey, sample: pl.DataFrame, numbers: list[str]) -> None:
    """A flag that repeats a number's sign goes: the sign has its own token already."""
    for column in survey.open_columns():
        if survey.profiles[column].distinct != 2 or column in numbers:
            continue
        for number in numbers:
            if not 0 < survey.profiles[number].negative_share < 1 or number in survey.dropped:
                continue
            relation = relate(sample[column], sample[number] < 0)
            if relation.one_to_one:
                survey.dropped[column] = (
                    f"the sign of {number} says the same "
                    f"({percent(min(relation.a_tells_b, relation.b_tells_a))})"
                )
                break
