"""The main job in one call: from a table of events to a model, its proof and a report.

::

    table ─▶ split ─▶ schema ─▶ tokenizer ─▶ store ─▶ pretrain ─▶ evaluate, probe, explain ─▶ report
      │               └───── of training events only ─────┘        on held-out events
      └─ simulated where none is given

Everything lands in one run folder. The steps are the public functions of the other rooms; this
one chooses sensible settings and calls them in order.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time as clock
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from domainformer.artifacts import write_json
from domainformer.config import apply_overrides, build
from domainformer.data import TRAIN, EventTable, write_simulated
from domainformer.data.meds import is_meds
from domainformer.data.readers import scan
from domainformer.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from domainformer.evaluation import Evaluation
    from domainformer.schema import DomainSchema
    from domainformer.training import SplitConfig

Say = Callable[[str], None]
SplitKind = Literal["auto", "time", "entity"]

# A simulated table is small and meant for a first look; a real one deserves more.
DEMO_ENTITIES, DEMO_TOKENS, REAL_TOKENS = 800, 600_000, 4_000_000
# Every id costs a row of the output layer: few byte-pairs suit a small model and short texts.
TOKENIZER = {"bpe_vocab_size": 1024}
# Copying lets a small model repeat what a history has shown without learning to first.
MODEL: dict[str, Any] = {"preset": "tiny", "overrides": {"copy_heads": 2}}
# Units are reorganised and shops renamed: what a history says shall count for more than memory.
SUBSTITUTE_VALUES = 0.1
EVIDENCE_FILE = "schema_evidence.json"
# Fewer distinct times than this (six monthly statements, say) leave no later period worth a test.
MIN_DISTINCT_TIMES = 20


@dataclass(frozen=True)
class QuickstartResult:
    """What the main job made.

    Args:
        run_dir: The run folder, with everything below in it.
        model_dir: Model, tokenizer and schema in one folder.
        source: The table of events (the simulated one where none was given).
        report: The report page.
        evaluation: Next-event figures per field against the baselines, and the probe.
        seconds: Seconds by step.
    """

    run_dir: Path
    model_dir: Path
    source: Path
    report: Path
    evaluation: Evaluation
    seconds: dict[str, float]


def quickstart(
    data: str | Path | None = None,
    *,
    entity: str | None = None,
    time: str | None = None,
    label: str | None = None,
    label_table: str | Path | None = None,
    domain: str = "finance",
    split: SplitKind = "auto",
    validation_from: str | int | None = None,
    test_from: str | int | None = None,
    output: str | Path = "runs/quickstart",
    overwrite: bool = False,
    seed: int = 0,
    overrides: Sequence[str] = (),
    say: Say = print,
) -> QuickstartResult:
    """Run the main job on a table, or on a simulated one where none is given.

    Args:
        data: Table of events: Parquet, CSV, Arrow, glob, hive or MEDS folder. None: simulated.
        entity: Column that says whose event a row is; None: guessed where names make it plain.
        time: Column of the event's time; None: guessed likewise.
        label: Column with the target of the probe, constant for each entity.
        label_table: Table that holds the label, one row per entity; None: the event table.
        domain: Which table to simulate where ``data`` is None.
        split: Hold out later ``time`` or other entities; ``auto`` takes time where the table covers
            enough distinct times.
        validation_from: First time of the validation period (for the split by time).
        test_from: First time of the test period.
        output: The run folder.
        overwrite: Replace an existing run folder.
        seed: Of simulation, split, training and probe.
        overrides: Dotted overrides of :class:`~domainformer.training.RunConfig`.
        say: Receives one line of progress at a time.

    Raises:
        ConfigError: The run folder exists, or an override is wrong.
        DataError: The table, or the label, cannot be used.
        MissingExtraError: An extra that a later step needs is not installed.
    """
    from domainformer.evaluation import evaluate, read_labels
    from domainformer.inference import embed_to_parquet, load_bundle
    from domainformer.reports import write_report
    from domainformer.reports.explaining import explain_run
    from domainformer.schema import infer_schema
    from domainformer.training import RunConfig, pretrain
    from domainformer.training.preparation import make_split

    run_dir = Path(output)
    _check_output(run_dir, overwrite)
    _check_extras(probe=data is None or label is not None)
    steps = _Steps(say)
    with steps("read the events" if data else f"simulate {domain} events"):
        source, label = _source(data, run_dir, domain, label, seed)
        table = read_events(source, entity=entity, time=time)
        for note in (*table.notes, f"{table.n_events:,} events of {table.n_entities:,} entities"):
            say(f"   {note}")
        # A label that cannot be used shall show before the training, not after it.
        labels = read_labels(label_table or table, table.entity, label) if label else None
    with steps("split, and infer a schema from the training events"):
        chosen = split_config(table, split, validation_from, test_from, seed)
        roles = make_split(table, chosen)
        own_label = label if label in table.frame.columns else None
        inferred = infer_schema(roles.events(table, TRAIN), label=own_label)
        say(f"   split by {chosen.kind}; fields: {', '.join(_names(inferred.schema))}")
        schema_path = _beside(run_dir, "schema.yaml")
        inferred.schema.to_yaml(schema_path)
    config = build(
        RunConfig,
        apply_overrides(
            {
                "data": {"path": str(source), "entity": table.entity, "time": table.time}
                | ({"label": own_label} if own_label else {}),
                "schema": str(schema_path),
                "split": chosen.model_dump(),
                "tokenizer": TOKENIZER,
                "model": MODEL,
                "training": _budget(data, overrides) | {"seed": seed},
                "output": {"root": str(run_dir.parent), "name": run_dir.name},
            },
            overrides,
        ),
    )
    with steps("fit the tokenizer, tokenize and pretrain"):
        if run_dir.exists():
            shutil.rmtree(run_dir)
        trained = pretrain(config, table=table, schema=inferred.schema)
        write_json(trained.run_dir / EVIDENCE_FILE, inferred.to_dict())
    with steps("embed every entity"):
        path = trained.run_dir / "embeddings.parquet"
        embed_to_parquet(load_bundle(trained.model_dir), table, path)
    with steps("evaluate on held-out events" + (", and probe" if label else "")):
        evaluation = evaluate(
            trained.run_dir,
            table=table,
            split=roles,
            label=label,
            labels=labels,
            embeddings=pl.read_parquet(path),
            seed=seed,
        )
    with steps("explain some scores"):
        explain_run(
            trained.run_dir,
            load_bundle(trained.model_dir),
            table,
            labels=labels,
            embeddings=pl.read_parquet(path),
            seed=seed,
        )
    with steps("write the report"):
        colours = read_labels(label_table, table.entity, label) if label and label_table else None
        report = write_report(trained.run_dir, labels=colours)
    return QuickstartResult(
        trained.run_dir, trained.model_dir, Path(source), report, evaluation, steps.seconds
    )


def read_events(
    source: str | Path,
    *,
    entity: str | None = None,
    time: str | None = None,
    model: str | Path | None = None,
) -> EventTable:
    """Read a table of events whose entity and time columns need not be named.

    Args:
        source: Table of events.
        entity: Column that says whose event a row is. None: as the model's own table called it,
            where this table has it; else guessed where its name makes it plain.
        time: Column of the event's time; None: likewise.
        model: Folder of the model that the events are for.

    Raises:
        DataError: The table cannot be used.
        SchemaError: A column that was not named cannot be guessed.
    """
    from domainformer.schema.roles import guess_entity, guess_time

    if is_meds(source) and entity is None:
        return EventTable.read(source)
    if entity is None or time is None:
        table = scan(source)
        columns, own = table.schema(), columns_of(model)
        if own.get("entity") in columns and entity in (None, own["entity"]):
            entity = own["entity"]
            if own["time"] is None or own["time"] in columns:
                return EventTable.read(source, entity=entity, time=time or own["time"])
        frame, _ = table.collect()
        entity = entity or guess_entity(frame)
        time = time or guess_time(frame, entity)
    return EventTable.read(source, entity=entity, time=time)


def columns_of(model: str | Path | None) -> dict[str, Any]:
    """The ``data`` section of a model's making; empty where there is none to be read."""
    if model is None:
        return {}
    from domainformer.inference.belonging import BUNDLE_FILE

    try:
        facts = json.loads((Path(model) / BUNDLE_FILE).read_text(encoding="utf-8"))
        return dict({"entity": None, "time": None} | facts["record"]["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # loading the model tells what is wrong with it


class _Steps:
    """Numbers, announces and times the steps."""

    def __init__(self, say: Say) -> None:
        self.say, self.seconds = say, {}
        self._name, self._start = "", 0.0

    seconds: dict[str, float]

    def __call__(self, name: str) -> _Steps:
        self._name = name
        return self

    def __enter__(self) -> None:
        self.say(f"{len(self.seconds) + 1}. {self._name}")
        self._start = clock.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._name] = round(clock.perf_counter() - self._start, 2)


def _check_output(run_dir: Path, overwrite: bool) -> None:
    """Refuse to replace what was not asked for, or is no run."""
    if not run_dir.exists():
        return
    if not overwrite:
        raise ConfigError(
            f"{run_dir} exists already",
            next_step="choose another --output, or pass --overwrite to replace it",
        )
    if not (run_dir / "run.json").is_file():
        raise ConfigError(
            f"{run_dir} is not a run folder, so it will not be replaced",
            why="it has no run.json",
            next_step="choose another --output",
        )


def _check_extras(*, probe: bool) -> None:
    """What the last steps need must be there before the first one takes its minutes."""
    needed = [("altair", "report", "the report"), ("vl_convert", "report", "the report")]
    if probe:
        needed.append(("lightgbm", "gbdt", "the probe"))
    for package, extra, purpose in needed:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, extra=extra, purpose=purpose)


def _source(
    data: str | Path | None, run_dir: Path, domain: str, label: str | None, seed: int
) -> tuple[str | Path, str | None]:
    """The table to read and its label; a simulated one is written beside the run."""
    if data is not None:
        return data, label
    path = _beside(run_dir, "events.parquet")
    write_simulated(domain, path, entities=DEMO_ENTITIES, events_per_entity=60, seed=seed)
    return path, label or "label"


def split_config(
    table: EventTable,
    kind: SplitKind,
    validation_from: str | int | None,
    test_from: str | int | None,
    seed: int,
) -> SplitConfig:
    """How a table is split; ``auto`` takes time where it covers enough distinct times."""
    from domainformer.training import SplitConfig

    if kind == "auto":
        known = table.time_values[table.time_values != np.iinfo(np.int64).min]
        dated = table.time_kind in ("date", "datetime")
        enough = len(np.unique(known)) >= MIN_DISTINCT_TIMES
        kind = "time" if test_from is not None or (dated and enough) else "entity"
    cuts = {"validation_from": validation_from, "test_from": test_from}
    given = {name: value for name, value in cuts.items() if value is not None}
    return build(SplitConfig, {"kind": kind, "seed": seed, **given})


def training_settings() -> dict[str, Any]:
    """Rows, batches and rates of a first training, without its length."""
    settings = {"context": 512, "batch_tokens": 4096, "learning_rate": 2e-3, "eval_rows": 64}
    return settings | {"substitute_values": SUBSTITUTE_VALUES}


def _budget(data: str | Path | None, overrides: Sequence[str]) -> dict[str, Any]:
    """How long to train, unless an override says so."""
    lengths = ("training.epochs", "training.max_steps", "training.max_tokens")
    chosen = any(override.startswith(lengths) for override in overrides)
    length = {} if chosen else {"max_tokens": DEMO_TOKENS if data is None else REAL_TOKENS}
    return training_settings() | length


def _beside(run_dir: Path, name: str) -> Path:
    """A file that belongs to a run but must exist before the run's folder does."""
    return run_dir.with_name(f"{run_dir.name}.{name}")


def _names(schema: DomainSchema) -> list[str]:
    return [spec.name for spec in schema.fields]
