"""Propose a schema for a table, with the evidence for every decision.

::

    table ─▶ roles (entity, time, label) ─▶ profiles ─▶ drop what says nothing ─▶ drop what is
    said twice ─▶ decide each column ─▶ order the fields: what, then how much, then when

Everything is measured on all rows, except the dependence between columns, which is measured on
evenly spaced rows of tables beyond 500,000 (a note says so).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from domainformer.errors import SchemaError
from domainformer.schema.decide import (
    FINE_BINS,
    Decision,
    decide,
    decide_further_time,
    decide_time,
)
from domainformer.schema.evidence import ColumnEvidence, InferredSchema
from domainformer.schema.fields import GENERIC_SPECIALS, FieldSpec, FieldType, token_stems
from domainformer.schema.profile import ColumnProfile, percent, profile_time, words_of
from domainformer.schema.relations import explained_scale
from domainformer.schema.schema import DomainSchema
from domainformer.schema.screen import drop_repeated, drop_silent
from domainformer.schema.survey import Survey, follows_of, survey_table

_ORDER = {
    FieldType.CATEGORICAL_FIXED: 0,
    FieldType.CATEGORICAL_ENTITY: 0,
    # A text ends where it will: what follows it has to guess first whether it has ended, and what
    # could be copied from the last event suffers most. A sign or a size is seldom copied.
    FieldType.TEXT: 1,
    FieldType.SIGN: 2,
    FieldType.NUMERICAL_CONTINUOUS: 2,
    FieldType.NUMERICAL_DISCRETE: 3,
    FieldType.TEMPORAL: 4,
}


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
        >>> import polars as pl
        >>> table = pl.DataFrame({
        ...     "customer_id": [1, 1, 1, 2, 2, 2], "step": [0, 1, 5, 0, 2, 3],
        ...     "kind": ["a", "b", "a", "b", "a", "a"], "note": [None] * 6,
        ... })
        >>> found = infer_schema(table)
        >>> found.entity, found.time, [spec.name for spec in found.schema.fields], found.dropped
        ('customer_id', 'step', ['kind', 'step'], {'note': 'it has no value'})
    """
    survey = survey_table(table, entity, time, label)
    drop_silent(survey)
    drop_repeated(survey)
    decisions = {c: _decided(survey, c) for c in survey.open_columns()}
    if survey.time is not None:
        decisions[survey.time] = _decided_time(survey, survey.time)
    survey.dropped |= {
        c: d.reason for c, d in decisions.items() if not d.fields and c != survey.time
    }
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


def _decided(survey: Survey, column: str) -> Decision:
    profile = survey.profiles[column]
    if profile.kind in ("date", "datetime"):
        follows = follows_of(survey.frame[survey.entity])
        return decide_further_time(column, profile_time(survey.frame[column], follows))
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


def _decided_time(survey: Survey, column: str) -> Decision:
    follows = follows_of(survey.frame[survey.entity])
    return decide_time(column, profile_time(survey.frame[column], follows))


def _ordered(
    decisions: Mapping[str, Decision], profiles: Mapping[str, ColumnProfile]
) -> list[FieldSpec]:
    """Categories (the most stable first), texts, signs and magnitudes, counts, times."""
    specs = [spec for decision in decisions.values() for spec in decision.fields]

    def place(spec: FieldSpec) -> tuple[int, float]:
        stability = profiles[spec.source].stability or 0.0
        return _ORDER[spec.field_type], -stability if spec.field_type.is_categorical else 0.0

    return sorted(specs, key=place)


def _without_collisions(specs: list[FieldSpec]) -> list[FieldSpec]:
    """Columns such as ``Amount`` and ``amount``, or ``pad``, get fields of different names."""
    taken: set[str] = set(GENERIC_SPECIALS)
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
    survey: Survey, column: str, decisions: Mapping[str, Decision], names: Mapping[str, str]
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
