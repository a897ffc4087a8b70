"""What a run folder holds, as plain data: whatever is missing is None or empty.

::

    run.json ───────────────▶ record          store/ ─────────────▶ counts, slots, example
    config.yaml ────────────▶ config_text     evaluation.json ────▶ evaluation, probe
    metrics.jsonl ──────────▶ metrics         embeddings.parquet ─▶ map
    model/ (or tokenizer/) ─▶ tokenizer       schema_evidence.json ▶ columns
                                              explanation.json ───▶ explanation

Only ``run.json`` is required: a run that was just started gives a short page. A part that is there
but damaged is an error, never silently left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from domainformer.data.store import TokenStore
from domainformer.errors import ArtifactError, FingerprintError
from domainformer.evaluation import EVALUATION_FILE
from domainformer.inference import is_bundle
from domainformer.reports.embedding_map import EmbeddingMap, map_embeddings
from domainformer.reports.evidence import ColumnRow, columns_of, notes_of
from domainformer.reports.example import ExampleEvent, example_event
from domainformer.reports.labels import labels_of
from domainformer.reports.tokens import SlotStatistics, StoreCounts, count_store, slot_statistics
from domainformer.run import CONFIG_FILE, RunRecord, read_run
from domainformer.schema import InferredSchema
from domainformer.tokenizers import DomainTokenizer
from domainformer.training.progress import METRICS_FILE, read_metrics

STORE, MODEL, TOKENIZER = "store", "model", "tokenizer"
EVIDENCE_FILE, EMBEDDINGS_FILE = "schema_evidence.json", "embeddings.parquet"
EXPLANATION_FILE = "explanation.json"


@dataclass(frozen=True)
class Collected:
    """A run, ready to be told.

    Args:
        folder: The run folder.
        record: Its identity.
        config_text: The resolved configuration as YAML.
        tokenizer: The fitted tokenizer; None before there is one.
        columns: The columns of the table and what became of them.
        notes: Remarks of reading and of inferring.
        counts: Counts over the token store; None without one.
        slots: Statistics of each slot of the event.
        example: Three training events of one entity as tokens.
        metrics: Rows of ``metrics.jsonl``.
        evaluation: ``evaluation.json``; None without one.
        map: Embeddings in a plane; None without any.
        explanation: ``explanation.json``; None without one.
    """

    folder: Path
    record: RunRecord
    config_text: str
    tokenizer: DomainTokenizer | None
    columns: list[ColumnRow]
    notes: list[str]
    counts: StoreCounts | None
    slots: list[SlotStatistics]
    example: list[ExampleEvent]
    metrics: list[dict[str, float]]
    evaluation: dict[str, Any] | None
    map: EmbeddingMap | None
    explanation: dict[str, Any] | None = None

    @property
    def probe(self) -> dict[str, Any] | None:
        """The probe's part of the evaluation."""
        return None if self.evaluation is None else self.evaluation.get("probe")

    @property
    def time_kind(self) -> str:
        """``date``, ``datetime`` or ``integer``: how the times of the store are to be read."""
        split = self.record.split or {}
        if isinstance(split.get("test_from"), int) or self._elapsed_kind == "integer":
            return "integer"
        return "date" if self.counts is not None and self.counts.whole_days else "datetime"

    @property
    def _elapsed_kind(self) -> str | None:
        fields = () if self.tokenizer is None else self.tokenizer.fields
        kinds = [getattr(field, "time_kind", None) for field in fields]
        return next((kind for kind in kinds if kind is not None), None)


def collect(
    run_dir: str | Path,
    *,
    inferred: InferredSchema | None = None,
    labels: pl.DataFrame | None = None,
) -> Collected:
    """Read a run folder.

    Args:
        run_dir: The folder.
        inferred: The schema's evidence, where it is at hand; else ``schema_evidence.json``.
        labels: Entity column and label column, to colour the map; else the run's own table.

    Raises:
        ArtifactError: The folder is no run, or a part of it is damaged.
        FingerprintError: Store and tokenizer were not made for each other.
    """
    folder = Path(run_dir)
    record = read_run(folder)
    tokenizer = _tokenizer(folder)
    store = TokenStore.open(folder / STORE) if (folder / STORE).is_dir() else None
    if store is not None and tokenizer is not None:
        _check_same(folder, store, tokenizer)
    counts = None if store is None else count_store(store)
    evaluation = read_part(folder / EVALUATION_FILE)
    evidence = inferred if inferred is not None else read_part(folder / EVIDENCE_FILE)
    metrics = folder / METRICS_FILE
    store_notes = [] if store is None else store.meta.get("notes", [])
    return Collected(
        folder=folder,
        record=record,
        config_text=config_text(folder),
        tokenizer=tokenizer,
        columns=[] if tokenizer is None else columns_of(evidence, tokenizer.schema),
        notes=[*map(str, store_notes), *notes_of(evidence)],
        counts=counts,
        slots=slot_statistics(tokenizer, counts) if tokenizer and counts else [],
        example=example_event(tokenizer, store) if tokenizer and store else [],
        metrics=read_metrics(metrics) if metrics.is_file() else [],
        evaluation=evaluation,
        map=_map(folder, record, evaluation, labels),
        explanation=read_part(folder / EXPLANATION_FILE),
    )


def _tokenizer(folder: Path) -> DomainTokenizer | None:
    """The tokenizer of the bundle, or the one that was fitted before training."""
    if is_bundle(folder / MODEL):
        return DomainTokenizer.from_pretrained(folder / MODEL)
    if (folder / TOKENIZER).is_dir():
        return DomainTokenizer.from_pretrained(folder / TOKENIZER)
    return None


def _check_same(folder: Path, store: TokenStore, tokenizer: DomainTokenizer) -> None:
    if store.tokenizer_fingerprint != tokenizer.fingerprint:
        raise FingerprintError(
            "the run's token store was made by another tokenizer than its model's",
            where=str(folder),
            why=f"store: {store.tokenizer_fingerprint}, model: {tokenizer.fingerprint}",
            next_step="pretrain again; parts of different runs cannot be mixed",
        )


def _map(
    folder: Path,
    record: RunRecord,
    evaluation: Mapping[str, Any] | None,
    labels: pl.DataFrame | None,
) -> EmbeddingMap | None:
    path = folder / EMBEDDINGS_FILE
    if not path.is_file():
        return None
    probe = (evaluation or {}).get("probe")
    if labels is None and probe is not None:
        labels = labels_of(record, probe["label"])
    return map_embeddings(path, labels)


def config_text(folder: Path) -> str:
    """The resolved configuration of a run as YAML; empty where there is none."""
    path = folder / CONFIG_FILE
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def read_part(path: Path) -> dict[str, Any] | None:
    """A JSON file of a run; None where there is none.

    Raises:
        ArtifactError: It is damaged.
    """
    if not path.is_file():
        return None
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read",
            why=str(error),
            next_step="write it again, or delete it: the report does without",
        ) from error
    return value
