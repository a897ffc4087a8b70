"""A schema: the ordered fields of one event, checked when it is built."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import polars as pl

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

_KEYS = ("name", "fields")


class DomainSchema(StrictConfig):
    """The ordered fields of one event; their order is the order of the event's tokens.

    ::

        fields  kind         sign        amount        timestamp              merchant
        tokens  [KIND=Fuel]  [SIGN=POS]  [AMOUNT=B07]  [TIMESTAMP_MONTH=03]…  [MERCHANT]sh ell

    Args:
        name: What the schema is called in files and reports.
        fields: The fields, or mappings of their options as a YAML file holds them.

    Raises:
        SchemaError: There is no field, two fields share a name or could own the same token, or a
            field is wrong in itself; all problems are told at once.

    Example:
        >>> schema = DomainSchema("shop", [
        ...     FieldSpec("category", FieldType.CATEGORICAL_FIXED, vocab_size=30),
        ...     FieldSpec("price", FieldType.NUMERICAL_CONTINUOUS, n_bins=21),
        ... ])
        >>> schema.special_token_count
        51
        >>> DomainSchema.from_yaml(schema.to_yaml()) == schema
        True
    """

    name: str
    fields: tuple[FieldSpec, ...]

    def __init__(
        self,
        name: str = "",
        fields: Iterable[FieldSpec | Mapping[str, Any]] = (),
        **unknown: Any,
    ) -> None:
        specs, problems = _built(fields)
        if not (isinstance(name, str) and name.strip()):
            problems.insert(0, f"name: a schema needs a name (given: {name!r})")
        problems += [f"{key}: unknown key ({nearest(key, _KEYS)})" for key in unknown]
        problems += _duplicates(specs) or _collisions(specs)
        if problems:
            raise SchemaError(
                f"the schema {name!r} cannot be built", why="\n         ".join(problems)
            )
        super().__init__(**{"name": name, "fields": specs})  # noqa: PIE804 - untyped on purpose

    @property
    def special_token_count(self) -> int:
        """Tokens for values that the schema alone determines.

        Two a sign, the bins of a magnitude, the calendar parts, and ``vocab_size`` where it is
        given. MISSING, UNK and elapsed tokens are not counted.
        """
        return sum(_value_tokens(spec) for spec in self.fields)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the fields read, each once, in field order."""
        return tuple(dict.fromkeys(spec.source for spec in self.fields))

    def field(self, name: str) -> FieldSpec:
        """The field called ``name``.

        Raises:
            SchemaError: There is none; the nearest name is told.
        """
        for spec in self.fields:
            if spec.name == name:
                return spec
        raise SchemaError(
            f"the schema {self.name!r} has no field {name!r}",
            next_step=nearest(name, [spec.name for spec in self.fields]),
        )

    def check(self, table: Any) -> None:
        """Make sure that a table has the columns, with types that the fields can read.

        Args:
            table: An EventTable, a polars DataFrame or LazyFrame, a mapping of column names to
                polars types, or column names alone (then types are not checked).

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
        problems = []
        for spec in self.fields:
            if spec.source not in columns:
                hint = nearest(spec.source, columns) or "the table has no columns"
                problems.append(f"field {spec.name!r}: there is no column {spec.source!r} ({hint})")
            elif (problem := _type_problem(spec, columns[spec.source])) is not None:
                problems.append(f"field {spec.name!r}: {problem}")
        if problems:
            raise SchemaError(
                f"the table does not fit the schema {self.name!r}",
                why="\n         ".join(problems),
                next_step="change the schema's columns, or the table",
            )

    def fingerprint(self) -> str:
        """A short name of everything that decides tokens; notes and the schema's name do not."""
        plain = [
            {key: value for key, value in spec.options().items() if key != "description"}
            for spec in self.fields
        ]
        return fingerprint(plain)

    def to_yaml(self, path: str | Path | None = None) -> str:
        """The schema as YAML text without defaults, also written to ``path`` where given."""
        plain = {"name": self.name, "fields": [spec.options() for spec in self.fields]}
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


def _collisions(specs: tuple[FieldSpec, ...]) -> list[str]:
    """Tokens that two fields of different prefixes could own, such as ``[TIME_MONTH=01]``."""
    owners = dict.fromkeys(GENERIC_SPECIALS, "the vocabulary")
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
