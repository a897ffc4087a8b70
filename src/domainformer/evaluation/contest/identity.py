"""Which contest this is: the folder's task, and the record that its results carry."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from domainformer.artifacts import write_json
from domainformer.errors import ArtifactError, FingerprintError
from domainformer.evaluation.contest.config import ContestConfig
from domainformer.evaluation.tasks import FOLD, TRAIN_ONLY, Model, Task
from domainformer.run import code_version, environment
from domainformer.version import __version__

CONTEST_FILE = "contest.json"


def check_folder(folder: Path, task_fingerprint: str, task: Task) -> None:
    """Refuse a folder that is no contest of this task; an empty or absent one is fine.

    Raises:
        FingerprintError: It is a contest of another task.
        ArtifactError: It holds something else.
    """
    path = folder / CONTEST_FILE
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ArtifactError(
                f"{folder} is no contest folder",
                why=f"it holds other things and no {CONTEST_FILE}",
                next_step="choose another output",
            )
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read", why=str(error)) from error
    if known.get("task") != task_fingerprint:
        raise FingerprintError(
            f"{folder} is a contest of another task",
            why=f"it was begun with {known.get('name')!r} ({known.get('task')}), "
            f"this is {task.name!r} ({task_fingerprint}): other events, labels or folds",
            next_step="choose another output",
        )


def open_folder(folder: Path, task_fingerprint: str, task: Task) -> None:
    """Make the folder a contest of this task, before anything else is written into it."""
    facts = {"task": task_fingerprint, "name": task.name, "examples": task.examples.height}
    write_json(folder / CONTEST_FILE, facts)


def with_files(settings: Any) -> Any:
    """Settings with the text of the schema files that they name: what decides is what is in it."""
    if not isinstance(settings, Mapping):
        return settings
    read = {key: with_files(value) for key, value in settings.items()}
    named = read.get("schema")
    if isinstance(named, str) and Path(named).is_file():
        read["schema"] = Path(named).read_text(encoding="utf-8")
    return read


def versions() -> dict[str, Any]:
    """What made a prediction: the library, its source's revision, the packages."""
    return {
        "domainformer": __version__,
        "code": code_version(),
        "packages": environment()["packages"],
    }


def record_of(
    config: ContestConfig,
    task: Task,
    task_fingerprint: str,
    models: Mapping[str, tuple[str, Model, str]],
    facts: Mapping[str, Sequence[dict[str, Any]]],
    started: datetime,
) -> dict[str, Any]:
    """The identity of a contest, as its results file tells it.

    Args:
        config: The configuration.
        task: The task.
        task_fingerprint: Its fingerprint.
        models: Name → contestant, model, fingerprint of its settings.
        facts: Of every cell: settings, versions, what the model told.
        started: When this start of it began.
    """
    tested = task.examples.filter(pl.col(FOLD) != TRAIN_ONLY)
    revisions = {str(one["versions"].get("code")) for rows in facts.values() for one in rows}
    return {
        "config": config.model_dump(mode="json"),
        "config_hash": config.hash(),
        "task": {
            "name": task.name,
            "fingerprint": task_fingerprint,
            "kind": task.kind,
            "split": task.split,
            "entities": task.examples["entity"].n_unique(),
            "events": task.table.n_events,
            "positive": float(task.labels(tested).mean()) if task.kind == "binary" else None,
            "positive_class": str(task.classes[1])
            if task.kind == "binary" and task.classes
            else None,
            "record": task.record,
        },
        "contestants": {
            name: {"contestant": kind, "summary": (model.__doc__ or "").strip().split("\n")[0]}
            for name, (kind, model, _) in models.items()
        },
        "models": {name: list(rows) for name, rows in facts.items()},
        "revisions": sorted(revisions),
        "environment": environment(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }
