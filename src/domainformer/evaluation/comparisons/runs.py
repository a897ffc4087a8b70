"""A run as it is compared: what decided its result, by name, and what came out.

::

    run folder ─▶ RunEntry ─┬─▶ view      {"training.learning_rate": 0.001, "code": "9f…", …}
                            ├─▶ seed      what repetitions differ in
                            ├─▶ results   figures at the end, from run.json
                            └─▶ metrics   figures on the way, from metrics.jsonl
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainformer.errors import ComparisonError
from domainformer.run import (
    SEED_KEYS,
    RunRecord,
    flatten,
    identity_of,
    read_run,
    rules_key,
    rules_of,
    settings_of,
)
from domainformer.training.progress import METRICS_FILE, read_metrics

FINISHED = "finished"
# Parts of an identity that can be named beside settings.
PARTS = ("rules", "code", "data", "tokenizer", "environment", "plan", "kind")
# What is known by its content is called by its part.
_CALLED = {"data.path": "data", "schema": "tokenizer", "tokenizer.path": "tokenizer"}
# What the configuration leaves open and the machine decides; the rest of a plan is configuration.
_DECIDED = ("rows", "accumulation", "steps", "bf16")
_MACHINE = ("python", "machine", "packages")


@dataclass(frozen=True)
class RunEntry:
    """One run of a comparison.

    Args:
        folder: The run folder.
        record: Its ``run.json``.
        seed: Of its training; None where its configuration has none.
        view: All that can change its result but the seed: settings by dotted key, and the parts
            ``rules``, ``code``, ``data``, ``tokenizer``, ``kind``, ``environment.…``, ``plan.…``.
        results: Its figures that are finite numbers.
        metrics: The rows of its ``metrics.jsonl``.
    """

    folder: Path
    record: RunRecord
    seed: int | None
    view: dict[str, Any]
    results: dict[str, float]
    metrics: list[dict[str, float]] = field(repr=False)

    @property
    def finished(self) -> bool:
        """Whether it has a result."""
        return self.record.status == FINISHED


def read_entry(folder: str | Path) -> RunEntry:
    """Read what a comparison needs of a run folder, without its model.

    Raises:
        ArtifactError: There is no readable ``run.json``.
    """
    folder = Path(folder)
    record = read_run(folder)
    path = folder / METRICS_FILE
    flat = flatten(record.config)
    return RunEntry(
        folder=folder,
        record=record,
        seed=next((flat[key] for key in sorted(SEED_KEYS) if flat.get(key) is not None), None),
        view=_view(record),
        results=_numbers(record.results or {}),
        metrics=read_metrics(path) if path.is_file() else [],
    )


def read_entries(folders: Iterable[str | Path]) -> list[RunEntry]:
    """Read several runs, each of them once.

    Raises:
        ComparisonError: There are fewer than two, or one is named twice.
    """
    entries: dict[Path, RunEntry] = {}
    for folder in folders:
        place = Path(folder).resolve()
        if place in entries:
            raise ComparisonError(
                f"the run {folder} is named twice",
                why="it would count as two repetitions",
                next_step="name it once",
            )
        entries[place] = read_entry(folder)
    if len(entries) < 2:
        raise ComparisonError(
            "there is nothing to compare",
            why=f"{len(entries)} run was named" if entries else "no run was named",
            next_step="name two runs or more: domainformer compare runs/a runs/b --vary KEY",
        )
    return list(entries.values())


def matches(name: str, key: str) -> bool:
    """Whether a name of the user stands for a key: itself, or the section that it lies in.

    Example:
        >>> matches("training", "training.seed"), matches("training.se", "training.seed")
        (True, False)
    """
    return key == name or key.startswith(f"{name}.")


def called(name: str) -> str:
    """What a comparison calls a key of the configuration.

    Example:
        >>> called("data.path"), called("training.rules"), called("training.context")
        ('data', 'rules', 'training.context')
    """
    return "rules" if rules_key(name) else _CALLED.get(name, name)


def values_at(entries: Sequence[RunEntry], key: str) -> list[Any]:
    """The distinct values of a key, in the order of the runs."""
    found: list[Any] = []
    for entry in entries:
        value = entry.view.get(key)
        if value not in found:
            found.append(value)
    return found


def _view(record: RunRecord) -> dict[str, Any]:
    identity = identity_of(record)
    settings = {k: v for k, v in settings_of(record).items() if k not in SEED_KEYS}
    return settings | {
        "rules": rules_of(record),
        "code": identity.code,
        "data": identity.data,
        "tokenizer": identity.tokenizer,
        "kind": record.kind,
        **_environment(record),
        **_plan(record),
    }


def _environment(record: RunRecord) -> dict[str, Any]:
    """The packages and the kind of machine that a result was computed with."""
    chosen = {key: record.environment.get(key) for key in _MACHINE}
    chosen["device"] = record.resolved.get("device")
    return flatten(chosen, "environment.")


def _plan(record: RunRecord) -> dict[str, Any]:
    """Numbers that were chosen on the machine where the configuration said ``auto``."""
    plan = record.resolved.get("plan")
    if not isinstance(plan, Mapping):
        return {}
    return {f"plan.{key}": plan[key] for key in _DECIDED if key in plan}


def _numbers(results: Mapping[str, Any]) -> dict[str, float]:
    return {
        key: float(value)
        for key, value in results.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
