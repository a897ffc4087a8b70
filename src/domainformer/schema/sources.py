"""Sources: several kinds of event in one history, each with fields of its own.

::

    source     fields                         tokens of an event
    cards      time  amount  merchant         [SOURCE=cards] [TIME_MONTH=03] … [MERCHANT] sh ell
    transfers  time  amount  counterparty     [SOURCE=transfers] [TIME_MONTH=03] … [COUNTERPARTY=7]
    app        time  screen                   [SOURCE=app] [TIME_MONTH=03] … [SCREEN=home]

Each event opens with the token of its source and holds the tokens of that source's fields only. A
field that several sources use (the time above) has one vocabulary and is fitted on all of them;
two sources that shall have bins of their own use two fields that read one column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from domainformer.config import StrictConfig
from domainformer.errors import SchemaError, nearest
from domainformer.schema.fields import FieldSpec, FieldType, category_token, missing_token

SOURCE_FIELD = "source"
"""The name that the tokens of the sources carry: ``[SOURCE=cards]``."""

SOURCE_STEMS = (f"[{SOURCE_FIELD.upper()}=", missing_token(SOURCE_FIELD))
_NOT_DECISIVE = ("share", "description")


class Source(StrictConfig):
    """One kind of event: its fields, and what it may take of the context.

    Args:
        fields: Names of the schema's fields that its events have, in token order.
        max_tokens_per_event: Most tokens of one event, the source's own included. An event that
            is longer loses text first (the last text field's end first), then its optional fields
            from the last to the first; None: no limit but those of the fields.
        share: The part of a context, in (0, 1], that is kept for this source's newest events when
            a history is cut; what it does not fill, others may use. None: nothing is kept for it,
            it competes for what is left.
        description: A note for the reader.

    Raises:
        SchemaError: A key is unknown or a value impossible; all problems are told at once.

    Example:
        >>> Source(["time", "amount"], share=0.5).share
        0.5
    """

    fields: tuple[str, ...]
    max_tokens_per_event: int | None = None
    share: float | None = None
    description: str = ""

    def __init__(self, fields: Sequence[str] = (), **options: Any) -> None:
        try:
            super().__init__(**{"fields": fields, **options})
        except ValidationError as error:
            problems = [_told(problem) for problem in error.errors(include_url=False)]
        else:
            problems = _own_problems(self)
        if problems:
            raise SchemaError("the source cannot be built", why="\n         ".join(problems))

    def options(self) -> dict[str, Any]:
        """The values that differ from the defaults, as plain data (what the YAML shows)."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def decisive(self) -> dict[str, Any]:
        """What decides the tokens of an event: neither the share nor the note does."""
        return {key: value for key, value in self.options().items() if key not in _NOT_DECISIVE}


def positions(spec: FieldSpec) -> int:
    """Positions of an event that a field takes, the BPE tokens of a text left out.

    Example:
        >>> positions(FieldSpec("time", "temporal", elapsed_bins=4))
        5
    """
    if spec.field_type is FieldType.TEMPORAL:
        return len(spec.calendar_fields) + (spec.elapsed_bins > 0)
    return spec.semantic_levels + 1


def least_tokens(specs: Sequence[FieldSpec]) -> int:
    """Tokens of a source's shortest event: its own token and the fields that are not optional."""
    return 1 + sum(positions(spec) for spec in specs if not spec.optional)


def source_field(names: Sequence[str], column: str) -> FieldSpec:
    """The field that the tokens of the sources belong to.

    Example:
        >>> source_field(["cards", "app"], "table").source
        'table'
    """
    return FieldSpec(
        SOURCE_FIELD, FieldType.CATEGORICAL_FIXED, vocab_size=len(names), column=column
    )


def source_token(name: str) -> str:
    """The token that opens an event of a source.

    Example:
        >>> source_token("card payments")
        '[SOURCE=card%20payments]'
    """
    return category_token(SOURCE_FIELD, name)


def built_sources(given: Any, specs: Sequence[FieldSpec]) -> tuple[dict[str, Source], list[str]]:
    """Sources from what a schema was given, and everything that is wrong with them.

    Args:
        given: A mapping of names to sources, or to mappings of their options; None for none.
        specs: The fields of the schema.
    """
    if given is None:
        return {}, []
    if not isinstance(given, Mapping):
        return {}, [f"sources: a mapping of names to sources is expected (given: {given!r})"]
    if not given:
        return {}, ["sources: there is none; leave the key out for a schema of one kind of event"]
    sources: dict[str, Source] = {}
    problems: list[str] = []
    for name, options in given.items():
        if not (isinstance(name, str) and name.strip()):
            problems.append(f"sources: a source needs a name (given: {name!r})")
        elif isinstance(options, Source):
            sources[name] = options
        elif isinstance(options, Mapping):
            try:
                sources[name] = Source(**{str(key): value for key, value in options.items()})
            except SchemaError as error:
                problems.append(f"source {name!r}: {error.why}")
        else:
            problems.append(f"source {name!r}: a mapping of options is expected (given: {options})")
    known = {spec.name: spec for spec in specs}
    for name, source in sources.items():
        problems += [f"source {name!r}: {text}" for text in _field_problems(source, known)]
    if len(sources) == len(given):
        problems += _joint_problems(sources, known)
    return sources, problems


def _told(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key ({nearest(key, Source.model_fields)})"
    return f"{key}: {problem['msg'].lower()} (given: {problem['input']!r})"


def _own_problems(source: Source) -> list[str]:
    problems = [] if source.fields else ["fields: a source needs at least one field"]
    twice = sorted({name for name in source.fields if source.fields.count(name) > 1})
    problems += [f"fields: {name!r} is named twice" for name in twice]
    if source.max_tokens_per_event is not None and source.max_tokens_per_event < 1:
        problems.append(
            f"max_tokens_per_event: must be at least 1 (given: {source.max_tokens_per_event})"
        )
    if source.share is not None and not 0 < source.share <= 1:
        problems.append(f"share: must be above 0 and at most 1 (given: {source.share})")
    return problems


def _field_problems(source: Source, known: Mapping[str, FieldSpec]) -> list[str]:
    unknown = [name for name in source.fields if name not in known]
    if unknown:
        return [
            f"there is no field {name!r} ({nearest(name, known) or 'the schema has none'})"
            for name in unknown
        ]
    least = least_tokens([known[name] for name in source.fields])
    if source.max_tokens_per_event is not None and source.max_tokens_per_event < least:
        return [
            f"max_tokens_per_event: its shortest event has {least} tokens "
            f"(given: {source.max_tokens_per_event}); make fields optional, or leave some out"
        ]
    return []


def _joint_problems(sources: Mapping[str, Source], known: Mapping[str, FieldSpec]) -> list[str]:
    used = {name for source in sources.values() for name in source.fields}
    problems = [
        f"field {name!r}: no source uses it (give it to one of: {', '.join(sources)})"
        for name in known
        if name not in used
    ]
    total = sum(source.share or 0.0 for source in sources.values())
    # Shares such as ten times 0.1 do not add up to exactly 1.
    if total > 1 + 1e-9:
        problems.append(f"share: the sources' shares add up to {total:.4g}, and 1 is all there is")
    return problems
