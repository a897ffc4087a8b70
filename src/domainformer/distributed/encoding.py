"""Encoding tables larger than memory: files in, one canonical token store out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from domainformer.data import TokenStore
from domainformer.data.event_files import EventFiles
from domainformer.data.splits import ROLE_NAMES, Cut
from domainformer.distributed.engines import connect, run_stage
from domainformer.distributed.plan import TokenizePlan
from domainformer.distributed.progress import Meter, ProgressCallback, memory_bytes
from domainformer.distributed.stages import (
    Job,
    Paths,
    cut_of,
    disk_errors,
    group,
    identity,
    open_files,
)
from domainformer.distributed.tasks import BATCH_EVENTS, EncodeTask
from domainformer.distributed.work import Receipt, WorkFolder
from domainformer.errors import DataError, StoreError
from domainformer.tokenizers import DomainTokenizer


def tokenize_files(
    paths: Paths,
    tokenizer: DomainTokenizer | str | Path,
    output: str | Path,
    *,
    entity: str,
    time: str | None,
    validation_from: Cut | None = None,
    test_from: Cut | None = None,
    workers: int = 1,
    engine: str = "local",
    memory: int | str = "512MB",
    batch_events: int = BATCH_EVENTS,
    work: str | Path | None = None,
    resume: bool = True,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> TokenStore:
    """Encode Parquet files of any size, in any order of rows, into a token store.

    ::

        files ─group─▶ runs on disk ─encode─▶ finished shards ─assemble─▶ store

    The store depends on the events, the tokenizer and ``memory`` alone: engines, workers, batches
    and the order of rows give the same bytes. A shard holds the entities of one part of the hash
    range, sorted; events at the same time keep the order of the files (by name) and their rows.
    Ids equal those of `DomainTokenizer.encode` on the whole table.

    Args:
        paths: A Parquet file, a pattern, a folder, or several of these.
        tokenizer: A fitted tokenizer, or the folder of a saved one.
        output: Folder of the store.
        entity: The entity column.
        time: The time column; None where only the order of rows is known.
        validation_from: Events from here on have the role "validation".
        test_from: Events from here on have the role "test".
        workers: Processes.
        engine: ``"local"``, ``"ray"`` or ``"spark"``.
        memory: What each process may use for events and tokens, beside the libraries themselves
            (about 200 MB). It decides the number of shards.
        batch_events: Events to encode at once; only time depends on it.
        work: Folder for unfinished work; by default ``<output>.partial``, which is removed in the
            end. With the same folder, `fit_files` and this group the events once.
        resume: Go on with what an interrupted call has left there; False starts over.
        overwrite: Replace an existing store.
        progress: Called with a `Progress` after every unit of work.

    Raises:
        DataError: Files, columns or values cannot be used, or a cut leaves no training events.
        SchemaError: The files do not fit the tokenizer's schema.
        StoreError: The output exists, or the unfinished work is that of another job.
        ArtifactError: The disk is full, or a worker died; call again to go on.
        MissingExtraError: The engine is not installed.
    """
    connection = connect(engine, workers)
    output = Path(output)
    if output.exists() and not overwrite:
        raise StoreError(
            f"{output} exists already",
            next_step="choose another path, or pass overwrite=True (--overwrite) to replace it",
        )
    if not isinstance(tokenizer, DomainTokenizer):
        tokenizer = DomainTokenizer.from_pretrained(tokenizer)
    files = open_files(paths, tokenizer.schema, entity=entity, time=time)
    cuts = Cuts.of(validation_from, test_from, files)
    folder = Path(work) if work is not None else output.with_name(f"{output.name}.partial")
    size = memory_bytes(memory)
    with disk_errors(folder):
        kept = WorkFolder(folder, resume=resume)
        about = {"tokenizer": tokenizer.fingerprint, "cuts": list(cuts), "memory": size}
        kept.begin("encode", {**identity(files), **about})
        with connection as run:
            job = Job(run, size, progress, kept)
            receipts = _encoded(files, tokenizer, cuts, job, batch_events)
        meter = Meter("assemble", 1, 0, progress)
        store = TokenStore.adopt(
            output,
            [kept.shards / f"shard-{n:05d}" for n, r in receipts.items() if r["entities"]],
            tokenizer_fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            has_roles=cuts.given,
            overwrite=overwrite,
            meta={"entity": entity, "time": time, **cuts.record(time, receipts)},
        )
        meter.add(store.n_events)
    kept.forget("encode")
    if work is None:
        kept.remove()
    return store


def _encoded(
    files: EventFiles, tokenizer: DomainTokenizer, cuts: Cuts, job: Job, batch_events: int
) -> dict[int, Receipt]:
    """Group the events and encode every shard."""
    events = group(files, job)
    plan = TokenizePlan(
        files.entity,
        files.time,
        events.time_kind,
        _saved(tokenizer, job.work),
        tokenizer.fingerprint,
        validation_from=cuts.validation,
        test_from=cuts.test,
    )
    job.work.begin("encode-units", {"units": events.grouped.n_shards})
    task = EncodeTask(str(job.work.path), events.grouped, plan, batch_events)
    return run_stage(task, events.grouped.n_shards, run=job.run, progress=job.progress)


def _saved(tokenizer: DomainTokenizer, kept: WorkFolder) -> str:
    """The tokenizer in the work folder, where every worker finds it."""
    folder = kept.path / f"tokenizer-{tokenizer.fingerprint}"
    if not folder.exists():
        tokenizer.save_pretrained(folder)
    return str(folder.absolute())


class Cuts(NamedTuple):
    """The cuts of a split by time, as `EventTable.time_values` has times."""

    validation: int | None
    test: int | None

    @classmethod
    def of(cls, validation: Cut | None, test: Cut | None, files: EventFiles) -> Cuts:
        """Read the cuts that a caller gives."""
        cuts = cls(cut_of(validation, files), cut_of(test, files))
        if cuts.validation is not None and cuts.test is not None and cuts.validation > cuts.test:
            raise DataError(
                "the cuts are in the wrong order",
                why=f"validation begins at {validation}, test before it at {test}",
            )
        return cuts

    @property
    def given(self) -> bool:
        """Whether there is a split."""
        return self.validation is not None or self.test is not None

    def record(self, time: str | None, receipts: dict[int, Receipt]) -> dict[str, Any]:
        """What the store says of the split; nothing that differs between engines.

        Raises:
            DataError: A part has no events.
        """
        if not self.given:
            return {}
        full = [receipt["roles"] for receipt in receipts.values() if receipt["entities"]]
        events = dict(zip(ROLE_NAMES, map(sum, zip(*full, strict=True)), strict=True))
        expected = {
            "train": True,
            "validation": self.validation is not None and self.validation != self.test,
            "test": self.test is not None,
        }
        for part, wanted in expected.items():
            if wanted and not events[part]:
                raise DataError(
                    f"the {part} part would be empty",
                    why=f"events a part: {events}",
                    next_step="move the cuts and pass resume=False",
                )
        cuts = {"validation_from": self.validation, "test_from": self.test}
        return {"split": {"kind": "time", "time": time, **cuts, "events": events}}
