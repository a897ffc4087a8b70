"""Fitting a tokenizer on tables larger than memory."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from domainformer.data.event_files import EventFiles, Portion, Seen
from domainformer.data.grouping import Grouped
from domainformer.data.keys import TimeKind
from domainformer.data.splits import Cut
from domainformer.distributed.engines import connect, run_stage
from domainformer.distributed.plan import TokenizePlan
from domainformer.distributed.progress import ProgressCallback, memory_bytes
from domainformer.distributed.stages import (
    Job,
    Paths,
    cut_of,
    disk_errors,
    group,
    identity,
    open_files,
    units,
)
from domainformer.distributed.tasks import FitTask, NotSortedError
from domainformer.distributed.work import WorkFolder
from domainformer.errors import DataError
from domainformer.schema import DomainSchema
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.base import FieldTokenizer
from domainformer.tokenizers.fitting import FitStatistics
from domainformer.tokenizers.semantic.tokenizer import SemanticIdTokenizer
from domainformer.tokenizers.semantic.wiring import checked_semantic_ids


def fit_files(
    paths: Paths,
    schema: DomainSchema,
    *,
    entity: str,
    time: str | None,
    before: Cut | None = None,
    bpe_vocab_size: int = 4096,
    semantic_ids: Mapping[str, FieldTokenizer] | None = None,
    workers: int = 1,
    engine: str = "local",
    memory: int | str = "512MB",
    work: str | Path | None = None,
    resume: bool = True,
    progress: ProgressCallback | None = None,
) -> DomainTokenizer:
    """Fit a tokenizer on Parquet files of any size, in any order of rows.

    The same events give the same tokenizer, byte for byte, whatever the files, engines and
    workers, and it is the one that `DomainTokenizer.fit` makes of the whole table. Events are
    grouped by entity only where the schema asks for elapsed times and the files are not sorted by
    entity; otherwise files are read as they lie. Fields with very many categories are read twice.

    Args:
        paths: A Parquet file, a pattern, a folder, or several of these.
        schema: The fields of an event.
        entity: The entity column.
        time: The time column; None where only the order of rows is known.
        before: Fit on events before this time alone (give the ``validation_from`` of the split);
            events without a time count.
        bpe_vocab_size: Bytes and merges for text.
        semantic_ids: Semantic ids that were fitted apart, by field.
        workers: Processes.
        engine: ``"local"``, ``"ray"`` or ``"spark"``.
        memory: What each process may use for events, beside the libraries themselves.
        work: Folder for unfinished work, which stays; by default a temporary folder, and then a
            call that was stopped starts over.
        resume: Go on with what an interrupted call has left there; False starts over.
        progress: Called with a `Progress` after every unit of work.

    Raises:
        DataError: Files, columns or values cannot be used, or there are no events to fit on.
        SchemaError: The files do not fit the schema.
        StoreError: The unfinished work is that of another job.
        ArtifactError: The disk is full, or a worker died; call again to go on.
        MissingExtraError: The engine is not installed.
    """
    connection = connect(engine, workers)
    files = open_files(paths, schema, entity=entity, time=time)
    cut = cut_of(before, files)
    _check_options(schema, bpe_vocab_size, semantic_ids)
    size = memory_bytes(memory)
    with tempfile.TemporaryDirectory(prefix="domainformer-fit-") as temporary:
        folder = Path(work) if work is not None else Path(temporary) / "work"
        with disk_errors(folder), connection as run:
            job = Job(run, size, progress, WorkFolder(folder, resume=resume))
            about = {"schema": schema.fingerprint(), "before": cut}
            job.work.begin("fit", {**identity(files), **about})
            statistics = _collected(files, schema, cut, job)
            fitted = DomainTokenizer.from_statistics(
                schema, statistics, bpe_vocab_size=bpe_vocab_size, semantic_ids=semantic_ids
            )
            job.work.forget("fit")
    return fitted


def _check_options(
    schema: DomainSchema, bpe_vocab_size: int, given: Mapping[str, FieldTokenizer] | None
) -> None:
    """Find what would be wrong in the end before anything is read."""
    DomainTokenizer(schema, bpe_vocab_size=bpe_vocab_size)
    known = checked_semantic_ids(schema, given)
    for spec in schema.fields:
        if spec.semantic_levels and spec.name not in known:
            SemanticIdTokenizer(spec).fit_statistics(None)  # the error that names the way


def _collected(
    files: EventFiles, schema: DomainSchema, before: int | None, job: Job
) -> FitStatistics:
    """The statistics of all events, in one pass or two."""
    elapsed = any(spec.elapsed_bins for spec in schema.fields)
    whole = files.portions(whole_entities=True) if elapsed else None
    if elapsed and whole is None:
        return _grouped(files, schema, before, job)
    portions = whole if whole is not None else files.portions()
    assert portions is not None
    kind: TimeKind = _time_kind(files, portions) if elapsed else "none"
    task = _task(files, portions, schema, kind, job, before, whole=elapsed)
    try:
        return _passes(task, len(portions), job)
    except NotSortedError:
        # The bounds in the footers allow for sorted files; the rows are not.
        job.work.forget("fit")
        return _grouped(files, schema, before, job)


def _grouped(
    files: EventFiles, schema: DomainSchema, before: int | None, job: Job
) -> FitStatistics:
    events = group(files, job)
    task = _task(events.grouped, [], schema, events.time_kind, job, before, whole=True)
    return _passes(task, events.grouped.n_shards, job)


def _task(
    source: EventFiles | Grouped,
    portions: list[Portion],
    schema: DomainSchema,
    kind: TimeKind,
    job: Job,
    before: int | None,
    *,
    whole: bool,
) -> FitTask:
    plan = TokenizePlan(source.entity, source.time, kind, schema=schema.to_yaml())
    return FitTask(str(job.work.path), source, tuple(portions), plan, whole, before, None)


def _passes(task: FitTask, count: int, job: Job) -> FitStatistics:
    cut = units(task.portions) if task.portions else count
    job.work.begin("fit-units", {"units": cut})
    statistics = _merged(task, count, job)
    if statistics.needs_recount:
        second = FitTask(
            task.folder,
            task.source,
            task.portions,
            task.plan,
            task.whole,
            task.before,
            statistics.to_bytes(),
        )
        job.work.begin("recount", {"version": 1})
        statistics.adopt(_merged(second, count, job))
    if not statistics.n_events:
        raise DataError(
            "there are no events to fit on",
            why=f"no row has both an entity ({task.source.entity!r}) and a time before the cut"
            if task.before is not None
            else f"the entity column {task.source.entity!r} is empty in every row",
            next_step="name the column that tells whose event each row is, or move the cut",
        )
    return statistics


def _merged(task: FitTask, count: int, job: Job) -> FitStatistics:
    """Merge the statistics of all units; one of them is in memory beside the sum."""
    receipts = run_stage(task, count, run=job.run, progress=job.progress)
    total: FitStatistics | None = None
    for receipt in receipts.values():
        (name,) = receipt["files"]
        part = FitStatistics.from_bytes((job.work.path / name).read_bytes())
        total = part if total is None else total.merge(part)
    assert total is not None
    return total


def _time_kind(files: EventFiles, portions: list[Portion]) -> TimeKind:
    """The kind of the times, from as many events as it takes to see a time of day."""
    if files.time is None:
        return "none"
    keys = [files.types.field(name) for name in (files.entity, files.time)]
    times = dataclasses.replace(files, types=pa.schema(keys))
    seen = Seen()
    for portion in portions:
        for _ in times.read(portion, seen):
            if not seen.midnight:
                return files.time_kind(seen)
    return files.time_kind(seen)
