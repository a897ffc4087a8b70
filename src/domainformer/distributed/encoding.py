"""Encoding tables larger than memory: files in, one canonical token store out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from domainformer.data import TokenStore
from domainformer.data.splits import ROLE_NAMES, Cut
from domainformer.distributed.engines import engine as engine_named
from domainformer.distributed.engines import run_stage
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
    run = engine_named(engine)
    output = Path(output)
    if output.exists() and not overwrite:
        raise StoreError(
            f"{output} exists already",
            next_step="choose another path, or pass overwrite=True (--overwrite) to replace it",
        )
    if not isinstance(tokenizer, DomainTokenizer):
        tokenizer = DomainTokenizer.from_pretrained(tokenizer)
    files = open_files(paths, tokenizer.schema, entity=entity, time=time)
    cuts = (cut_of(validation_from, files), cut_of(test_from, files))
    if None not in cuts and cuts[0] > cuts[1]:  # type: ignore[operator]
        raise DataError("the cuts are in the wrong order", why=f"{validation_from}, {test_from}")
    folder = Path(work) if work is not None else output.with_name(f"{output.name}.partial")
    with disk_errors(folder):
        kept = WorkFolder(folder, resume=resume)
        job = Job(run, workers, memory_bytes(memory), progress, kept)
        about = {"tokenizer": tokenizer.fingerprint, "cuts": list(cuts), "memory": job.memory}
        events = None
        kept.begin("encode", {**identity(files), **about})
        events = group(files, job)
        plan = TokenizePlan(
            entity,
            time,
            events.time_kind,
            _saved(tokenizer, kept),
            tokenizer.fingerprint,
            validation_from=cuts[0],
            test_from=cuts[1],
        )
        task = EncodeTask(str(folder), events.grouped, plan, batch_events)
        count = events.grouped.n_shards
        receipts = run_stage(task, count, run=run, workers=workers, progress=progress)
        shards = [kept.shards / f"shard-{n:05d}" for n, r in receipts.items() if r["entities"]]
        meta = _meta(entity, time, validation_from, test_from, receipts)
        meter = Meter("assemble", 1, 0, progress)
        store = TokenStore.adopt(
            output,
            shards,
            tokenizer_fingerprint=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            has_roles=plan.has_roles,
            overwrite=overwrite,
            meta=meta,
        )
        meter.add(store.n_events)
    kept.forget("encode")
    if work is None:
        kept.remove()
    return store


def _saved(tokenizer: DomainTokenizer, kept: WorkFolder) -> str:
    """The tokenizer in the work folder, where every worker finds it."""
    folder = kept.path / f"tokenizer-{tokenizer.fingerprint}"
    if not folder.exists():
        tokenizer.save_pretrained(folder)
    return str(folder.absolute())


def _meta(
    entity: str,
    time: str | None,
    validation_from: Cut | None,
    test_from: Cut | None,
    receipts: dict[int, Receipt],
) -> dict[str, Any]:
    """What the store says about itself; nothing that differs between engines."""
    meta: dict[str, Any] = {"entity": entity, "time": time}
    if validation_from is None and test_from is None:
        return meta
    counts = [sum(r["roles"][role] for r in receipts.values() if r["entities"]) for role in (0, 1, 2)]
    if not counts[0]:
        raise DataError("the train part would be empty", next_step="move the cut")
    later = ((validation_from, counts[1]), (test_from, counts[2]))
    if any(cut is not None and not count for cut, count in later) and validation_from != test_from:
        raise DataError(
            "a part of the split would be empty",
            why=f"events a part: {dict(zip(ROLE_NAMES, counts, strict=True))}",
            next_step="move the cuts; grouped events are kept, so that the next call is shorter",
        )
    split = {"kind": "time", "time": time, "events": dict(zip(ROLE_NAMES, counts, strict=True))}
    split["validation_from"] = None if validation_from is None else str(validation_from)
    split["test_from"] = None if test_from is None else str(test_from)
    return {**meta, "split": split}
