"""Predictions on disk: one folder per model, fold and seed, whole or not there.

::

    contest/
      contest.json                         the task's fingerprint, written first
      predictions/joint/fold-2-seed-0/
        test.parquet  valid.parquet        example, prediction
        manifest.json                      checksums, settings, seconds, versions

A folder is written beside its place and renamed, so an interrupted contest has whole cells only; it
is read back through its checksums, so a prediction that was altered is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.artifacts import read_manifest, staged_directory, verify_directory
from domainformer.errors import ArtifactError, FingerprintError
from domainformer.evaluation.tasks import EXAMPLE

PREDICTIONS = "predictions"
PREDICTION = "prediction"


@dataclass(frozen=True, eq=False)
class Cell:
    """What a model said in one fold with one seed.

    Args:
        test: Predictions of the test examples.
        valid: Of the validation examples, by a model that has not learned their labels; None where
            nothing asked for it.
        seconds: Of fitting and predicting.
        facts: Settings' fingerprint, versions, and what the model tells of itself.
    """

    test: npt.NDArray[Any]
    valid: npt.NDArray[Any] | None
    seconds: float
    facts: dict[str, Any]


@dataclass(frozen=True)
class Shelf:
    """The predictions of one contest folder.

    Args:
        folder: The contest's folder.
        task: The task's fingerprint.
    """

    folder: Path
    task: str

    def place(self, model: str, fold: int, seed: int) -> Path:
        """Where a cell stands."""
        return self.folder / PREDICTIONS / model / f"fold-{fold}-seed-{seed}"

    def write(
        self, model: str, fold: int, seed: int, cell: Cell, rows: Mapping[str, pl.DataFrame]
    ) -> None:
        """Write a cell, whole or not at all.

        Args:
            model: Name of the model.
            fold: Fold.
            seed: Seed.
            cell: The predictions.
            rows: The examples of ``test`` and ``valid``.
        """
        meta = {"task": self.task, "seconds": cell.seconds, **cell.facts}
        place = self.place(model, fold, seed)
        with staged_directory(place, overwrite=True, meta=meta) as staging:
            for part, values in (("test", cell.test), ("valid", cell.valid)):
                if values is not None:
                    frame = rows[part].select(EXAMPLE).with_columns(_column(values))
                    frame.write_parquet(staging / f"{part}.parquet")

    def read(
        self, model: str, fold: int, seed: int, settings: str, rows: Mapping[str, pl.DataFrame]
    ) -> Cell | None:
        """A cell that was finished before, or None.

        Args:
            model: Name of the model.
            fold: Fold.
            seed: Seed.
            settings: Fingerprint of the model's settings, which must be those it ran with.
            rows: The examples of ``test`` and ``valid``.

        Raises:
            ArtifactError: The predictions were altered, or are of other examples.
            FingerprintError: They were made for another task or with other settings.
        """
        place = self.place(model, fold, seed)
        if not place.is_dir():
            return None
        verify_directory(place)
        facts = dict(read_manifest(place)["meta"])
        for key, wanted, what in (("task", self.task, "task"), ("settings", settings, "settings")):
            if facts.get(key) != wanted:
                raise FingerprintError(
                    f"the predictions of {model!r} were made for another {what}"
                    if key == "task"
                    else f"the predictions of {model!r} were made with other {what}",
                    where=str(place),
                    next_step="give the model another name, choose another output, or delete the "
                    "folder of its predictions",
                )
        valid = place / "valid.parquet"
        return Cell(
            _values(place / "test.parquet", rows["test"]),
            _values(valid, rows["valid"]) if valid.is_file() else None,
            float(facts.pop("seconds")),
            facts,
        )


def _column(values: npt.NDArray[Any]) -> pl.Series:
    if values.ndim == 1:
        return pl.Series(PREDICTION, values)
    inner = pl.Int64 if np.issubdtype(values.dtype, np.integer) else pl.Float64
    return pl.Series(PREDICTION, values, dtype=pl.Array(inner, values.shape[1]))


def _values(path: Path, rows: pl.DataFrame) -> npt.NDArray[Any]:
    frame = pl.read_parquet(path)
    if not frame[EXAMPLE].equals(rows[EXAMPLE]):
        raise ArtifactError(
            "the predictions are of other examples",
            where=str(path),
            next_step="delete the folder of these predictions; they are made anew",
        )
    return frame[PREDICTION].to_numpy()
