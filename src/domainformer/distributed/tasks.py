"""The units of work that engines spread over processes: group, collect statistics, encode.

A task is a small picklable object; called with the number of a unit it reads its part of the input,
writes its files, leaves a receipt in the work folder, and returns the receipt. Whatever engine runs
it, and however often, the files are the same, so that stores are.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pyarrow as pa

from domainformer import errors
from domainformer.artifacts import fsync_path
from domainformer.data import EventTable
from domainformer.data.event_files import EventFiles, Portion, Seen, frame_of
from domainformer.data.grouping import EntityRows, Grouped, entity_rows, write_runs
from domainformer.data.keys import integer_times
from domainformer.data.runs import joined
from domainformer.data.shards import write_shard
from domainformer.data.tokens import TokenizedEvents
from domainformer.distributed.plan import TokenizePlan, from_rows, parsed_schema
from domainformer.distributed.work import Receipt, WorkFolder
from domainformer.errors import ArtifactError, DataError, DomainformerError
from domainformer.tokenizers.fitting import FitStatistics

BATCH_EVENTS = 1 << 18
_ERROR_PARTS = ("what", "where", "why", "next_step")


@dataclass(frozen=True)
class Task(ABC):
    """A unit of work, called with its number.

    Args:
        folder: The work folder, which every worker can reach.
    """

    stage: ClassVar[str]
    folder: str

    def __call__(self, index: int) -> Receipt:
        """Do one unit, record it, and return its receipt."""
        receipt = self.work_on(index)
        self.work.finish(self.stage, index, receipt)
        return receipt

    @abstractmethod
    def work_on(self, index: int) -> Receipt:
        """Write the files of one unit and return what is to be known of them."""

    @property
    def work(self) -> WorkFolder:
        """The work folder."""
        return WorkFolder(Path(self.folder), resume=True)

    def intact(self, receipt: Receipt) -> bool:
        """Whether the files that a receipt names are still there."""
        sizes: dict[str, int] = receipt.get("files", {})
        return all(
            (path := Path(self.folder) / name).is_file() and path.stat().st_size == size
            for name, size in sizes.items()
        )


@dataclass(frozen=True)
class GroupTask(Task):
    """Write the runs of one portion of the files.

    Args:
        files: The source.
        portions: Its parts.
        memory: Memory that a process may use, in bytes.
    """

    stage: ClassVar[str] = "group"
    files: EventFiles
    portions: tuple[Portion, ...]
    memory: int

    def work_on(self, index: int) -> Receipt:
        """Write the runs of one portion."""
        receipt = write_runs(self.files, self.portions[index], self.work.runs, memory=self.memory)
        pa.default_memory_pool().release_unused()
        sizes = {
            f"runs/{name}": size for run in receipt["runs"] for name, size in run["files"].items()
        }
        return {**receipt, "events": receipt["seen"]["rows"], "files": sizes}


@dataclass(frozen=True)
class FitTask(Task):
    """Collect the statistics of one portion of the files, or of one shard of grouped events.

    Args:
        source: Files, whose portions are read as they lie, or grouped events.
        portions: Parts of the files; empty for grouped events.
        plan: Entity, time and schema.
        whole: Whether portions hold whole entities, sorted, so that elapsed times can be told.
        before: Only events before this time count, if any is given.
        second: Which pass: statistics of the first that ask for another, or None.
    """

    source: EventFiles | Grouped
    portions: tuple[Portion, ...]
    plan: TokenizePlan
    whole: bool
    before: int | None
    second: bytes | None

    @property
    def stage(self) -> str:  # type: ignore[override]
        """Each pass has receipts of its own."""
        return "fit" if self.second is None else "recount"

    def work_on(self, index: int) -> Receipt:
        """Write the statistics of one unit."""
        assert self.plan.schema is not None
        statistics = (
            FitStatistics(parsed_schema(self.plan.schema))
            if self.second is None
            else FitStatistics.from_bytes(self.second).recounting()
        )
        for table in self._tables(index):
            statistics.update(self._training(table))
            pa.default_memory_pool().release_unused()
        name = f"shards/{self.stage}-{index:06d}.bin"
        _write_bytes(Path(self.folder) / name, data := statistics.to_bytes())
        return {"events": statistics.n_events, "files": {name: len(data)}}

    def _tables(self, index: int) -> Iterator[EventTable | pl.DataFrame]:
        if isinstance(self.source, Grouped):
            rows = self.source.read(index)
            if rows is not None:
                for batch in rows.batches(self.plan.entity, BATCH_EVENTS):
                    yield self.plan.table(batch)
            return
        batches = self.source.read(self.portions[index], Seen())
        if not self.whole:
            yield from map(frame_of, batches)
            return
        for rows in sorted_rows(batches, self.plan):
            for batch in rows.batches(self.plan.entity, BATCH_EVENTS):
                yield self.plan.table(batch)

    def _training(self, table: EventTable | pl.DataFrame) -> EventTable | pl.DataFrame:
        if self.before is None:
            return table
        if isinstance(table, EventTable):
            return table.filter(table.time_values < self.before)
        assert self.plan.time is not None
        early = integer_times(table[self.plan.time]) < self.before
        return table.filter(pl.Series(early))


@dataclass(frozen=True)
class EncodeTask(Task):
    """Encode one shard of grouped events.

    Args:
        grouped: The events.
        plan: Entity, time, tokenizer and cuts.
        batch_events: Events to encode at once; the ids do not depend on it.
    """

    stage: ClassVar[str] = "encode"
    grouped: Grouped
    plan: TokenizePlan
    batch_events: int = BATCH_EVENTS

    def work_on(self, index: int) -> Receipt:
        """Write one shard of the store."""
        rows = self.grouped.read(index)
        if rows is None:
            return {"events": 0, "entities": 0, "files": {}}
        events = self._encoded(rows)
        events.validate()
        name = f"shards/shard-{index:05d}"
        final = Path(self.folder) / name
        # Engines may run a unit twice at once: each attempt has a name of its own.
        staging = final.with_name(f"{final.name}.{uuid.uuid4().hex}")
        try:
            write_shard(staging, events)
            for path in (*staging.iterdir(), staging):
                fsync_path(path)
            shutil.rmtree(final, ignore_errors=True)
            staging.replace(final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        sizes = {f"{name}/{path.name}": path.stat().st_size for path in sorted(final.iterdir())}
        roles = [] if events.roles is None else np.bincount(events.roles, minlength=3).tolist()
        counts = {"events": events.n_events, "entities": events.n_entities}
        del rows, events
        pa.default_memory_pool().release_unused()
        return {**counts, "roles": roles, "files": sizes}

    def _encoded(self, rows: EntityRows) -> TokenizedEvents:
        tokenizer = self.plan.tokenizer
        parts = [
            from_rows(
                self.plan.encode_batch(batch),
                fingerprint=tokenizer.fingerprint,
                vocab_size=tokenizer.vocab_size,
            )
            for batch in rows.batches(self.plan.entity, self.batch_events)
        ]
        return parts[0] if len(parts) == 1 else TokenizedEvents.concatenate(parts)


Run = Callable[[Task, Sequence[int]], Iterator[tuple[int, Receipt]]]
"""Does units of work on an engine; receipts come as units finish."""


class NotSortedError(DataError):
    """Files that seemed to be sorted by entity are not: they have to be grouped."""


def sorted_rows(batches: Iterator[pa.RecordBatch], plan: TokenizePlan) -> Iterator[EntityRows]:
    """Whole entities out of batches that are sorted by entity; the last one waits for the next.

    Raises:
        NotSortedError: An entity comes after a greater one.
    """
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if not batch.num_rows:
            continue
        ids = frame_of(batch.select([plan.entity])).to_series()
        last = None if not held else frame_of(held[-1].select([plan.entity])).item(-1, 0)
        if not ids.is_sorted() or (last is not None and last > ids[0]):
            raise NotSortedError("the files are not sorted by entity")
        # Everything before the batch's last entity is complete.
        cut = int(ids.search_sorted(ids[-1], side="left"))
        if cut:
            yield _rows_of([*held, batch.slice(0, cut)], plan)
            held = [batch.slice(cut)]
        elif last is not None and last != ids[0]:
            yield _rows_of(held, plan)
            held = [batch]
        else:
            held.append(batch)
    if held:
        yield _rows_of(held, plan)


def _rows_of(batches: list[pa.RecordBatch], plan: TokenizePlan) -> EntityRows:
    names = batches[0].schema.names
    columns = {
        name: joined([batch.column(index) for batch in batches]) for index, name in enumerate(names)
    }
    return entity_rows(columns, entity=plan.entity, time=plan.time)


def run_batch(task: Task, units: pa.RecordBatch | pa.Table) -> pa.RecordBatch:
    """Do the units of a batch: what every engine calls on its workers.

    Deliberate errors and those of the disk come back as data, because engines wrap exceptions in
    their own; `outcomes` raises them again. Anything else is a bug and stays as it is.

    Args:
        task: What to do.
        units: One column ``unit``, int64.

    Returns:
        ``unit``, int64, and ``receipt``, JSON.
    """
    numbers = units.column("unit").to_pylist()
    receipts = []
    for number in numbers:
        try:
            receipt = task(number)
        except DomainformerError as error:
            parts = {name: getattr(error, name) for name in _ERROR_PARTS}
            receipt = {"error": type(error).__name__, **parts}
        except (OSError, pa.ArrowException) as error:
            receipt = {"error": "disk", "errno": getattr(error, "errno", None), "why": str(error)}
        receipts.append(json.dumps(receipt))
    arrays = [pa.array(numbers, pa.int64()), pa.array(receipts, pa.string())]
    return pa.RecordBatch.from_arrays(arrays, names=["unit", "receipt"])


def outcomes(task: Task, done: pa.RecordBatch | pa.Table) -> Iterator[tuple[int, Receipt]]:
    """Units and their receipts out of what `run_batch` gave.

    Raises:
        DomainformerError: A unit failed; the error is the one that its worker raised.
    """
    rows = zip(done.column("unit").to_pylist(), done.column("receipt").to_pylist(), strict=True)
    for unit, text in rows:
        receipt = json.loads(text)
        if "error" in receipt:
            raise _rebuilt(task, receipt)
        yield unit, receipt


def _rebuilt(task: Task, receipt: Receipt) -> DomainformerError:
    name = receipt["error"]
    if name == "disk":
        return disk_error(task.folder, receipt["errno"], receipt["why"])
    if name == NotSortedError.__name__:
        return NotSortedError(receipt["what"])
    kind = getattr(errors, name, DomainformerError)
    error: DomainformerError = DomainformerError.__new__(kind)
    parts: dict[str, Any] = {part: receipt[part] for part in _ERROR_PARTS}
    DomainformerError.__init__(error, parts.pop("what"), **parts)
    return error


def disk_error(folder: str | Path, number: int | None, why: str) -> ArtifactError:
    """The error of a disk that is full or cannot be written while work is under way."""
    full = number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in why
    return ArtifactError(
        f"{folder} could not be written" + (": the disk is full" if full else ""),
        why=why,
        next_step="free some space (grouped events take about as much as the uncompressed table, "
        "tokens as much again) and run the same call again: it goes on where it stopped"
        if full
        else "check the path, its permissions and the input files, and run the same call again",
    )


def _write_bytes(path: Path, data: bytes) -> None:
    staging = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex}")
    try:
        with staging.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)
