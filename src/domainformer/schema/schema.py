"""A schema: the ordered fields of one event, checked when it is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import polars as pl
from pydantic import Field

from domainformer.artifacts import fingerprint, write_text
from domainformer.config import StrictConfig, dump_yaml, parse_yaml, read_yaml
from domainformer.errors import SchemaError, nearest
from domainformer.schema.fields import (
    CALENDAR_PARTS,
    GENERIC_SPECIALS,
    FieldSpec,
    FieldType,
    token_stems,
)
from domainformer.schema.sources import (
    SOURCE_FIELD,
    SOURCE_STEMS,
    Source,
    built_sources,
    source_field,
)

_KEYS = ("name", "fields", "sources", "source_column")


class DomainSchema(StrictConfig):
    """The ordered fields of one event; their order is the order of the event's tokens.

    ::

        fields  kind         sign        amount        timestamp              merchant
        tokens  [KIND=Fuel]  [SIGN=POS]  [AMOUNT=B07]  [TIMESTAMP_MONTH=03]…  [MERCHANT]sh ell

    A history may mix several kinds of event, its *sources*; then each event opens with the token
    of its source and holds that source's fields only (see ``sources.py``).

    Args:
        name: What the schema is called in files and reports.
        fields: The fields, or mappings of their options as a YAML file holds them.
        sources: Kinds of event by name: :class:`~domainformer.schema.sources.Source`, or mappings
            of their options. None: all events have all fields.
        source_column: The column that names the source of each event.

    Raises:
        SchemaError: There is no field, two fields share a name or could own the same token, a
            field or a source is wrong in itself; all problems are told at once.

    Example:
        >>> schema = DomainSchema("shop", [
        ...     FieldSpec("category", FieldType.CATEGORICAL_FIXED, vocab_size=30),
        ...     FieldSpec("price", FieldType.NUMERICAL_CONTINUOUS, n_bins=21),
        ... ])
        >>> schema.special_token_count
        51
        >>> DomainSchema.from_yaml(schema.to_yaml()) == schema
        True
        >>> mixed = DomainSchema("bank", [FieldSpec("amount", "sign"), FieldSpec("screen", "text")],
        ...     sources={"cards": {"fields": ["amount"]}, "app": {"fields": ["screen"]}})
        >>> mixed.columns, [spec.name for spec in mixed.fields_of("app")]
        (('source', 'amount', 'screen'), ['screen'])
    """

    name: str
    fields: tuple[FieldSpec, ...]
    sources: dict[str, Source] = Field(default_factory=dict)
    source_column: str = SOURCE_FIELD

    def __init__(
        self,
        name: str = "",
        fields: Iterable[FieldSpec | Mapping[str, Any]] = (),
        sources: Mapping[str, Source | Mapping[str, Any]] | None = None,
        source_column: str | None = None,
        **unknown: Any,
    ) -> None:
        specs, problems = _built(fields)
        made, source_problems = built_sources(sources, specs)
        problems += source_problems + _place_problems(specs, sources, source_column)
        if not (isinstance(name, str) and name.strip()):
            problems.insert(0, f"name: a schema needs a name (given: {name!r})")
        problems += [f"{key}: unknown key ({nearest(key, _KEYS)})" for key in unknown]
        problems += _duplicates(specs) or _collisions(specs, sourced=sources is not None)
        if problems:
            raise SchemaError(
                f"the schema {name!r} cannot be built", why="\n         ".join(problems)
            )
        column = source_column or SOURCE_FIELD
        # Untyped on purpose: the base class declares no fields.
        values = {"name": name, "fields": specs, "sources": made, "source_column": column}
        super().__init__(**values)

    def __hash__(self) -> int:
        return hash((self.name, self.fields, tuple(self.sources), self.source_column))

    @property
    def special_token_count(self) -> int:
        """Tokens for values that the schema alone determines.

        Two a sign, the bins of a magnitude, the calendar parts, and ``vocab_size`` where it is
        given, and one for each source. MISSING, UNK and elapsed tokens are not counted.
        """
        return len(self.sources) + sum(_value_tokens(spec) for spec in self.fields)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that are read, each once: the source's, if there is one, then the fields'."""
        first = (self.source_column,) if self.sources else ()
        return tuple(dict.fromkeys((*first, *(spec.source for spec in self.fields))))

    @property
    def source_spec(self) -> FieldSpec | None:
        """The field that the tokens of the sources belong to; None without sources."""
        return source_field(tuple(self.sources), self.source_column) if self.sources else None

    def fields_of(self, source: str) -> tuple[FieldSpec, ...]:
        """The fields of one source, in token order.

        Raises:
            SchemaError: There is no such source; the nearest name is told.
        """
        if source not in self.sources:
            raise SchemaError(
                f"the schema {self.name!r} has no source {source!r}",
                next_step=nearest(source, self.sources)
                or "its events are all of one kind: give sources={…} to tell them apart",
            )
        return tuple(self.field(name) for name in self.sources[source].fields)

    def field(self, name: str) -> FieldSpec:
        """The field called ``name``; ``"source"`` is the field of the sources, if there are any.

        Raises:
            SchemaError: There is none; the nearest name is told.
        """
        own = self.source_spec
        for spec in self.fields if own is None else (own, *self.fields):
            if spec.name == name:
                return spec
        raise SchemaError(
            f"the schema {self.name!r} has no field {name!r}",
            next_step=nearest(name, [spec.name for spec in self.fields]),
        )

    def check(self, table: Any, *, source: str | None = None) -> None:
        """Make sure that a table has the columns, with types that the fields can read.

        Args:
            table: An EventTable, a polars DataFrame or LazyFrame, a mapping of column names to
                polars types, or column names alone (then types are not checked).
            source: The table holds this source's events alone, so that only its fields count, and
                no column needs to name the source.

        Raises:
            SchemaError: Columns are missing or have the wrong type; all are told at once.

        Example:
            >>> schema = DomainSchema("s", [FieldSpec("amount", "numerical_continuous")])
            >>> schema.check(["amonut"])
            Traceback (most recent call last):
            ...
            domainformer.errors.SchemaError: the table does not fit the schema 's'
              why:   field 'amount': there is no column 'amount' (did you mean 'amonut'?)
              next:  change the schema's columns, or the table
        """
        columns = _column_types(table)
        specs = self.fields if source is None else self.fields_of(source)
        if source is None and self.source_spec is not None:
            specs = (self.source_spec, *specs)
        problems = []
        for spec in specs:
            whose = f"field {spec.name!r}{self._users(spec)}"
            if spec.source not in columns:
                hint = nearest(spec.source, columns) or "the table has no columns"
                problems.append(f"{whose}: there is no column {spec.source!r} ({hint})")
            elif (problem := _type_problem(spec, columns[spec.source])) is not None:
                problems.append(f"{whose}: {problem}")
        if problems:
            raise SchemaError(
                f"the table does not fit the schema {self.name!r}",
                why="\n         ".join(problems),
                next_step="change the schema's columns, or the table",
            )

    def _users(self, spec: FieldSpec) -> str:
        """The sources that use a field, for errors."""
        users = [name for name, source in self.sources.items() if spec.name in source.fields]
        return f" of {', '.join(users)}" if users else ""

    def fingerprint(self) -> str:
        """A short name of everything that decides tokens; notes, shares and the name do not."""
        plain: Any = [
            {key: value for key, value in spec.options().items() if key != "description"}
            for spec in self.fields
        ]
        if self.sources:
            # The order of the sources is the order of their ids.
            sources = [[name, source.decisive()] for name, source in self.sources.items()]
            plain = {"fields": plain, "sources": sources, "source_column": self.source_column}
        return fingerprint(plain)

    def to_yaml(self, path: str | Path | None = None) -> str:
        """The schema as YAML text without defaults, also written to ``path`` where given."""
        plain: dict[str, Any] = {"name": self.name}
        plain["fields"] = [spec.options() for spec in self.fields]
        if self.sources:
            plain["sources"] = {name: source.options() for name, source in self.sources.items()}
        if self.source_column != SOURCE_FIELD:
            plain["source_column"] = self.source_column
        text = dump_yaml(plain)
        if path is not None:
            write_text(Path(path), text)
        return text

    @classmethod
    def from_yaml(cls, source: str | Path) -> Self:
        """Read a schema from a YAML file, or from YAML text (a string of more than one line).

        Raises:
            ConfigError: The file is missing or is not YAML.
            SchemaError: A key is unknown or missing, or the schema is wrong in itself.
        """
        text = isinstance(source, str) and "\n" in source
        where = "the YAML text" if text else str(source)
        values = parse_yaml(str(source)) if text else read_yaml(source)
        try:
            return cls(**{str(key): value for key, value in values.items()})
        except SchemaError as error:
            raise SchemaError("the schema cannot be read", where=where, why=error.why) from None

    @classmethod
    def infer(cls, table: Any, **options: Any) -> DomainSchema:
        """Propose a schema for a table; see :func:`domainformer.schema.infer.infer_schema`.

        The evidence behind it is in what :func:`~domainformer.schema.infer.infer_schema` returns.
        """
        from domainformer.schema.infer import infer_schema

        return infer_schema(table, **options).schema


def _built(fields: Any) -> tuple[tuple[FieldSpec, ...], list[str]]:
    """Fields from specs or mappings, and what is wrong with the rest."""
    if isinstance(fields, str | Mapping) or not isinstance(fields, Iterable):
        return (), [f"fields: a list of fields is expected (given: {fields!r})"]
    specs: list[FieldSpec] = []
    problems: list[str] = []
    for position, given in enumerate(fields, start=1):
        if isinstance(given, FieldSpec):
            specs.append(given)
        elif isinstance(given, Mapping):
            try:
                specs.append(FieldSpec(**{str(key): value for key, value in given.items()}))
            except SchemaError as error:
                problems.append(f"{error.where}: {error.why}")
        else:
            problems.append(f"field {position}: a mapping of options is expected (given: {given})")
    if not specs and not problems:
        problems.append("fields: an event needs at least one field")
    return tuple(specs), problems


def _duplicates(specs: tuple[FieldSpec, ...]) -> list[str]:
    by_prefix: dict[str, list[str]] = {}
    for spec in specs:
        by_prefix.setdefault(spec.prefix, []).append(spec.name)
    return [
        f"{len(names)} fields are called {names[0]!r}"
        if len(set(names)) == 1
        else f"the fields {' and '.join(map(repr, names))} spell their tokens alike: [{prefix}…]"
        for prefix, names in by_prefix.items()
        if len(names) > 1
    ]


def _place_problems(
    specs: tuple[FieldSpec, ...], sources: Any, source_column: str | None
) -> list[str]:
    """What is wrong with where events begin, and with the column that names their source."""
    problems = []
    if sources is None and specs and specs[0].optional:
        problems.append(
            f"field {specs[0].name!r}: the first field cannot be optional, since it shows where an "
            "event begins (put another field first, or give sources)"
        )
    if source_column is not None:
        if not (isinstance(source_column, str) and source_column):
            problems.append(f"source_column: the name of a column (given: {source_column!r})")
        if sources is None:
            problems.append("source_column: there are no sources that it could name")
    return problems


def _collisions(specs: tuple[FieldSpec, ...], *, sourced: bool) -> list[str]:
    """Tokens that two fields of different prefixes could own, such as ``[TIME_MONTH=01]``."""
    owners = dict.fromkeys(GENERIC_SPECIALS, "the vocabulary")
    if sourced:
        owners |= dict.fromkeys(SOURCE_STEMS, "the name of the source")
    problems = []
    for spec in specs:
        for stem in sorted(token_stems(spec)):
            if stem in owners:
                token = stem if stem.endswith("]") else f"{stem}…]"
                problems.append(
                    f"the field {spec.name!r} and {owners[stem]} could both own the token "
                    f"{token}: rename the field, and give its column"
                )
            owners.setdefault(stem, f"the field {spec.name!r}")
    return problems


def _value_tokens(spec: FieldSpec) -> int:
    if spec.field_type is FieldType.SIGN:
        return 2
    if spec.field_type is FieldType.NUMERICAL_CONTINUOUS:
        return spec.bin_count
    if spec.field_type is FieldType.TEMPORAL:
        return sum(CALENDAR_PARTS[part].size for part in spec.calendar_fields)
    if spec.semantic_levels:
        return spec.semantic_levels * spec.semantic_codes
    return spec.vocab_size or 0


def _column_types(table: Any) -> dict[str, Any]:
    table = getattr(table, "frame", table)
    if isinstance(table, pl.LazyFrame):
        return dict(table.collect_schema())
    if isinstance(table, pl.DataFrame):
        return dict(table.schema)
    if isinstance(table, Mapping):
        return dict(table)
    return dict.fromkeys(table)


def _type_problem(spec: FieldSpec, dtype: Any) -> str | None:
    """Why a field cannot read a column of this type (None: it can, or the type is unknown)."""
    if dtype is None or dtype == pl.Null:
        return None
    kind, column = spec.field_type, spec.source
    numeric = dtype.is_numeric() or dtype == pl.Boolean
    stringy = dtype in (pl.String, pl.Categorical, pl.Enum)
    if kind is FieldType.TEMPORAL:
        moment = dtype in (pl.Date, pl.Datetime)
        if moment or (dtype.is_integer() and not spec.calendar_fields):
            return None
        needs = "a date or a datetime" + ("" if spec.calendar_fields else ", or whole numbers")
    elif kind is FieldType.TEXT:
        if stringy:
            return None
        needs = "strings"
    elif kind.is_categorical:
        if stringy or numeric or dtype.is_temporal():
            return None
        needs = "strings, numbers or booleans"
    elif kind is FieldType.NUMERICAL_DISCRETE:
        if dtype.is_integer() or dtype == pl.Boolean or dtype.is_float():
            return None
        needs = "whole numbers"
    else:
        if numeric:
            return None
        needs = "numbers"
    return f"the column {column!r} is {dtype}, and a {kind} field reads {needs}"
