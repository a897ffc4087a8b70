"""Propose a schema for a table, with the evidence for every decision.

::

    table ─▶ roles (entity, time, label) ─▶ profiles ─▶ drop what says nothing ─▶ drop what is
    said twice ─▶ decide each column ─▶ order the fields: stable categories first, text last

Everything is measured on all rows, except the dependence between columns, which is measured on
evenly spaced rows of tables beyond 500,000 (a note says so).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import polars as pl

from domainformer.errors import SchemaError
from domainformer.schema.decide import FINE_BINS, Decision, decide, decide_time
from domainformer.schema.evidence import ColumnEvidence, InferredSchema, percent
from domainformer.schema.fields import FieldSpec, FieldType, token_stems
from domainformer.schema.profile import (
    ColumnProfile,
    kind_of,
    normalised,
    profile_column,
    profile_time,
    share,
    words_of,
)
from domainformer.schema.relations import (
    DETERMINES,
    SAMPLE_ROWS,
    Relation,
    explained_scale,
    never_returns,
    redundant,
    relate,
    relations,
    same_numbers,
    thin,
)
from domainformer.schema.roles import (
    guess_entity,
    guess_label,
    guess_time,
    is_identifier_name,
    required,
    time_is_text,
)
from domainformer.schema.schema import DomainSchema

#: Columns with fewer values than this share of the rows are left out.
ALMOST_EMPTY = 0.001
#: A column that is empty for this share of the events at either end of the data is left out.
LATE_SHARE = 0.2
#: Columns with more different values than this are not compared with others.
RELATION_LIMIT = 50_000
_ORDER = {
    FieldType.CATEGORICAL_FIXED: 0,
    FieldType.CATEGORICAL_ENTITY: 0,
    FieldType.NUMERICAL_DISCRETE: 1,
    FieldType.SIGN: 2,
    FieldType.NUMERICAL_CONTINUOUS: 2,
    FieldType.TEMPORAL: 3,
    FieldType.TEXT: 4,
}


@dataclass
class _Survey:
    """What is known so far about a table under inference."""

    frame: pl.DataFrame
    entity: str
    time: str | None
    label: str | None
    profiles: dict[str, ColumnProfile]
    dropped: dict[str, str] = field(default_factory=dict)
    partners: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def open_columns(self) -> list[str]:
        """The columns whose fate is not decided yet."""
        roles = {self.entity, self.time, self.label}
        return [c for c in self.frame.columns if c not in roles and c not in self.dropped]


def infer_schema(
    table: Any,
    *,
    entity: str | None = None,
    time: str | None = None,
    label: str | None = None,
    name: str = "inferred",
) -> InferredSchema:
    """Propose a schema for a table of events, with its evidence.

    Args:
        table: An EventTable, or a polars DataFrame or LazyFrame.
        entity: The column of who has a history (None: the table's own, or guessed).
        time: The column of when an event happened (None: the table's own, or guessed).
        label: A column to be predicted later, kept out of the events (None: one that is called
            label, target or outcome and never changes within an entity, if there is one).
        name: The schema's name.

    Raises:
        SchemaError: The table is empty, entity or time cannot be guessed, a named column does not
            exist, or no column says anything.

    Example:
        >>> table = pl.DataFrame({
        ...     "customer_id": [1, 1, 1, 2, 2, 2], "step": [0, 1, 5, 0, 2, 3],
        ...     "kind": ["a", "b", "a", "b", "a", "a"], "note": [None] * 6,
        ... })
        >>> found = infer_schema(table)
        >>> found.entity, found.time, [spec.name for spec in found.schema.fields], found.dropped
        ('customer_id', 'step', ['kind', 'step'], {'note': 'it has no value'})
    """
    survey = _survey(table, entity, time, label)
    _drop_silent(survey)
    _drop_repeated(survey)
    decisions = {c: _decided(survey, c) for c in survey.open_columns()}
    if survey.time is not None:
        decisions[survey.time] = _decided_time(survey, survey.time)
    specs = _ordered(decisions, survey.profiles)
    if not specs:
        raise SchemaError(
            "no column of the table says anything about an event",
            why="; ".join(f"{column}: {why}" for column, why in survey.dropped.items())
            or f"there is only the {'entity' if time is None else 'entity and the time'}",
            next_step="add columns that describe the events, such as a kind or an amount",
        )
    renamed = _without_collisions(specs)
    schema = DomainSchema(name, renamed)
    names = {old.name: new.name for old, new in zip(specs, renamed, strict=True)}
    return InferredSchema(
        schema=schema,
        evidence=tuple(_evidence(survey, c, decisions, names) for c in survey.frame.columns),
        entity=survey.entity,
        time=survey.time,
        label=survey.label,
        dropped=dict(survey.dropped),
        notes=tuple(survey.notes),
    )


def _survey(table: Any, entity: str | None, time: str | None, label: str | None) -> _Survey:
    """Roles, events in order, and the profile of every column."""
    frame = _frame(table)
    ordered = hasattr(table, "frame")
    if ordered:
        entity = entity or table.entity
        time = time or table.time
    entity = guess_entity(frame) if entity is None else required(frame, entity, "entity")
    if time is not None:
        time = required(frame, time, "time")
    elif not ordered:
        time = guess_time(frame, entity)
    if time == entity:
        raise SchemaError(f"the column {entity!r} cannot be both entity and time")
    if time is not None and kind_of(frame[time].dtype) == "string":
        raise time_is_text(time)
    notes: list[str] = []
    if nulls := frame[entity].null_count():
        frame = frame.filter(pl.col(entity).is_not_null())
        notes.append(f"{nulls:,} rows without {entity} were left out")
        if not frame.height:
            raise SchemaError(f"the entity column {entity!r} has no value")
    if not ordered or nulls:
        frame = frame.sort(entity, *([time] if time else []), maintain_order=True)
    frame = frame.with_columns(normalised(frame[c]) for c in frame.columns)
    follows = _follows(frame[entity])
    profiles = {c: profile_column(frame[c], follows) for c in frame.columns}
    static = [c for c, p in profiles.items() if p.is_static and c not in (entity, time)]
    label = guess_label(frame, static) if label is None else required(frame, label, "label")
    if profiles[entity].distinct == frame.height:
        notes.append(f"every row has its own {entity}: there are no histories to learn from")
    return _Survey(frame, entity, time, label, profiles, notes=notes)


def _frame(table: Any) -> pl.DataFrame:
    frame = getattr(table, "frame", table)
    if isinstance(frame, pl.LazyFrame):
        try:
            frame = frame.collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise SchemaError("the table cannot be read", why=str(error)) from error
    if not isinstance(frame, pl.DataFrame):
        raise SchemaError(
            f"a table is expected (given: {type(table).__name__})",
            next_step="EventTable.of(…) takes polars, pandas and Arrow tables",
        )
    if not frame.height:
        raise SchemaError(
            "the table is empty",
            why=f"it has {frame.width} columns and no row",
            next_step="check the path or the filter that made it",
        )
    if frame.width < 2:
        raise SchemaError(
            "the table has only one column",
            where=f"column {frame.columns[0]!r}",
            why="an event needs an entity and at least one thing that is said about it",
        )
    if all(frame[c].null_count() == frame.height for c in frame.columns):
        raise SchemaError("every value of the table is null", next_step="check how it was read")
    return frame


def _follows(entity: pl.Series) -> pl.Series:
    return (entity == entity.shift(1)).fill_null(value=False)


def _drop_silent(survey: _Survey) -> None:
    """Leave out what is empty, constant, late, unreadable, or only numbers the events."""
    keys = [survey.entity, *([survey.time] if survey.time else [])]
    for column in survey.open_columns():
        profile = survey.profiles[column]
        filled = 1 - profile.null_share
        if not profile.distinct:
            reason = "it has no value"
        elif filled < ALMOST_EMPTY:
            reason = f"only {percent(filled)} of the events have a value"
        elif profile.distinct == 1 and not profile.null_share:
            reason = "it has the same value everywhere"
        elif profile.kind == "other":
            reason = f"a column of type {profile.dtype} is not a field"
        elif (late := _late(survey, profile)) is not None:
            reason = late
        elif _numbers_events(survey, profile, keys):
            reason = f"it numbers the events: no value comes back at another {' and '.join(keys)}"
        else:
            continue
        survey.dropped[column] = reason


def _late(survey: _Survey, profile: ColumnProfile) -> str | None:
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


def _numbers_events(survey: _Survey, profile: ColumnProfile, keys: list[str]) -> bool:
    """Whether a column is an identifier of events or baskets, which no later event repeats."""
    if profile.kind == "string":
        possible = profile.words < 0.3
    else:
        possible = profile.whole and is_identifier_name(profile.column)
    few = profile.distinct <= max(2 * survey.profiles[survey.entity].distinct, 20)
    if not possible or (few and profile.repeats > 1.05):
        return False
    return never_returns(survey.frame, profile.column, keys)


def _drop_repeated(survey: _Survey) -> None:
    """Leave out what another column says as well, and note dependences that remain."""
    sample = thin(survey.frame)
    if sample.height < survey.frame.height:
        survey.notes.append(
            f"dependences between columns were measured on {sample.height:,} evenly spaced rows "
            f"(tables beyond {SAMPLE_ROWS:,} are thinned)"
        )
    profiles = survey.profiles
    labels = [c for c in survey.open_columns() if _is_label_like(profiles[c])]
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
    _drop_equal_numbers(survey, numbers)
    _drop_signs(survey, sample, numbers)


def _is_label_like(profile: ColumnProfile) -> bool:
    if not 2 <= profile.distinct <= RELATION_LIMIT or profile.repeats < 1.5:
        return False
    if profile.kind in ("string", "boolean"):
        return True
    return profile.whole and (is_identifier_name(profile.column) or profile.distinct <= 64)


def _why_kept(survey: _Survey, kept: str) -> str:
    profile = survey.profiles[kept]
    return "reads better" if profile.letters >= 4 and profile.distinct <= 2_000 else "is kept"


def _note_level(survey: _Survey, relation: Relation) -> None:
    fine, coarse, strength = (
        (relation.a, relation.b, relation.a_tells_b)
        if relation.a_tells_b >= relation.b_tells_a
        else (relation.b, relation.a, relation.b_tells_a)
    )
    if {fine, coarse} & survey.dropped.keys():
        return
    how = "determined" if strength >= DETERMINES else "almost determined"
    survey.partners.setdefault(coarse, f"{how} by {fine} ({percent(strength)}): a coarser level")


def _drop_equal_numbers(survey: _Survey, numbers: list[str]) -> None:
    for at, column in enumerate(numbers):
        for other in numbers[:at]:
            if other in survey.dropped or survey.profiles[column].distinct <= 64:
                continue
            equal = same_numbers(survey.frame[column], survey.frame[other])
            if equal >= DETERMINES:
                survey.dropped[column] = f"it equals {other} in {percent(equal)} of the events"
                break


def _drop_signs(survey: _Survey, sample: pl.DataFrame, numbers: list[str]) -> None:
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


def _decided(survey: _Survey, column: str) -> Decision:
    profile = survey.profiles[column]
    decision = decide(profile)
    if decision.fields[-1].field_type is not FieldType.NUMERICAL_CONTINUOUS:
        return decision
    labels = [
        c
        for c in survey.open_columns()
        if survey.profiles[c].kind == "string" and survey.profiles[c].repeats >= 20
    ]
    scales = {c: explained_scale(survey.frame[column], survey.frame[c]) for c in labels}
    best = max(scales, key=lambda c: scales[c], default=None)
    if best is None or scales[best] < 0.5:
        return decision
    finer = decide(profile, bins=FINE_BINS)
    return replace(
        finer,
        reason=f"{finer.reason}; fine bins, because {best} tells the scale "
        f"({percent(scales[best])} of its variance)",
    )


def _decided_time(survey: _Survey, column: str) -> Decision:
    follows = _follows(survey.frame[survey.entity])
    return decide_time(column, profile_time(survey.frame[column], follows))


def _ordered(
    decisions: Mapping[str, Decision], profiles: Mapping[str, ColumnProfile]
) -> list[FieldSpec]:
    """Categories (the most stable first), counts, signs and magnitudes, times, texts."""
    specs = [spec for decision in decisions.values() for spec in decision.fields]

    def place(spec: FieldSpec) -> tuple[int, float]:
        stability = profiles[spec.source].stability or 0.0
        return _ORDER[spec.field_type], -stability if spec.field_type.is_categorical else 0.0

    return sorted(specs, key=place)


def _without_collisions(specs: list[FieldSpec]) -> list[FieldSpec]:
    """Columns such as ``Amount`` and ``amount`` get fields of different names."""
    taken: set[str] = set()
    result = []
    for spec in specs:
        given, number = spec, 1
        while taken & (token_stems(spec) | {spec.prefix}) or not any(words_of(spec.name)):
            number += 1
            options = {k: v for k, v in given.options().items() if k not in ("name", "column")}
            stem = given.name if any(words_of(given.name)) else "column"
            spec = FieldSpec(f"{stem}_{number}", column=given.source, **options)
        taken |= token_stems(spec) | {spec.prefix}
        result.append(spec)
    return result


def _evidence(
    survey: _Survey, column: str, decisions: Mapping[str, Decision], names: Mapping[str, str]
) -> ColumnEvidence:
    decision = decisions.get(column, Decision((), ""))
    if column in survey.dropped:
        role, reason = "dropped", survey.dropped[column]
    elif column == survey.entity:
        events = survey.frame.height / survey.profiles[column].distinct
        role, reason = "entity", f"{events:.1f} events each on average"
    elif column == survey.label:
        role, reason = "label", "kept out of the events, so that nothing can read the answer"
    else:
        role, reason = ("time" if column == survey.time else "field"), decision.reason
    fields = tuple(names[spec.name] for spec in decision.fields)
    return ColumnEvidence(
        survey.profiles[column], role, fields, reason, survey.partners.get(column)
    )
