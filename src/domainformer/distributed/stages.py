"""The stages that fitting and encoding share: opening the files, and grouping their events."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from domainformer.artifacts import fingerprint
from domainformer.data.event_files import EventFiles, Portion, Seen
from domainformer.data.grouping import Grouped, shard_count
from domainformer.data.keys import TimeKind
from domainformer.data.splits import Cut, cut_value
from domainformer.distributed.engines import run_stage
from domainformer.distributed.progress import ProgressCallback
from domainformer.distributed.tasks import GroupTask, Run, disk_error
from domainformer.distributed.work import WorkFolder
from domainformer.errors import DataError, SchemaError
from domainformer.schema import DomainSchema

VERSION = 1
Paths = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Job:
    """How the stages of a job run.

    Args:
        run: The engine.
        memory: Memory that each process may use, in bytes.
        progress: Is told about every unit of work.
        work: Where finished units are kept.
    """

    run: Run
    memory: int
    progress: ProgressCallback | None
    work: WorkFolder


@dataclass(frozen=True)
class Events:
    """Grouped events, and what was seen of them on the way."""

    grouped: Grouped
    seen: Seen
    time_kind: TimeKind


def open_files(paths: Paths, schema: DomainSchema, *, entity: str, time: str | None) -> EventFiles:
    """Find the files, with the columns that a schema reads.

    Raises:
        DataError: The files cannot be used.
        SchemaError: A column of the schema is missing, or elapsed times cannot be told.
    """
    files = EventFiles.of(paths, entity=entity, time=time, columns=schema.columns)
    schema.check(pl.from_arrow(files.types.empty_table()))
    for spec in schema.fields:
        if spec.elapsed_bins and spec.source != time:
            raise SchemaError(
                f"field {spec.name!r} needs the time since the entity's previous event",
                where=f"column {spec.source!r}",
                why=f"the time column is {time!r}",
                next_step=f"pass time={spec.source!r}, or set the field's elapsed_bins to 0",
            )
    return files


def identity(files: EventFiles) -> dict[str, Any]:
    """What makes the input what it is, for `WorkFolder.begin`."""
    return {
        "version": VERSION,
        "files": files.fingerprint,
        "entity": files.entity,
        "time": files.time,
        "columns": files.types.names,
    }


def units(portions: Sequence[Portion]) -> str:
    """A name for how the files are cut: receipts of other cuts must not be mixed with these."""
    return fingerprint([(part.pieces, part.rows) for part in portions])


def group(files: EventFiles, job: Job) -> Events:
    """Group the events of all files by entity, or take up what an earlier attempt has done.

    Raises:
        DataError: No row has an entity, no event a time, or a value cannot be used.
        StoreError: The work folder belongs to another job.
        ArtifactError: The disk is full or not writable.
    """
    portions = files.portions()
    assert portions is not None
    cut = units(portions)
    job.work.begin("group", {**identity(files), "memory": job.memory, "units": cut})
    task = GroupTask(str(job.work.path), files, tuple(portions), job.memory)
    receipts = run_stage(task, len(portions), run=job.run, progress=job.progress)
    seen = Seen()
    for receipt in receipts.values():
        seen.add(Seen(**receipt["seen"]))
    check_seen(files, seen)
    kind = files.time_kind(seen)
    grouped = Grouped(
        folder=str(job.work.runs),
        runs=tuple(run["name"] for receipt in receipts.values() for run in receipt["runs"]),
        entity=files.entity,
        time=files.time,
        n_shards=shard_count(sum(r["event_bytes"] for r in receipts.values()), job.memory),
        dates=files.text_times and kind == "date",
    )
    return Events(grouped, seen, kind)


def check_seen(files: EventFiles, seen: Seen) -> None:
    """Raise where no event has an entity, or none a time."""
    if not seen.rows:
        raise DataError(
            f"the entity column {files.entity!r} is empty in every row",
            next_step="name the column that tells whose event each row is",
        )
    if files.time is not None and not seen.timed:
        raise DataError(
            f"the time column {files.time!r} is empty in every row",
            next_step="name another time column, or none (time=None) to keep the order of the rows",
        )


def cut_of(cut: Cut | None, files: EventFiles) -> int | None:
    """A cut in the units of the files' times.

    Raises:
        DataError: There is no time column, or the cut is no time.
    """
    if cut is None:
        return None
    if files.time is None:
        raise DataError(
            "a table without times cannot be split by time", next_step="name the time column"
        )
    kind = files.time_kind(dataclasses.replace(Seen(), midnight=False))
    return cut_value(cut, time=files.time, integer=kind == "integer")


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Errors of the disk with a remedy; what is finished stays for the next attempt."""
    try:
        yield
    except OSError as error:
        if hasattr(error, "next_step"):  # an error of ours that is an ImportError, say
            raise
        raise disk_error(folder, error.errno, str(error)) from error
