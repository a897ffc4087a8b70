"""The folder of an unfinished job: what is done stays done when the job is stopped.

::

    store.partial/
      group.json   encode.json     what the job is: inputs, tokenizer, options
      runs/        events grouped by the hash of their entity
      shards/      finished shards, each renamed into place
      receipts/    encode-00007.json: shard 7 is finished, and holds so many events

A unit writes its files first and its receipt last, both by rename, so that a receipt vouches for
what it names. A job that finds a folder of another job refuses it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from domainformer.artifacts import write_json
from domainformer.errors import StoreError

Receipt = dict[str, Any]
_NAMES = {
    "files": "the input files (or when they were written)",
    "tokenizer": "the tokenizer",
    "schema": "the schema",
    "entity": "the entity column",
    "time": "the time column",
    "columns": "the columns",
    "memory": "memory=",
    "version": "the version of domainformer's working files",
    "cuts": "the cuts of the split",
    "before": "before=",
    "units": "how the work is cut into units",
}


# Where a stage starts over, what was cut or counted for its earlier attempt means nothing.
_BUILT_ON = {"fit": ("fit-units", "recount"), "encode": ("encode-units",)}


class WorkFolder:
    """Finished units of work on disk.

    Args:
        path: The folder; made where it does not exist.
        resume: Go on with what is there; otherwise it is removed, stage by stage.

    Example:
        >>> import tempfile
        >>> work = WorkFolder(Path(tempfile.mkdtemp()) / "job", resume=True)
        >>> work.begin("encode", {"files": "f00d"})
        >>> work.finish("encode", 3, {"events": 10})
        >>> work.finished("encode")
        {3: {'events': 10}}
        >>> work.begin("encode", {"files": "beef"})
        Traceback (most recent call last):
        ...
        domainformer.errors.StoreError: there is unfinished work of another job in ...
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        self._resume = resume
        self._begun: set[str] = set()
        for folder in (self.runs, self.shards, self.receipts):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def runs(self) -> Path:
        """Where grouped events are."""
        return self.path / "runs"

    @property
    def shards(self) -> Path:
        """Where finished shards and statistics are."""
        return self.path / "shards"

    @property
    def receipts(self) -> Path:
        """Where receipts are."""
        return self.path / "receipts"

    def begin(self, stage: str, identity: Mapping[str, Any]) -> None:
        """Say what a stage works on; receipts of earlier attempts at the same count.

        Raises:
            StoreError: The folder holds unfinished work on something else.
        """
        identity = json.loads(json.dumps(dict(identity)))
        path = self.path / f"{stage}.json"
        if path.exists() and stage not in self._begun and not self._resume:
            self.forget(stage)
        if path.exists():
            known = json.loads(path.read_text(encoding="utf-8"))
            changed = [key for key in identity if known.get(key) != identity[key]]
            if changed:
                raise self._other_job(changed)
        else:
            self.forget(stage)  # receipts without an identity belong to nothing
            write_json(path, identity)
        self._begun.add(stage)

    def finish(self, stage: str, index: int, receipt: Receipt) -> None:
        """Record that a unit is finished; its files are in place by now."""
        write_json(self.receipts / f"{stage}-{index:06d}.json", receipt)

    def finished(
        self, stage: str, intact: Callable[[Receipt], bool] = lambda receipt: True
    ) -> dict[int, Receipt]:
        """Receipts by unit, without those whose files are gone or have another size."""
        found = {}
        for path in sorted(self.receipts.glob(f"{stage}-*.json")):
            receipt = json.loads(path.read_text(encoding="utf-8"))
            if intact(receipt):
                found[int(path.stem.rpartition("-")[2])] = receipt
        return found

    def forget(self, stage: str) -> None:
        """Drop what is known of a stage, and of those that build on it; files are written over."""
        for later in _BUILT_ON.get(stage, ()):
            self.forget(later)
        (self.path / f"{stage}.json").unlink(missing_ok=True)
        for path in self.receipts.glob(f"{stage}-*.json"):
            path.unlink()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _other_job(self, changed: list[str]) -> StoreError:
        return StoreError(
            f"there is unfinished work of another job in {self.path}",
            why="what changed since: " + ", ".join(_NAMES.get(key, key) for key in changed),
            next_step="pass resume=False to start over, or choose another output",
        )
