"""One variant with one seed: trained, scored, and remembered in one folder.

::

    runs/context-64/seed-0/      a run as pretrain leaves it: run.json, config.yaml, model/ …
      heldout.npz                what it said about each held-out event
      trial.json                 the figures; written last, so that its presence means "finished"
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.artifacts import write_json
from domainformer.config import build
from domainformer.data import EventTable
from domainformer.data.store import TokenStore
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import ArtifactError
from domainformer.evaluation.ablations.axes import Base, Variant
from domainformer.evaluation.ablations.downstream import Downstream
from domainformer.evaluation.ablations.plan import config_of
from domainformer.evaluation.ablations.schemas import longest_event
from domainformer.evaluation.ablations.scores import HeldOut, Limits, score_variant
from domainformer.inference import Bundle, load_bundle
from domainformer.training.config import RunConfig
from domainformer.training.engine import pretrain
from domainformer.training.objectives import NEXT_TOKEN
from domainformer.training.preparation import STORE_FOLDER
from domainformer.training.running import CHECKPOINTS, MODEL, RunResult

TRIAL_FILE = "trial.json"
HELD_OUT_FILE = "heldout.npz"
RUNS = "runs"


@dataclass(frozen=True)
class Judged:
    """What all variants are judged on.

    Args:
        table: All events.
        chosen: Rows of the table whose loss is told.
        limits: Of the numbers' densities.
        samples: Completions per event.
        downstream: How embeddings are judged; None: they are not.
        keep_stores: Keep tokens and checkpoints of finished runs.
    """

    table: EventTable
    chosen: npt.NDArray[np.int64]
    limits: Limits
    samples: int
    downstream: Downstream | None
    keep_stores: bool


@dataclass(frozen=True)
class Trial:
    """One variant with one seed, finished.

    Args:
        folder: Its run folder.
        seed: Of its training.
        facts: Its figures: ``tokens_per_event``, ``seconds``, ``parameters``, ``tokens``,
            ``eval_loss`` (nats per token, not comparable between tokenizations), ``downstream``.
        held_out: What it said about held-out events; None where it was not trained to say it.
    """

    folder: Path
    seed: int
    facts: dict[str, Any]
    held_out: HeldOut | None


def trial_folder(folder: Path, variant: Variant, seed: int) -> Path:
    """Where a variant with a seed is kept."""
    return folder / RUNS / variant.folder / f"seed-{seed}"


def finished(folder: Path) -> Trial | None:
    """A trial that was finished earlier, or None.

    Raises:
        ArtifactError: Its files are damaged.
    """
    path = folder / TRIAL_FILE
    if not path.is_file():
        return None
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        slots, seed = facts["slots"], facts["seed"]
    except (OSError, ValueError, KeyError) as error:
        raise ArtifactError(
            f"{path} cannot be read",
            why=str(error),
            next_step=f"delete {folder} and run the ablation again",
        ) from error
    held_out = None if slots is None else HeldOut.load(folder / HELD_OUT_FILE, slots)
    return Trial(folder, seed, facts, held_out)


def run_trial(folder: Path, base: Base, variant: Variant, seed: int, judged: Judged) -> Trial:
    """Train a variant (or go on where its training stopped), judge it, and write its figures.

    Args:
        folder: Of the trial.
        base: What is varied.
        variant: The change.
        seed: Of the training.
        judged: What it is judged on.
    """
    rows = shown_rows(judged.table, base, variant)
    table = judged.table if len(rows) == judged.table.n_events else _hidden(judged.table, rows)
    config = _config(base, variant, seed, folder)
    started = time.perf_counter()
    result = pretrain(config, table=table, schema=variant.schema or base.schema)
    store = TokenStore.open(folder / STORE_FOLDER)
    bundle = load_bundle(result.model_dir)
    held_out = None
    events = store.events()
    if NEXT_TOKEN in config.training.objectives.used and _tells_events(bundle):
        held_out = score_variant(
            bundle,
            events,
            rows,
            judged.chosen,
            judged.limits,
            samples=judged.samples,
            whole=not variant.hidden,
        )
        held_out.save(folder / HELD_OUT_FILE)
    score = None
    if judged.downstream is not None:
        show = _Show(base, variant)
        score = judged.downstream.score(bundle, show, seed)
    facts = _facts(variant, seed, result, bundle.encode(events))
    facts["slots"] = None if held_out is None else [asdict(slot) for slot in held_out.slots]
    facts["downstream"] = None if score is None else asdict(score)
    facts["seconds_in_all"] = round(time.perf_counter() - started, 2)
    write_json(folder / TRIAL_FILE, facts)
    if not judged.keep_stores:
        for name in (STORE_FOLDER, CHECKPOINTS):
            shutil.rmtree(folder / name, ignore_errors=True)
    return Trial(folder, seed, facts, held_out)


def _tells_events(bundle: Bundle) -> bool:
    """Whether the model can be asked for a single event: some merges blur where one ends."""
    if bundle.merges is None:
        return True
    return not bundle.merges.crosses_events and bundle.tokenizer.forms.plain


def shown_rows(table: EventTable, base: Base, variant: Variant) -> npt.NDArray[np.int64]:
    """Rows of the table that a variant is shown, ascending."""
    if not variant.hidden:
        return np.arange(table.n_events)
    sources = table.frame[base.schema.source_column].cast(pl.String)
    return np.flatnonzero(~sources.is_in(list(variant.hidden)).fill_null(value=False).to_numpy())


def _hidden(table: EventTable, rows: npt.NDArray[np.int64]) -> EventTable:
    mask = np.zeros(table.n_events, np.bool_)
    mask[rows] = True
    return table.filter(mask)


@dataclass(frozen=True)
class _Show:
    """Hides from other tables what the variant does not show."""

    base: Base
    variant: Variant

    def __call__(self, table: EventTable) -> EventTable:
        rows = shown_rows(table, self.base, self.variant)
        return table if len(rows) == table.n_events else _hidden(table, rows)


def _config(base: Base, variant: Variant, seed: int, folder: Path) -> RunConfig:
    config = config_of(base.config, variant)
    values = config.model_dump()
    values["training"] |= {"seed": seed, "resume": True, "quiet": True}
    values["output"] = {"root": str(folder.parent), "name": folder.name}
    overrides = values["model"]["overrides"]
    if overrides.get("position_encoding") == "learned":
        # Completed with another text, an event may end behind the context that was trained.
        room = config.training.context + longest_event(variant.schema or base.schema)
        overrides.setdefault("max_position_embeddings", room)
    return build(RunConfig, values)


def _facts(
    variant: Variant, seed: int, result: RunResult, events: TokenizedEvents
) -> dict[str, Any]:
    metrics: Mapping[str, Any] = result.metrics
    return {
        "axis": variant.axis,
        "variant": variant.name,
        "seed": seed,
        "run": result.record.id,
        "model": MODEL,
        "parameters": result.record.resolved["parameters"],
        "tokens_per_event": round(events.n_tokens / max(1, events.n_events), 3),
        "seconds": metrics["seconds"],
        "steps": metrics["steps"],
        "tokens": metrics["tokens"],
        "eval_loss": metrics["eval_loss"],
    }
