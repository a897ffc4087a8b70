"""The axes of an ablation: one small function each, which says what may be changed.

To add one, write a function from the base to its variants and add a line to `AXES`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, get_args

from domainformer.errors import ConfigError, SchemaError, nearest
from domainformer.evaluation.ablations.schemas import (
    change_fields,
    longest_event,
    without_columns,
    without_source,
)
from domainformer.models import DomainTransformerConfig
from domainformer.schema import DomainSchema, FieldSpec, FieldType
from domainformer.training.config import RunConfig
from domainformer.training.merged_config import MergesConfig
from domainformer.training.merging import check_schema
from domainformer.training.objective_config import ObjectiveWeights

BASE = "base"
ELAPSED_BINS = 16
MERGED_VOCABULARY = 4096
_USUAL_PARTS = FieldSpec.model_fields["calendar_fields"].default


@dataclass(frozen=True)
class Base:
    """What is varied.

    Args:
        config: The run.
        schema: Its schema, found once and the same for all variants that do not change it.
    """

    config: RunConfig
    schema: DomainSchema


@dataclass(frozen=True)
class Variant:
    """One change of the base.

    Args:
        axis: The axis that it lies on.
        name: What it is called on its axis, such as ``"64"`` or ``"off"``.
        overrides: Dotted keys of the run and their values.
        schema: Another schema; None: that of the base.
        hidden: Sources whose events are not shown.
    """

    axis: str
    name: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    schema: DomainSchema | None = None
    hidden: tuple[str, ...] = ()

    @property
    def folder(self) -> str:
        """The name of its folder: ``context-64``."""
        if self.axis == BASE:
            return BASE
        return re.sub(r"[^\w.]+", "-", f"{self.axis}-{self.name}").strip("-.")

    def definition(self) -> dict[str, Any]:
        """What decides it, as plain data."""
        schema = None if self.schema is None else self.schema.model_dump(mode="json")
        return {"overrides": dict(self.overrides), "schema": schema, "hidden": list(self.hidden)}


@dataclass(frozen=True)
class Skip:
    """A variant, or a whole axis, that does not apply.

    Args:
        axis: The axis.
        why: What the table of results says.
    """

    axis: str
    why: str


Found = Iterator[Variant | Skip]
Values = list[Any] | None


@dataclass(frozen=True)
class Axis:
    """A factor that can be varied.

    Args:
        name: As it is asked for.
        changes: What it changes, in words.
        make: From the base, and the values that the user named (None: the usual ones).
        takes: What the user's values are; None where the axis takes none.
        pairwise: Each variant lacks something else, so that all have little in common: each is
            compared with the base on what these two have.
    """

    name: str
    changes: str
    make: Callable[[Base, Values], Found]
    takes: str | None = None
    pairwise: bool = False


def _context(base: Base, values: Values) -> Found:
    now = base.config.training.context
    need = longest_event(base.schema) + 1
    for value in values or (now // 4, now // 2, 2 * now):
        if type(value) is not int or value < need:
            why = f"context {value} has no room for an event, which may take {need} tokens with BOS"
            yield Skip("context", why)
        elif value != now:
            yield Variant("context", str(value), {"training.context": value})


def _data(base: Base, values: Values) -> Found:
    columns = tuple(dict.fromkeys(spec.source for spec in base.schema.fields))
    sources = tuple(base.schema.sources)
    for name in values or (*sources, *columns):
        if name not in (*sources, *columns):
            raise ConfigError(
                f"there is no source and no field column {name!r} to leave out",
                where="axis data",
                next_step=nearest(str(name), (*sources, *columns)),
            )
        hidden = (name,) if name in sources else ()
        less = (
            partial(without_source, name=name) if hidden else partial(without_columns, names={name})
        )
        yield from _less("data", f"without {name}", partial(less, base.schema), hidden)
    if values is None:
        yield from _budgets(base)


def _budgets(base: Base) -> Found:
    """Whether each source is kept a share of the context."""
    sources = base.schema.sources
    if not sources:
        return
    shared = any(source.share is not None for source in sources.values())
    share = None if shared else int(100 / len(sources)) / 100  # rounded up, they would exceed 1
    changed = {name: source.model_copy(update={"share": share}) for name, source in sources.items()}
    name = "no token budgets" if shared else "equal token budgets"
    yield Variant("data", name, schema=base.schema.model_copy(update={"sources": changed}))


def _bins(base: Base, values: Values) -> Found:
    numbers = _fields(base, FieldType.NUMERICAL_CONTINUOUS, lambda spec: spec.edges is None)
    if not numbers:
        yield Skip("bins", "no field of the schema is a number with fitted bins")
        return
    now = max(spec.n_bins for spec in numbers)
    for value in values or dict.fromkeys((max(2, now // 4), max(2, now // 2), 2 * now)):
        changed = change_fields(base.schema, numbers, n_bins=value)
        if changed != base.schema:
            yield Variant("bins", str(value), schema=changed)


def _calendar(base: Base, values: Values) -> Found:
    times = _fields(base, FieldType.TEMPORAL)
    if not times:
        yield Skip("calendar", "no field of the schema is a time")
        return
    shown = [spec for spec in times if spec.calendar_fields]
    if not shown:
        changed = change_fields(base.schema, times, calendar_fields=_USUAL_PARTS)
        yield Variant("calendar", "on", schema=changed)
        return
    # A time that tells neither its date nor what passed since the last one is no field any more.
    both = [spec for spec in shown if spec.elapsed_bins]
    alone = {spec.name for spec in shown if not spec.elapsed_bins}
    kept = change_fields(base.schema, both, calendar_fields=(), year_anchor=None)
    yield from _less("calendar", "off", partial(without_columns, kept, alone, by="name"))


def _elapsed(base: Base, values: Values) -> Found:
    times = _fields(base, FieldType.TEMPORAL)
    timed = [spec for spec in times if spec.elapsed_bins]
    if not times or (base.config.data.time is None and not timed):
        yield Skip("elapsed", "no field of the schema is a time, or the table has no time column")
        return
    if not timed:
        changed = change_fields(base.schema, times[:1], elapsed_bins=ELAPSED_BINS)
        yield Variant("elapsed", "on", schema=changed)
        return
    dated = [spec for spec in timed if spec.calendar_fields]
    alone = {spec.name for spec in timed if not spec.calendar_fields}
    kept = change_fields(base.schema, dated, elapsed_bins=0)
    yield from _less("elapsed", "off", partial(without_columns, kept, alone, by="name"))


def _text(base: Base, values: Values) -> Found:
    texts = {spec.name for spec in _fields(base, FieldType.TEXT)}
    if not texts:
        yield Skip("text", "no field of the schema is a text")
        return
    yield from _less("text", "off", partial(without_columns, base.schema, texts, by="name"))


def _position(base: Base, values: Values) -> Found:
    key = "position_encoding"
    usual = get_args(DomainTransformerConfig.__annotations__[key])
    now = base.config.model.overrides.get(key, DomainTransformerConfig.position_encoding)
    for value in values or usual:
        if value != now:
            yield Variant("position", str(value), {f"model.overrides.{key}": value})


def _objective(base: Base, values: Values) -> Found:
    first, *others = ObjectiveWeights.model_fields
    usual = [{first: 1.0}, *({name: 1.0} for name in others)]
    usual += [{first: 1.0, name: 1.0} for name in others]
    for value in values or usual:
        weights = {value: 1.0} if isinstance(value, str) else dict(value)
        told = [name if weight == 1 else f"{weight:g} {name}" for name, weight in weights.items()]
        if why := _refused(base.config, base.config.tokenizer.merges, weights):
            yield Skip("objective", f"{' + '.join(told)}: {why}")
        elif weights != base.config.training.objectives.used:
            yield Variant("objective", " + ".join(told), {"training.objectives": weights})


def _merges(base: Base, values: Values) -> Found:
    now, key = base.config.tokenizer.merges, "tokenizer.merges"
    if now is not None:
        yield Variant("merges", "off", {key: None})
    if now is not None and values is None:
        return
    for value in values or (MERGED_VOCABULARY,):
        settings = MergesConfig(vocab_size=value)
        try:
            check_schema(base.schema)
        except ConfigError as error:
            yield Skip("merges", error.what)
            return
        if why := _refused(base.config, settings, base.config.training.objectives.used):
            yield Skip("merges", why)
        elif settings != now:
            yield Variant("merges", str(value), {key: settings.model_dump()})


def _refused(config: RunConfig, merges: MergesConfig | None, objectives: Iterable[str]) -> str:
    """Why merges and the rest of a run do not go together; empty where they do."""
    try:
        if merges is not None:
            rate = config.training.substitute_values
            merges.refuse(objectives=objectives, substitute_values=rate)
    except ValueError as error:
        return str(error)
    return ""


#: The axes by name. A new one is a function above and a line here.
AXES: Mapping[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis("context", "tokens that the model sees at once", _context, "numbers of tokens"),
        Axis("data", "columns, sources and budgets of sources", _data, "names", pairwise=True),
        Axis("bins", "bins of each number", _bins, "numbers of bins"),
        Axis("calendar", "whether the parts of a date are tokens", _calendar),
        Axis("elapsed", "whether the time since the last event is a token", _elapsed),
        Axis("text", "whether texts are shown", _text),
        Axis("merges", "whether tokens that go together are one", _merges, "numbers of ids"),
        Axis("position", "how the model knows the order of tokens", _position, "encodings"),
        Axis("objective", "what is learned", _objective, "names, or mappings of weights"),
    )
}


def _less(
    axis: str, name: str, make: Callable[[], DomainSchema], hidden: tuple[str, ...] = ()
) -> Found:
    """A variant that is shown less, unless nothing would be left."""
    try:
        yield Variant(axis, name, schema=make(), hidden=hidden)
    except SchemaError as error:
        yield Skip(axis, f"{name} is not possible: {error.why or error.what}")


def _fields(
    base: Base, kind: FieldType, where: Callable[[FieldSpec], Any] = lambda spec: True
) -> list[FieldSpec]:
    return [spec for spec in base.schema.fields if spec.field_type is kind and where(spec)]
