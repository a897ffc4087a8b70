"""What is known about the columns of the table, from a fresh inference or from its JSON file."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from domainformer.schema import DomainSchema, InferredSchema
from domainformer.schema.evidence import facts, field_summary, identity
from domainformer.schema.profile import ColumnProfile


@dataclass(frozen=True)
class ColumnRow:
    """One column of the table, in words.

    Args:
        column: Its name.
        dtype: Its type.
        found: What is in it.
        role: ``field``, ``entity``, ``time``, ``label`` or ``dropped``.
        becomes: The fields that read it, each in a few words.
        reason: Why.
    """

    column: str
    dtype: str
    found: str
    role: str
    becomes: tuple[str, ...]
    reason: str


def columns_of(
    evidence: InferredSchema | Mapping[str, Any] | None, schema: DomainSchema
) -> list[ColumnRow]:
    """A row per column of the table; without evidence a row per column that a field reads.

    Args:
        evidence: What ``infer_schema`` gave, or what ``schema_evidence.json`` holds.
        schema: The schema of the run, which decides what the columns became.
    """
    rows = evidence.evidence if isinstance(evidence, InferredSchema) else _rows_of(evidence)
    told = [_from_object(row, schema) for row in rows]
    seen = {row.column for row in told}
    return told + [row for row in _from_schema(schema) if row.column not in seen]


def notes_of(evidence: InferredSchema | Mapping[str, Any] | None) -> list[str]:
    """Remarks of the inference."""
    if evidence is None:
        return []
    notes = evidence.notes if isinstance(evidence, InferredSchema) else evidence.get("notes")
    return [str(note) for note in notes or ()]


@dataclass(frozen=True)
class _Row:
    profile: ColumnProfile
    role: str
    reason: str
    partner: str | None


def _rows_of(evidence: Mapping[str, Any] | None) -> list[_Row]:
    """Rows of a JSON file: facts flat beside the decision, or in a mapping of their own."""
    rows = []
    for row in (evidence or {}).get("evidence") or ():
        profile = {**row, **row["profile"]} if isinstance(row.get("profile"), Mapping) else row
        rows.append(
            _Row(
                profile=_profile(profile),
                role=str(row.get("role", "field")),
                reason=str(row.get("reason", "")),
                partner=row.get("partner"),
            )
        )
    return rows


def _profile(values: Mapping[str, Any]) -> ColumnProfile:
    known = {field.name for field in dataclasses.fields(ColumnProfile)}
    kept: dict[str, Any] = {"column": "?", "dtype": "", "kind": "other", "rows": 0}
    kept |= {"null_share": 0.0, "distinct": 0}
    kept |= {k: v for k, v in values.items() if k in known}
    for end in ("minimum", "maximum"):
        kept[end] = _time_or_number(kept.get(end))
    return ColumnProfile(**kept)


def _time_or_number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if len(value) > 10 else moment.date()


def _from_object(row: Any, schema: DomainSchema) -> ColumnRow:
    profile: ColumnProfile = row.profile
    fields = [spec for spec in schema.fields if spec.source == profile.column]
    return ColumnRow(
        column=profile.column,
        dtype=profile.dtype,
        # An entity's name is nobody's business on a page that is passed around.
        found=identity(profile) if row.role == "entity" else facts(profile),
        role="field" if row.role == "dropped" and fields else row.role,
        becomes=tuple(field_summary(spec) for spec in fields),
        reason=row.reason + (f" · {row.partner}" if row.partner else ""),
    )


def _from_schema(schema: DomainSchema) -> list[ColumnRow]:
    sources = dict.fromkeys(spec.source for spec in schema.fields)
    return [
        ColumnRow(
            column=source,
            dtype="",
            found="",
            role="field",
            becomes=tuple(field_summary(s) for s in schema.fields if s.source == source),
            reason=" ".join(s.description for s in schema.fields if s.source == source),
        )
        for source in sources
    ]
