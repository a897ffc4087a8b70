"""What every engine runs: entity rows in, token rows out.

::

    entity │ time        amount …                entity │ ids            lengths  times   roles
    anna   │ [t₁, t₂]    [3.5, -1.0]   ─encode─▶  anna   │ [7 12 9 7 31]  [3, 2]   [t₁ t₂] [0 1]
    bob    │ [t₃]        [2.0]                   bob    │ [8 12]         [2]      [t₃]    [0]

One row is one entity with its whole history as lists, sorted by time, so that no engine has to know
what an event is. Types are those that Arrow, Spark and Hugging Face `datasets` share. A plan is a
few strings and numbers; a worker loads the tokenizer from its folder on first use and keeps it.
Neither torch nor transformers is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from domainformer.data import EventTable, TokenizedEvents
from domainformer.data.event_files import series_of
from domainformer.data.keys import NULL_TIME, TimeKind
from domainformer.data.splits import TEST, VALIDATION
from domainformer.data.tokens import id_dtype
from domainformer.errors import DataError, FingerprintError
from domainformer.schema import DomainSchema
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.fitting import FitStatistics

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TokenizePlan:
    """How to fit on, or encode, rows of one entity each. Picklable.

    Args:
        entity: The entity column.
        time: The time column; None where the order of the lists is all that is known.
        time_kind: ``EventTable.time_kind`` of the whole table.
        tokenizer_folder: A saved tokenizer that every worker can read; None to fit only.
        tokenizer_fingerprint: Its fingerprint: another one in the folder is an error.
        schema: The schema as YAML text; needed to fit only.
        validation_from: First time of the validation part, as ``EventTable.time_values`` has it.
        test_from: First time of the test part.

    Example:
        >>> plan = TokenizePlan("who", "at", "integer", schema='''name: shop
        ... fields: [{name: kind, field_type: categorical_fixed}]''')
        >>> rows = pa.RecordBatch.from_pydict(
        ...     {"who": ["a", "b"], "at": [[1, 2], [5]], "kind": [["tea", "cake"], ["tea"]]})
        >>> collected = plan.fit_batch(rows)["statistics"][0].as_py()
        >>> FitStatistics.from_bytes(collected).n_events
        3
    """

    entity: str
    time: str | None
    time_kind: TimeKind = "datetime"
    tokenizer_folder: str | None = None
    tokenizer_fingerprint: str | None = None
    schema: str | None = None
    validation_from: int | None = None
    test_from: int | None = None

    @classmethod
    def of(
        cls,
        tokenizer_folder: str | Path,
        *,
        entity: str,
        time: str | None,
        time_kind: TimeKind = "datetime",
    ) -> TokenizePlan:
        """A plan for a saved tokenizer.

        Args:
            tokenizer_folder: What `DomainTokenizer.save_pretrained` has written.
            entity: The entity column.
            time: The time column, or None.
            time_kind: The kind of its times.

        Raises:
            ArtifactError: There is no such tokenizer.
        """
        fitted = DomainTokenizer.from_pretrained(tokenizer_folder)
        folder = str(Path(tokenizer_folder).absolute())
        return cls(entity, time, time_kind, folder, fitted.fingerprint)

    @property
    def tokenizer(self) -> DomainTokenizer:
        """The tokenizer, loaded once per process.

        Raises:
            ArtifactError: The folder is missing or damaged.
            FingerprintError: The folder holds another tokenizer by now.
        """
        if self.tokenizer_folder is None:
            raise DataError("this plan can fit only", next_step="make one by TokenizePlan.of")
        return _load(self.tokenizer_folder, self.tokenizer_fingerprint)

    @property
    def has_roles(self) -> bool:
        """Whether events get split roles."""
        return self.validation_from is not None or self.test_from is not None

    def table(self, rows: pa.RecordBatch | Mapping[str, Any]) -> EventTable:
        """Entity rows as an EventTable, which shares their memory.

        Args:
            rows: One row per entity; every other column holds lists of equal lengths. A mapping of
                names to Python lists will do, as `datasets.map(batched=True)` gives it.

        Raises:
            DataError: A column is missing, no list, or its lists differ in length.
        """
        batch = rows if isinstance(rows, pa.RecordBatch) else pa.RecordBatch.from_pydict(dict(rows))
        if self.entity not in batch.schema.names:
            raise DataError(f"entity rows have no column {self.entity!r}")
        entities = series_of(batch.column(self.entity))
        columns, offsets = _flat(batch, self.entity)
        if self.time is not None and self.time not in columns:
            raise DataError(f"entity rows have no column {self.time!r}")
        owners = np.repeat(np.arange(len(entities)), np.diff(offsets))
        frame = pl.DataFrame(
            [
                entities.gather(owners).alias(self.entity),
                *(series_of(values).alias(name) for name, values in columns.items()),
            ]
        )
        return EventTable(frame, self.entity, self.time, offsets, self.time_kind)

    def roles(self, times: Ints) -> npt.NDArray[np.uint8] | None:
        """The split role of each event: of its own time alone; without a time it is training."""
        if not self.has_roles:
            return None
        roles = np.zeros(len(times), np.uint8)
        for start, role in ((self.validation_from, VALIDATION), (self.test_from, TEST)):
            if start is not None:
                roles[times >= start] = role
        roles[times == NULL_TIME] = 0
        return roles

    def encode_batch(self, rows: pa.RecordBatch | Mapping[str, Any]) -> pa.RecordBatch:
        """Ids of the events of some entities.

        Returns:
            A row per entity: the entity; ``ids``, list<int32>, the tokens of all its events;
            ``lengths``, list<int32>, tokens of each event; ``times``, list<int64>; and ``roles``,
            list<int8>, where the plan has cuts.

        Raises:
            SchemaError: The rows do not fit the tokenizer's schema.
            TokenizerError: A column holds what its field cannot read.
        """
        table = self.table(rows)
        encoded = self.tokenizer.encode(table, roles=self.roles(table.time_values))
        return to_rows(encoded, self.entity)

    def fit_batch(self, rows: pa.RecordBatch | Mapping[str, Any]) -> pa.RecordBatch:
        """What the events of some entities add to a fit: one cell, `FitStatistics` as bytes.

        Merge these from all batches, in any order, and hand them to
        `DomainTokenizer.from_statistics`.

        Raises:
            SchemaError: The rows do not fit the schema.
        """
        schema = self.tokenizer.schema if self.schema is None else parsed_schema(self.schema)
        statistics = FitStatistics(schema).update(self.table(rows))
        cell = pa.array([statistics.to_bytes()], pa.binary())
        return pa.RecordBatch.from_arrays([cell], names=["statistics"])

    def map_arrow(
        self, batches: Iterator[pa.RecordBatch], *, step: Literal["encode", "fit"] = "encode"
    ) -> Iterator[pa.RecordBatch]:
        """`encode_batch` or `fit_batch` of many batches: what Spark's ``mapInArrow`` takes."""
        for batch in batches:
            yield self.encode_batch(batch) if step == "encode" else self.fit_batch(batch)


def to_rows(events: TokenizedEvents, entity: str) -> pa.RecordBatch:
    """Tokenized events as a row per entity, as `TokenizePlan.encode_batch` gives them."""
    if events.n_tokens > np.iinfo(np.int32).max:
        raise DataError(
            f"{events.n_tokens:,} tokens are too many for one batch",
            next_step="pass fewer entities at once",
        )
    owners = pa.array(events.entity_offsets, pa.int32())
    tokens = pa.array(events.event_offsets[events.entity_offsets], pa.int32())
    narrow = np.int32 if events.vocab_size <= np.iinfo(np.int32).max else np.int64
    lengths = np.diff(events.event_offsets).astype(np.int32)
    columns = {
        entity: events.entity_ids.to_arrow(compat_level=pl.CompatLevel.oldest()),
        "ids": pa.ListArray.from_arrays(tokens, pa.array(events.ids.astype(narrow))),
        "lengths": pa.ListArray.from_arrays(owners, pa.array(lengths)),
        "times": pa.ListArray.from_arrays(owners, pa.array(events.times)),
    }
    if events.roles is not None:
        columns["roles"] = pa.ListArray.from_arrays(owners, pa.array(events.roles.view(np.int8)))
    return pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))


def from_rows(rows: pa.RecordBatch, *, fingerprint: str, vocab_size: int) -> TokenizedEvents:
    """The inverse of `to_rows`."""
    ids, lengths, times = (rows.column(name) for name in ("ids", "lengths", "times"))
    ends = np.cumsum(lengths.flatten().to_numpy(), dtype=np.int64)
    owners = _offsets(lengths)
    roles = None
    if "roles" in rows.schema.names:
        roles = rows.column("roles").flatten().to_numpy().view(np.uint8)
    return TokenizedEvents(
        ids=ids.flatten().to_numpy().astype(id_dtype(vocab_size)),
        event_offsets=np.concatenate([np.zeros(1, np.int64), ends]),
        entity_offsets=owners,
        entity_ids=series_of(rows.column(0)),
        times=times.flatten().to_numpy(),
        roles=roles,
        tokenizer_fingerprint=fingerprint,
        vocab_size=vocab_size,
    )


def parsed_schema(text: str) -> DomainSchema:
    """A schema from YAML text."""
    return _parse(text)


@lru_cache(maxsize=4)
def _parse(text: str) -> DomainSchema:
    return DomainSchema.from_yaml(text + "\n")


@lru_cache(maxsize=4)
def _load(folder: str, expected: str | None) -> DomainTokenizer:
    fitted = DomainTokenizer.from_pretrained(folder)
    if expected not in (None, fitted.fingerprint):
        raise FingerprintError(
            "the tokenizer was replaced while it was used",
            where=folder,
            why=f"its fingerprint was {expected} and is {fitted.fingerprint}",
            next_step="start over with the tokenizer that is wanted",
        )
    return fitted


def _flat(batch: pa.RecordBatch, entity: str) -> tuple[dict[str, pa.Array], Ints]:
    """The values of all list columns, and where each row begins in them."""
    columns: dict[str, pa.Array] = {}
    offsets: Ints | None = None
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if name == entity:
            continue
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            raise DataError(
                f"the column {name!r} of entity rows holds {column.type}, not lists",
                next_step="collect the events of an entity into lists, in the order of time",
            )
        own = _offsets(column)
        if offsets is not None and not np.array_equal(own, offsets):
            raise DataError(f"the lists of {name!r} have other lengths than those before it")
        columns[name], offsets = column.flatten(), own
    if offsets is None:
        raise DataError("entity rows have no column of events")
    return columns, offsets


def _offsets(lists: pa.Array) -> Ints:
    if lists.null_count:
        raise DataError("an entity has no list of events", next_step="leave such entities out")
    sizes = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])
