"""A proposed schema with the evidence behind it, and the table that shows both."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from domainformer.schema.fields import FieldSpec, FieldType
from domainformer.schema.profile import ColumnProfile, percent
from domainformer.schema.schema import DomainSchema


@dataclass(frozen=True)
class ColumnEvidence:
    """One column: its facts, what became of it, and why.

    Attributes:
        profile: The facts.
        role: ``"field"``, ``"entity"``, ``"time"``, ``"label"`` or ``"dropped"``.
        fields: Names of the fields that read it.
        reason: Why, in one sentence.
        partner: A column that it is bound to, and how (None: none found).
    """

    profile: ColumnProfile
    role: str
    fields: tuple[str, ...]
    reason: str
    partner: str | None = None

    @property
    def column(self) -> str:
        """The column's name."""
        return self.profile.column


@dataclass(frozen=True)
class InferredSchema:
    """What :func:`~domainformer.schema.infer.infer_schema` proposes.

    Attributes:
        schema: The proposed schema.
        evidence: One row for each column of the table, in the table's order.
        entity: The column whose values have histories.
        time: The column that orders a history (None: the order of the rows does).
        label: The column that is to be predicted, kept out of the events (None: none).
        dropped: Why each dropped column was dropped.
        notes: What else the reader should know.
    """

    schema: DomainSchema
    evidence: tuple[ColumnEvidence, ...]
    entity: str
    time: str | None
    label: str | None
    dropped: dict[str, str]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Schema, evidence and notes as plain data."""
        return asdict(replace(self, schema=None)) | {  # type: ignore[arg-type]
            "schema": self.schema.model_dump(mode="json")
        }

    def render(self, console: Console | None = None) -> None:
        """Print the evidence and the proposed fields as a table."""
        (console or Console()).print(self)

    def __rich__(self) -> RenderableType:
        """The table, for any rich console."""
        table = Table(title=f"Schema {self.schema.name!r}", title_justify="left", show_lines=True)
        table.add_column("column", overflow="fold", ratio=3)
        table.add_column("what is in it", overflow="fold", ratio=5)
        table.add_column("becomes", overflow="fold", ratio=4)
        table.add_column("because", overflow="fold", ratio=6)
        for row in self.evidence:
            style = "dim" if row.role == "dropped" else ""
            because = row.reason + (f" · {row.partner}" if row.partner else "")
            table.add_row(
                Text(f"{row.column}\n{row.profile.dtype}"),
                Text(facts(row.profile) if row.role != "entity" else identity(row.profile)),
                Text(self._becomes(row)),
                Text(because),
                style=style,
            )
        order = " → ".join(spec.name for spec in self.schema.fields)
        lines = [f"one event: {order}", *self.notes]
        return Group(table, *(Text(line) for line in lines))

    def _becomes(self, row: ColumnEvidence) -> str:
        lines = [] if row.role in ("field", "dropped") else [f"the {row.role}"]
        lines += [field_summary(self.schema.field(name)) for name in row.fields]
        return "\n".join(lines) or row.role


def facts(profile: ColumnProfile) -> str:
    """The facts about a column in a few words.

    Example:
        >>> import polars as pl
        >>> from domainformer.schema.profile import profile_column
        >>> facts(profile_column(pl.Series("amount", [1.5, -2.5, None, 4.0])))
        '3 distinct, 25.0% null, -2.5 to 4, 33.3% negative, skew -0.3'
    """
    parts = [] if profile.kind == "other" else [f"{profile.distinct:,} distinct"]
    if profile.null_share:
        parts.append(f"{percent(profile.null_share)} null")
    if profile.minimum is not None:
        parts.append(f"{_short(profile.minimum)} to {_short(profile.maximum)}")
    if profile.negative_share:
        parts.append(f"{percent(profile.negative_share)} negative")
    if profile.zero_share:
        parts.append(f"{percent(profile.zero_share)} zero")
    if profile.skew is not None:
        parts.append(f"skew {profile.skew:.1f}")
    if profile.top is not None:
        top = profile.top if len(profile.top) <= 24 else profile.top[:23] + "…"
        parts.append(f"most often {top!r} ({percent(profile.top_share)})")
    if profile.stability is not None:
        parts.append(
            "never changes within an entity"
            if profile.is_static
            else f"{percent(profile.stability)} as in the event before"
        )
    return ", ".join(parts) or "not looked into"


def identity(profile: ColumnProfile) -> str:
    """The facts about the entity column: whom it names and whether it has gaps."""
    span = ""
    if profile.minimum is not None:
        span = f", {_short(profile.minimum)} to {_short(profile.maximum)}"
    return f"{profile.distinct:,} distinct{span}"


def field_summary(spec: FieldSpec) -> str:
    """A field in a few words.

    Example:
        >>> field_summary(FieldSpec("amount", "numerical_continuous"))
        'amount: numerical_continuous, 21 bins'
    """
    told = [str(spec.field_type)]
    if spec.field_type is FieldType.NUMERICAL_CONTINUOUS:
        told.append(f"{spec.bin_count} bins")
    if spec.field_type is FieldType.TEMPORAL:
        told += [*spec.calendar_fields, *(["elapsed"] if spec.elapsed_bins else [])]
    if spec.field_type is FieldType.TEXT:
        told.append(f"≤ {spec.max_tokens} tokens")
    if spec.vocab_size is not None:
        told.append(f"≤ {spec.vocab_size:,} values")
    return f"{spec.name}: {', '.join(told)}"


def _short(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="minutes")
    if isinstance(value, date):
        return value.isoformat()
    return f"{value:,}" if isinstance(value, int) else f"{value:,.6g}"
