"""One call from a run to its evaluation: the next event, and a downstream probe where labels are.

::

    run/ (or a bundle, a table and its split) ─▶ next event: model vs popular vs repeat-last
    labels ─▶ probe: embeddings vs aggregates vs both          ─▶ evaluation.json, rendered tables
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Group, RenderableType

from domainformer.artifacts import write_json
from domainformer.data.splits import TEST, Split
from domainformer.data.store import TokenStore
from domainformer.data.table import EventTable
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import ArtifactError, DataError
from domainformer.evaluation.aggregates import aggregate_features
from domainformer.evaluation.labels import read_labels
from domainformer.evaluation.next_event import NextEvent, next_event
from domainformer.evaluation.probe import ProbeResult, probe
from domainformer.evaluation.tables import next_event_tables, probe_table
from domainformer.inference import Bundle, embed, is_bundle, load_bundle
from domainformer.run import RunRecord, read_run
from domainformer.schema import DomainSchema

EVALUATION_FILE = "evaluation.json"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        subject: Who was judged: folder, run id, fingerprints, number of parameters, split.
        next_event: The contest over the next event.
        probe: The downstream probe; None where no label was given.
        seconds: Wall time by part.
        created: UTC time (ISO 8601).
        notes: What a reader should know, in words.
    """

    subject: dict[str, Any]
    next_event: NextEvent
    probe: ProbeResult | None
    seconds: dict[str, float]
    created: str
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data: what stands in ``evaluation.json``."""
        return {
            "subject": self.subject,
            "next_event": self.next_event.to_json(),
            "probe": None if self.probe is None else self.probe.to_json(),
            "seconds": self.seconds,
            "created": self.created,
            "notes": self.notes,
        }

    def write(self, path: str | Path) -> Path:
        """Write ``evaluation.json`` atomically and return its path."""
        write_json(Path(path), self.to_json())
        return Path(path)

    def render(self) -> RenderableType:
        """Tables for a terminal: ``rich.print(evaluation.render())``."""
        parts = next_event_tables(self.next_event)
        if self.probe is not None:
            parts.append(probe_table(self.probe))
        return Group(*parts)


def evaluate(
    folder: str | Path,
    *,
    table: EventTable | None = None,
    split: Split | None = None,
    label: str | None = None,
    labels: pl.DataFrame | str | Path | None = None,
    embeddings: pl.DataFrame | None = None,
    max_events: int | None = 3000,
    samples: int = 8,
    folds: int = 5,
    seed: int = 0,
    threads: int = 1,
    batch_tokens: int = 8192,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge a trained model.

    Args:
        folder: A run folder (with ``model/`` and ``store/``) or a bundle.
        table: The events; needed for a bundle, and for a probe of a run whose table was not read
            from a file.
        split: Roles of the table's events; a run's own record by default.
        label: Label column for the probe: of the table, or of ``labels``.
        labels: One label per entity: a table (entity column first) or a Parquet or CSV file with
            the table's entity column.
        embeddings: Of all entities, as :func:`~domainformer.inference.embed` gives them; computed
            where they are needed and not given.
        max_events: Score at most so many test events; None scores all.
        samples: Completions per event for the history-only view.
        folds: Folds of the probe.
        seed: Of the choice of events, the completions, the folds and the bootstraps.
        threads: Threads for LightGBM.
        batch_tokens: Tokens per forward pass.
        output: Where to write the evaluation; ``evaluation.json`` in a run folder by default, and
            nowhere for a bundle.
        progress: Called with (events done, events in all).

    Raises:
        ArtifactError: The folder is neither a run nor a bundle.
        DataError: What is needed was not given, or there is nothing to judge.
        FingerprintError: Model, tokenizer and events do not belong together.
    """
    folder = Path(folder)
    bundle, run = _open(folder)
    if label is not None and labels is None and table is None:
        table = _table_of(run, folder)
    started = time.perf_counter()
    contest = next_event(
        bundle,
        _events(folder, run, bundle, table, split),
        role=TEST,
        max_events=max_events,
        samples=samples,
        seed=seed,
        batch_tokens=batch_tokens,
        progress=progress,
    )
    seconds = {"next_event": time.perf_counter() - started}
    result = None
    if label is not None:
        started = time.perf_counter()
        table = table if table is not None else _table_of(run, folder)
        frame = _labels(table, label, labels)
        result = probe(
            embeddings if embeddings is not None else embed(bundle, table),
            aggregate_features(table, without(bundle.schema, label)),
            frame,
            folds=folds,
            seed=seed,
            threads=threads,
        )
        seconds["probe"] = time.perf_counter() - started
    evaluation = Evaluation(
        subject=_subject(folder, bundle, run, split),
        next_event=contest,
        probe=result,
        seconds=seconds,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=_notes(contest, result) + _notes_on_merges(bundle),
    )
    if output is not None or run is not None:
        evaluation.write(output if output is not None else folder / EVALUATION_FILE)
    return evaluation


def without(schema: DomainSchema, label: str) -> DomainSchema:
    """The schema without fields that read the label: no aggregate may see it.

    Raises:
        DataError: The model itself was trained with the label as a field, so that every figure of
            the probe would be worthless.
    """
    if any(spec.source == label for spec in schema.fields):
        raise DataError(
            f"the label {label!r} is a field of the schema",
            why="the model has read it in every event, and so would the aggregates",
            next_step="train again with data.label set, or with a schema without that field",
        )
    return schema


def _open(folder: Path) -> tuple[Bundle, RunRecord | None]:
    if is_bundle(folder):
        return load_bundle(folder), None
    if is_bundle(folder / "model"):
        return load_bundle(folder / "model"), read_run(folder)
    raise ArtifactError(
        f"{folder} is neither a run nor a model",
        why="it has no model/ folder with a domainformer.json, and none of its own",
        next_step="give the folder that pretrain made (it holds run.json and model/)",
    )


def _events(
    folder: Path,
    run: RunRecord | None,
    bundle: Bundle,
    table: EventTable | None,
    split: Split | None,
) -> TokenizedEvents | TokenStore:
    """Whole histories with roles: the run's own store, or the table tokenized here."""
    if table is None:
        if run is None:
            raise DataError(
                "a model alone has no events to be judged on",
                where=str(folder),
                next_step="pass table=… and split=…, or give the run's folder",
            )
        return TokenStore.open(folder / "store")
    if split is None and run is not None and run.split is not None:
        if (folder / "store").is_dir():
            return TokenStore.open(folder / "store")
        split = Split.from_record(table, run.split)
    if split is None:
        raise DataError(
            "the table has no split",
            why="baselines are fitted on training events, the contest is held on test events",
            next_step="pass split=split_by_time(table) or split_by_entity(table)",
        )
    if len(split.roles) != table.n_events:
        raise DataError(
            "this split was made for another table",
            why=f"it has {len(split.roles):,} events, the table {table.n_events:,}",
        )
    return bundle.tokenizer.encode(table, roles=split.roles)


def _table_of(run: RunRecord | None, folder: Path) -> EventTable:
    """Read the run's table again, as its configuration says."""
    data = {} if run is None else run.config.get("data", {})
    if not data.get("path"):
        raise DataError(
            "the probe needs the table of events",
            where=str(folder),
            why="the run's configuration names no file",
            next_step="pass table=EventTable.read(…)",
        )
    return EventTable.read(data["path"], entity=data["entity"], time=data.get("time"))


def _labels(
    table: EventTable, label: str, labels: pl.DataFrame | str | Path | None
) -> pl.DataFrame:
    if labels is None:
        return read_labels(table, None, label)
    entity = labels.columns[0] if isinstance(labels, pl.DataFrame) else table.entity
    return read_labels(labels, entity, label)


def _subject(
    folder: Path, bundle: Bundle, run: RunRecord | None, split: Split | None
) -> dict[str, Any]:
    own = {} if run is None else {"run": run.id, "name": run.name, "config_hash": run.config_hash}
    record = split.record if split is not None else (None if run is None else run.split)
    return {
        "folder": str(folder),
        **own,
        "architecture": type(bundle.model).__name__,
        "parameters": int(sum(p.numel() for p in bundle.model.parameters())),
        "tokenizer_fingerprint": bundle.tokenizer.fingerprint,
        **({} if bundle.merges is None else {"merges": bundle.merges.n_merges}),
        "schema": bundle.schema.name,
        "split": record,
    }


def _notes_on_merges(bundle: Bundle) -> list[str]:
    if bundle.merges is None:
        return []
    several = "tokens hold several fields each, so no field is judged given earlier ones"
    if bundle.permuted:
        return [f"{several}; of permuted tokens whole events have no log-loss"]
    return [f"{several}; nats per event are of the greedy encoding, the event's own are no more"]


def _notes(contest: NextEvent, result: ProbeResult | None) -> list[str]:
    notes = []
    if contest.events < contest.candidates:
        notes.append(
            f"{contest.events:,} of {contest.candidates:,} test events were drawn at random "
            f"(seed {contest.seed})"
        )
    if not contest.first_events:
        notes.append("first events of histories are left out: nothing precedes them")
    outside = [slot.outside for slot in contest.slots if slot.outside is not None]
    if outside and float(np.max(outside)) > 0.05:
        notes.append(
            f"the model gives up to {np.max(outside):.1%} of its probability to ids that cannot "
            "stand at a position; longer training usually helps"
        )
    return notes + (result.notes if result is not None else [])
