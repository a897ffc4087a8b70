"""Checking and comparing tables of any size: `validate_table` and `drift_table`.

::

    files ─▶ entities and their lengths ─▶ some are drawn ─▶ their events ─▶ validate_tokenizer
    files ─▶ parts with whole histories ─▶ counts that add up             ─▶ drift

Both give what `validate_tokenizer` and `drift` give for the whole table; memory grows with the
number of entities (and their names) at most, not with that of events.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from domainformer.data import EventTable
from domainformer.data.event_files import EventFiles, Seen, frame_of
from domainformer.distributed.anysize import Means, read_table
from domainformer.distributed.engines import connect
from domainformer.distributed.glance import Glance, glance
from domainformer.distributed.plan import TokenizePlan
from domainformer.distributed.progress import memory_bytes
from domainformer.distributed.stages import Job, check_seen, disk_errors, group, open_files
from domainformer.distributed.tasks import BATCH_EVENTS
from domainformer.distributed.work import WorkFolder
from domainformer.tokenizers import DomainTokenizer, DriftReport, ValidationReport, drift
from domainformer.tokenizers.inspection.sample import Sample, draw_entities
from domainformer.tokenizers.inspection.validate import (
    check_count,
    validate_sample,
    validate_tokenizer,
)

_PIECES = 64


def validate_table(
    source: str | Path,
    tokenizer: DomainTokenizer,
    *,
    entity: str | None = None,
    time: str | None = None,
    known: Mapping[str, Any] | None = None,
    events: int = 2_000,
    seed: int = 0,
    means: Means | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ValidationReport:
    """Check a tokenizer on a sample of a table of any size (see `validate_tokenizer`).

    Args:
        source: Parquet files of any size, or a smaller table of another format.
        tokenizer: A fitted tokenizer.
        entity: The entity column; None: as ``known`` says, else guessed.
        time: The time column; None: likewise.
        known: ``entity`` and ``time`` of the table that a model was trained on.
        events: Events to look at one by one.
        seed: Of the sample; it is that of the whole table in memory.
        means: Memory, and who is told. Sampling takes one process.
        progress: Called with (checks done, checks in all).

    Raises:
        DomainformerError: As `validate_tokenizer` and `EventTable.read`.
    """
    means = means or Means()
    check_count(events)
    seen = glance(source, entity=entity, time=time, known=known)
    if not means.stream(seen, cut=False):
        table = read_table(source, seen, means.say)
        return validate_tokenizer(tokenizer, table, events=events, seed=seed, progress=progress)
    files = open_files(seen.source, tokenizer.schema, entity=seen.entity, time=seen.time)
    generator = np.random.default_rng(seed)
    names, lengths = _entities(files)
    chosen = names.gather(draw_entities(lengths, events, generator))
    part = _histories(files, chosen)
    return validate_sample(Sample.of_histories(tokenizer, part, events, generator), progress)


def drift_table(
    source: str | Path,
    tokenizer: DomainTokenizer,
    *,
    entity: str | None = None,
    time: str | None = None,
    known: Mapping[str, Any] | None = None,
    reference: str | Path | None = None,
    means: Means | None = None,
    progress: Callable[[str], None] | None = None,
) -> DriftReport:
    """Compare a table of any size with what a tokenizer was fitted on (see `drift`).

    Events are grouped by entity on disk only where the schema asks for elapsed times.

    Args:
        source: Parquet files of any size, or a smaller table of another format.
        tokenizer: A fitted tokenizer.
        entity: The entity column; None: as ``known`` says, else guessed.
        time: The time column; None: likewise.
        known: ``entity`` and ``time`` of the table that a model was trained on.
        reference: Compare with these events instead of what the fit has kept.
        means: Workers and memory for grouping, and who is told.
        progress: Called with the name of each field that is looked at.

    Raises:
        DomainformerError: As `drift` and `EventTable.read`.
    """
    means = means or Means()

    def parts(path: str | Path) -> EventTable | Iterator[EventTable | pl.DataFrame]:
        seen = glance(path, entity=entity, time=time, known=known)
        if not means.stream(seen, cut=False):
            return read_table(path, seen, means.say)
        return _parts(seen, tokenizer, means)

    then = None if reference is None else parts(reference)
    return drift(tokenizer, parts(source), reference=then, progress=progress)


def _parts(
    seen: Glance, tokenizer: DomainTokenizer, means: Means
) -> Iterator[EventTable | pl.DataFrame]:
    """The events of files in parts; with whole histories where the schema needs them."""
    schema = tokenizer.schema
    files = open_files(seen.source, schema, entity=seen.entity, time=seen.time)
    if not any(spec.elapsed_bins for spec in schema.fields):
        days = _days_alone(files)
        read = Seen()
        for portion in files.portions() or ():
            for frame in map(frame_of, files.read(portion, read)):
                yield frame.with_columns(pl.col(days).cast(pl.Date))
        check_seen(files, read)
        return
    with tempfile.TemporaryDirectory(prefix="domainformer-drift-") as temporary:
        folder = Path(temporary) / "work"
        with disk_errors(folder), connect(means.engine, means.workers) as run:
            size = memory_bytes(means.memory)
            events = group(files, Job(run, size, means.progress, WorkFolder(folder, resume=False)))
            plan = TokenizePlan(files.entity, files.time, events.time_kind)
            for shard in range(events.grouped.n_shards):
                rows = events.grouped.read(shard)
                if rows is not None:
                    for batch in rows.batches(files.entity, BATCH_EVENTS):
                        yield plan.table(batch)


def _days_alone(files: EventFiles) -> list[str]:
    """The time column, where its texts are days without a time of day, as only all of them tell."""
    if files.time is None or not files.text_times:
        return []
    keys = [files.types.field(name) for name in (files.entity, files.time)]
    narrow, read = dataclasses.replace(files, types=pa.schema(keys)), Seen()
    for portion in files.portions() or ():
        for _ in narrow.read(portion, read):
            pass
    return [files.time] if files.time_kind(read) == "date" else []


def _entities(files: EventFiles) -> tuple[pl.Series, npt.NDArray[np.int64]]:
    """The entities in the order of an `EventTable`, and the number of their events."""
    keys = [files.types.field(name) for name in (files.entity, files.time) if name is not None]
    narrow = dataclasses.replace(files, types=pa.schema(keys))
    name, read = files.entity, Seen()
    pieces: list[pl.DataFrame] = []

    def added() -> pl.DataFrame:
        return pl.concat(pieces).group_by(name).agg(pl.col("len").sum())

    for portion in files.portions() or ():
        for batch in narrow.read(portion, read):
            owners = frame_of(batch.select([name]))
            pieces.append(owners.group_by(name).agg(pl.len().cast(pl.Int64)))
            if len(pieces) > _PIECES:
                pieces = [added()]
    check_seen(files, read)
    counted = added().sort(name)
    return counted[name], counted["len"].to_numpy()


def _histories(files: EventFiles, chosen: pl.Series) -> EventTable:
    """All events of some entities."""
    read = Seen()
    pieces = []
    for portion in files.portions() or ():
        for batch in files.read(portion, read):
            frame = frame_of(batch)
            pieces.append(frame.filter(pl.col(files.entity).is_in(chosen.implode())))
    frame = pl.concat(pieces)
    if files.time is not None and files.text_times and files.time_kind(read) == "date":
        frame = frame.with_columns(pl.col(files.time).cast(pl.Date))
    return EventTable.of(frame, entity=files.entity, time=files.time, name=files.files[0])
