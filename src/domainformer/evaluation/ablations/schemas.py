"""Schemas with less, or with other options, than the one that they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal

from domainformer.errors import SchemaError
from domainformer.schema import DomainSchema, FieldSpec, FieldType
from domainformer.schema.sources import positions


def longest_event(schema: DomainSchema) -> int:
    """Most tokens that one event may take, its source's own included.

    Example:
        >>> longest_event(DomainSchema("s", [FieldSpec("words", "text", max_tokens=5)]))
        6
    """
    forms = [schema.fields_of(name) for name in schema.sources] or [schema.fields]
    return bool(schema.sources) + max(sum(map(_most, specs)) for specs in forms)


def _most(spec: FieldSpec) -> int:
    return positions(spec) + (spec.max_tokens if spec.field_type is FieldType.TEXT else 0)


def change_fields(schema: DomainSchema, specs: Sequence[FieldSpec], **options: Any) -> DomainSchema:
    """The schema with other options of some of its fields.

    Raises:
        SchemaError: An option is impossible.

    Example:
        >>> schema = DomainSchema("s", [FieldSpec("a", "numerical_continuous")])
        >>> change_fields(schema, schema.fields, n_bins=5).fields[0].n_bins
        5
    """
    names = {spec.name for spec in specs}
    fields = [
        _changed(spec, options) if spec.name in names else spec.options() for spec in schema.fields
    ]
    return _built(schema, fields, schema.sources)


def _changed(spec: FieldSpec, options: dict[str, Any]) -> dict[str, Any]:
    # What is None again is not written, so that a field of another kind does not refuse it.
    values = {**spec.options(), **options}
    return {key: value for key, value in values.items() if value is not None}


def without_columns(
    schema: DomainSchema, names: AbstractSet[str], *, by: Literal["source", "name"] = "source"
) -> DomainSchema:
    """The schema without the fields that read some columns, or that have some names.

    Raises:
        SchemaError: No field would be left, of the schema or of one of its sources.

    Example:
        >>> schema = DomainSchema("s", [FieldSpec("sign", "sign", column="amount"),
        ...     FieldSpec("amount", "numerical_continuous"), FieldSpec("kind", "text")])
        >>> [spec.name for spec in without_columns(schema, {"amount"}).fields]
        ['kind']
    """
    kept = [spec for spec in schema.fields if getattr(spec, by) not in names]
    left = {spec.name for spec in kept}
    sources = {
        name: source.model_copy(
            update={"fields": tuple(field for field in source.fields if field in left)}
        )
        for name, source in schema.sources.items()
    }
    empty = [name for name, source in sources.items() if not source.fields]
    if empty or not kept:
        raise SchemaError(
            "a schema needs at least one field",
            why=f"no field would be left of {', '.join(map(repr, empty)) or 'the schema'}",
        )
    return _built(schema, _first_not_optional(kept, sourced=bool(sources)), sources)


def _first_not_optional(specs: Iterable[FieldSpec], *, sourced: bool) -> list[dict[str, Any]]:
    """Options of fields; one that now opens an event cannot be optional."""
    options = [spec.options() for spec in specs]
    if not sourced:
        options[0].pop("optional", None)
    return options


def without_source(schema: DomainSchema, name: str) -> DomainSchema:
    """The schema without one source, and without the fields that it alone had.

    Raises:
        SchemaError: It is the only source.

    Example:
        >>> schema = DomainSchema("s", [FieldSpec("amount", "sign"), FieldSpec("screen", "text")],
        ...     sources={"cards": {"fields": ["amount"]}, "app": {"fields": ["screen"]}})
        >>> left = without_source(schema, "app")
        >>> list(left.sources), [spec.name for spec in left.fields]
        (['cards'], ['amount'])
    """
    sources = {key: source for key, source in schema.sources.items() if key != name}
    if not sources:
        raise SchemaError("a schema needs at least one source", why="it is the only source")
    used = {field for source in sources.values() for field in source.fields}
    return _built(schema, [spec.options() for spec in schema.fields if spec.name in used], sources)


def _built(schema: DomainSchema, fields: Sequence[Any], sources: Any) -> DomainSchema:
    own = {name: source.options() for name, source in sources.items()}
    column = schema.source_column if own else None
    return DomainSchema(schema.name, fields, own or None, column)
