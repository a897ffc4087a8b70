"""Statistics of training data, from which a tokenizer is fitted: in one go, or in many parts.

::

    part of the data ─update─▶ FitStatistics ╮
    part of the data ─update─▶ FitStatistics ┼─merge─▶ FitStatistics ─▶ DomainTokenizer
    part of the data ─update─▶ FitStatistics ╯                          .from_statistics

The result depends on the events alone: any partition, order of rows, order of merging, number of
workers and hash seed gives the same bytes. Memory does not grow with the number of events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Self

import polars as pl

from domainformer.data import EventTable
from domainformer.errors import (
    ArtifactError,
    DataError,
    DomainformerError,
    FingerprintError,
    SchemaError,
    TokenizerError,
)
from domainformer.schema import DomainSchema
from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.encoder import Columns
from domainformer.tokenizers.fields import (
    ElapsedTimeTokenizer,
    TextTokenizer,
    TimeKind,
    field_tokenizers,
)
from domainformer.tokenizers.fields.source import SourceTokenizer
from domainformer.tokenizers.occupancy import Occupancy, counts_before_fit
from domainformer.tokenizers.sources import FieldRows
from domainformer.tokenizers.statistics import (
    CountSketch,
    ExtremesSketch,
    Limits,
    NoSketch,
    QuantileSketch,
    RecountSketch,
    Sketch,
    SketchState,
    TextSketch,
    codec,
)
from domainformer.tokenizers.statistics.types import PartTypes, check_families

_TEXTS = "texts"
_SKETCHES: dict[str, type[Sketch]] = {
    cls.kind: cls
    for cls in (NoSketch, QuantileSketch, CountSketch, RecountSketch, TextSketch, ExtremesSketch)
}


class FitStatistics:
    """What a fit has to know of the training data, in bounded memory.

    Args:
        schema: The fields of an event.
        bpe_sample: Distinct texts that the BPE model is trained on.
        most_distinct: Distinct categories or whole numbers that are counted exactly, per field;
            beyond, a second pass is needed (see `recounting`).
        most_numbers: Distinct magnitudes or gaps that are counted exactly, per field; beyond,
            quantiles have a relative error below 2⁻¹⁰.

    Attributes:
        n_events: Events seen.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> schema = DomainSchema("shop", [FieldSpec("kind", "categorical_fixed")])
        >>> first = FitStatistics(schema).update(pl.DataFrame({"kind": ["tea", "cake"]}))
        >>> second = FitStatistics(schema).update(pl.DataFrame({"kind": ["tea", None]}))
        >>> [field.vocab[2:] for field in first.merge(second).fitted_fields()]
        [['[KIND=tea]', '[KIND=cake]']]
    """

    def __init__(
        self,
        schema: DomainSchema,
        *,
        bpe_sample: int = Limits.bpe_sample,
        most_distinct: int = Limits.most_distinct,
        most_numbers: int = Limits.most_numbers,
    ) -> None:
        self.schema = schema
        self.limits = Limits(most_numbers, most_distinct, bpe_sample)
        self.n_events = 0
        self._recount = False
        # Columns are read alike whatever the kind of time, which only the fit itself needs.
        self._fields = {_key(field): field for field in new_fields(schema, "datetime")}
        self._sketches = {_shared(key, f): self._new(f) for key, f in self._fields.items()}
        self._named: dict[str, Counter[str]] = {key: Counter() for key in self._fields}
        self._types = PartTypes()

    def _new(self, field: FieldTokenizer) -> Sketch:
        return field.new_statistics(self.limits)

    # ── collecting ───────────────────────────────────────────────────────────────────────────

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that `update` reads, beside the entity and the time of an EventTable."""
        opening = [self.schema.source_column] if self.schema.sources else []
        names = [field.spec.source for field in self._fields.values()]
        return tuple(dict.fromkeys([*opening, *names]))

    def update(self, table: EventTable | pl.DataFrame) -> Self:
        """Add the events of a table; where elapsed time is asked for, of whole entities.

        Raises:
            SchemaError: The table does not fit the schema.
            TokenizerError: A column holds what its field cannot read.
            DataError: A column has another type than in earlier events, so that the same value
                would be taken for another.
        """
        columns = self._few_columns(table) if self._recount else read_columns(self.schema, table)
        if not columns.frame.height:
            return self
        rows = FieldRows.of(self.schema, columns.frame)
        found = {
            key: rows.take(field.spec.name, columns.read_by(field))
            for key, field in self._fields.items()
        }
        # Everything is read and checked before anything is added.
        # Elapsed time is made of the time column, and has no type of its own.
        own = [
            (field.spec.source, found[key])
            for key, field in self._fields.items()
            if not isinstance(field, ElapsedTimeTokenizer)
        ]
        time_kind = table.time_kind if isinstance(table, EventTable) else "none"
        self._types = self._with_types(PartTypes.of(own, time_kind))
        for key, field in self._fields.items():
            field.observe(self._sketches[_shared(key, field)], found[key])
            if not self._recount:
                self._named[key].update(counts_before_fit(field, found[key]))
        self.n_events += columns.frame.height
        return self

    def merge(self, other: FitStatistics) -> Self:
        """Add the events of other statistics, which stay as they are.

        Raises:
            FingerprintError: They were collected for another schema, with other limits, or in
                another pass.
            DataError: A column has another type in these events.
        """
        if self._identity() != other._identity():
            raise FingerprintError(
                "these statistics cannot be merged",
                why="they were collected for another schema, with other limits or in another pass",
                next_step="collect all parts with one schema and the same options",
            )
        self._types = self._with_types(other._types)
        for key, sketch in self._sketches.items():
            sketch.merge(other._sketches[key])
        for key, named in self._named.items():
            named.update(other._named[key])
        self.n_events += other.n_events
        return self

    def _identity(self) -> tuple[Any, ...]:
        return self.schema.fingerprint(), self.limits, self._recount, sorted(self._sketches)

    def _few_columns(self, table: EventTable | pl.DataFrame) -> Columns:
        frame = table.frame if isinstance(table, EventTable) else table
        missing = [name for name in self.columns if name not in frame.columns]
        if missing:
            raise SchemaError(
                "the table lacks columns that the second pass counts",
                where=f"columns {', '.join(map(repr, missing))}",
                next_step="read the same columns as in the first pass",
            )
        return Columns.of(table, elapsed=False)

    def _with_types(self, more: PartTypes) -> PartTypes:
        """The types of earlier and further events, unless they contradict each other."""
        types = self._types.joined(more)
        for field in self._fields.values():
            column, as_text = field.spec.source, field.spec.field_type.is_categorical
            check_families(types.families.get(column, set()), as_text=as_text, column=column)
            if isinstance(field, ElapsedTimeTokenizer):
                types.check_times(column)
        return types

    # ── the second pass ──────────────────────────────────────────────────────────────────────

    @property
    def needs_recount(self) -> bool:
        """Whether a field has so many distinct values that the data must be read once more."""
        return any(sketch.needs_recount for sketch in self._sketches.values())

    def recounting(self) -> FitStatistics:
        """An empty collector for a second pass over the same data.

        It is updated and merged like the first, but reads only its `columns`; any part of the data
        may go to any worker. What comes back from `from_bytes` can be merged, not updated.

        Raises:
            TokenizerError: No second pass is needed.
        """
        if not self.needs_recount:
            raise TokenizerError(
                "no second pass is needed", next_step="fit from these statistics as they are"
            )
        second = FitStatistics(self.schema, **_options(self.limits))
        second._recount = True
        open_keys = [key for key, sketch in self._sketches.items() if sketch.needs_recount]
        second._fields = {key: self._fields[key] for key in open_keys}
        second._sketches = {key: self._sketches[key].recounting() for key in open_keys}
        second._named = {}
        return second

    def adopt(self, recount: FitStatistics) -> Self:
        """Take the result of the second pass; more events after this make another one necessary.

        Raises:
            FingerprintError: It does not belong to these statistics, or has seen other events.
        """
        if not recount._recount or recount.n_events != self.n_events:
            raise FingerprintError(
                "the second pass does not belong to these statistics",
                why=f"it has seen {recount.n_events:,} events, the first {self.n_events:,}"
                if recount._recount
                else "these are the statistics of a first pass",
                next_step="read the same data twice: once to update, once to recounting()",
            )
        for key, sketch in recount._sketches.items():
            self._sketches[key].adopt(sketch)
        return self

    @property
    def thresholds(self) -> dict[str, int]:
        """How often a value must occur to be known, for the fields that took a second pass."""
        return {
            self._fields[key].spec.name: sketch.frequent().threshold
            for key, sketch in self._sketches.items()
            if isinstance(sketch, CountSketch) and sketch.overflowed and not sketch.needs_recount
        }

    # ── fitting ──────────────────────────────────────────────────────────────────────────────

    def fitted_fields(
        self, given: Mapping[str, FieldTokenizer] | None = None
    ) -> list[FieldTokenizer]:
        """The field tokenizers in token order, fitted; text fields wait for the BPE model.

        Args:
            given: Fields that were fitted apart, by name, such as semantic ids.

        Raises:
            DataError: No events were seen.
            TokenizerError: A second pass is needed, or a field has to be given.
        """
        if not self.n_events:
            raise DataError("there are no events to fit on", next_step="check the table's filters")
        given = given or {}
        for name in given:
            self.schema.field(name)  # an error where there is no such field
        kind: Any = min(self._types.times, default="datetime")
        fields = new_fields(self.schema, kind)
        for index, field in enumerate(fields):
            if field.spec.name in given:
                fields[index] = given[field.spec.name]
            elif not isinstance(field, TextTokenizer):
                field.fit_statistics(self._sketches[_key(field)])
        return fields

    def text_counts(self) -> dict[str, int] | None:
        """The sample of texts that the BPE model learns from; None where no field is text."""
        sketch = self._sketches.get(_TEXTS)
        return sketch.counts() if isinstance(sketch, TextSketch) else None

    def occupancy(self, field: FieldTokenizer) -> Occupancy | None:
        """How often each local id of a field of `fitted_fields` occurs; None where unknown."""
        key = _key(field)
        if key not in self._named:
            return None
        return Occupancy.of_statistics(field, self._named[key], self._sketches[_shared(key, field)])

    # ── bytes ────────────────────────────────────────────────────────────────────────────────

    def to_bytes(self) -> bytes:
        """These statistics as bytes; equal statistics give equal bytes."""
        sketches, arrays = {}, []
        for key, sketch in sorted(self._sketches.items()):
            meta, named = sketch.state()
            sketches[key] = [sketch.kind, meta, sorted(named)]
            arrays += [named[name] for name in sorted(named)]
        header = {
            "schema": self.schema.to_yaml(),
            "limits": asdict(self.limits),
            "events": self.n_events,
            "recount": self._recount,
            "named": {key: dict(sorted(counts.items())) for key, counts in self._named.items()},
            "types": self._types.to_json(),
            "sketches": sketches,
        }
        return codec.encode(header, arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> FitStatistics:
        """The statistics that `to_bytes` was called on.

        Raises:
            ArtifactError: The bytes are none of such statistics, or were cut or changed.
        """
        header, arrays = codec.decode(data)
        try:
            limits = Limits(**header["limits"])
            statistics = cls(DomainSchema.from_yaml(header["schema"]), **_options(limits))
            sketches = {}
            left = iter(arrays)
            for key, (kind, meta, names) in sorted(header["sketches"].items()):
                state = SketchState(meta, {name: next(left) for name in names})
                sketches[key] = _SKETCHES[kind].from_state(state, limits)
            statistics._recount = bool(header["recount"])
            keep = sketches if statistics._recount else statistics._sketches
            if set(keep) != set(sketches):
                raise KeyError("fields of the schema")
            statistics._fields = {
                key: field
                for key, field in statistics._fields.items()
                if _shared(key, field) in sketches
            }
            statistics._sketches = sketches
            statistics._named = {key: Counter(named) for key, named in header["named"].items()}
            statistics.n_events = int(header["events"])
            statistics._types = PartTypes.from_json(header["types"])
        except (DomainformerError, KeyError, TypeError, ValueError, StopIteration) as error:
            raise ArtifactError(
                "the fit statistics cannot be read",
                why=f"{type(error).__name__}: {error}",
                next_step="they come from another version of domainformer: collect them again",
            ) from error
        return statistics

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FitStatistics) and self.to_bytes() == other.to_bytes()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        second = ", second pass" if self._recount else ""
        return f"FitStatistics({self.schema.name!r}, {self.n_events:,} events{second})"


def new_fields(schema: DomainSchema, time_kind: TimeKind) -> list[FieldTokenizer]:
    """The field tokenizers of a schema in token order, not fitted yet; first that of its source."""
    opening: list[FieldTokenizer] = []
    if schema.source_spec is not None:
        opening = [SourceTokenizer(schema.source_spec, list(schema.sources))]
    fields = [f for spec in schema.fields for f in field_tokenizers(spec, time_kind=time_kind)]
    return opening + fields


def read_columns(schema: DomainSchema, table: EventTable | pl.DataFrame) -> Columns:
    """The columns of a table that fits a schema.

    Raises:
        TokenizerError: This is no table.
        SchemaError: The table does not fit the schema.
    """
    if not isinstance(table, (EventTable, pl.DataFrame)):
        raise TokenizerError(
            f"a table of events is expected, not {type(table).__name__}",
            next_step="read one by EventTable.read(path, entity=…, time=…), or convert by "
            "EventTable.of(data, entity=…, time=…)",
        )
    schema.check(table)
    return Columns.of(table, elapsed=any(spec.elapsed_bins for spec in schema.fields))


def _key(field: FieldTokenizer) -> str:
    """The name of a field tokenizer's sketch; a TEMPORAL field has two."""
    return f"{field.spec.name}:{field.kind}"


def _shared(key: str, field: FieldTokenizer) -> str:
    """The name of the sketch that a field tokenizer adds to: all texts have one."""
    return _TEXTS if isinstance(field, TextTokenizer) else key


def _options(limits: Limits) -> dict[str, int]:
    return asdict(limits)
