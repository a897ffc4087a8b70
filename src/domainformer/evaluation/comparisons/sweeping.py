"""``sweep``: a run for each setting and seed, whatever happens in between, and their comparison.

::

    runs/rules/
      sweep.json                    the configuration, and how each run ended
      cells/<settings>/seed-0/      a run folder; <settings> is a hash of all but the seed
      comparison.json               written at the end

Run again, it skips what is finished, continues what was interrupted, and tries again what failed.
Values and seeds may be added; a changed base makes other folders, and is never mixed with these.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from domainformer.artifacts import write_json
from domainformer.errors import ComparisonError, ConfigError, DomainformerError
from domainformer.evaluation.comparisons.comparing import compare
from domainformer.evaluation.comparisons.plan import (
    Cell,
    SweepConfig,
    Train,
    compared,
    kind_of,
    make_cells,
)
from domainformer.evaluation.comparisons.result import RunComparison
from domainformer.evaluation.comparisons.runs import FINISHED
from domainformer.run import RUN_FILE, lock_directory, read_run, source_hash

SWEEP_FILE = "sweep.json"
PLANNED, FAILED = "planned", "failed"
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CellState:
    """How a run of a sweep ended.

    Args:
        setting: In words.
        seed: Of its training.
        folder: Its run folder, relative to that of the sweep.
        status: ``finished``, ``failed``, or ``planned``.
        error: Why it failed.
    """

    setting: str
    seed: int
    folder: str
    status: str
    error: str | None = None


@dataclass(frozen=True)
class Sweep:
    """What a sweep found.

    Args:
        folder: Where it is written.
        cells: How each run ended.
        comparison: Of all runs that are finished.
    """

    folder: Path
    cells: tuple[CellState, ...]
    comparison: RunComparison

    @property
    def failed(self) -> tuple[CellState, ...]:
        """Runs that failed; they are tried again by the next call."""
        return tuple(cell for cell in self.cells if cell.status == FAILED)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        cells = [asdict(cell) for cell in self.cells]
        return {"cells": cells, "comparison": self.comparison.to_json()}


def sweep(
    config: SweepConfig,
    *,
    run: Train | None = None,
    allow: Sequence[str] = (),
    progress: Progress | None = None,
) -> Sweep:
    """Train every setting with every seed, and compare the settings.

    Args:
        config: The grid.
        run: What trains one configuration into its run folder; None takes that of the kind.
        allow: What may differ between runs although the sweep does not vary it, such as ``code``.
        progress: Called with (runs done, runs in all).

    Returns:
        How each run ended, and the comparison, which is also written to ``comparison.json``.

    Raises:
        ConfigError: A setting does not fit, or the folder is in use.
        ComparisonError: Runs that are there were made by other code, fewer than two succeeded, or
            the comparison is refused.
        KeyboardInterrupt: Stopped; the next call goes on.

    Example:
        >>> import tempfile
        >>> from domainformer.config import build
        >>> from domainformer.run import start_run
        >>> root = Path(tempfile.mkdtemp())
        >>> _ = (root / "base.yaml").write_text("data: {path: cards.parquet}")
        >>> config = build(SweepConfig, {
        ...     "base": str(root / "base.yaml"), "seeds": [0, 1],
        ...     "vary": {"training.learning_rate": [0.1, 0.2]}, "output": {"root": str(root)}})
        >>> def pretend(config):
        ...     place = config.output
        ...     run = start_run(place.root, place.name, kind="pretrain", config=config)
        ...     run.finish({"eval_loss": config.training.learning_rate + config.training.seed})
        >>> found = sweep(config, run=pretend)
        >>> [(group.name, round(group.mean, 2)) for group in found.comparison.groups]
        [('learning_rate=0.1', 0.6), ('learning_rate=0.2', 0.7)]
    """
    cells = make_cells(config)
    train = kind_of(config.kind)[1] if run is None else run
    _claim(config.folder)
    _check_code(cells, allow)
    lock = lock_directory(config.folder)
    try:
        states = [CellState(c.name, c.seed, _relative(c, config), PLANNED) for c in cells]
        for index, cell in enumerate(cells):
            states[index] = _finished(cell, states[index]) or _trained(cell, states[index], train)
            _write(config, states)
            if progress is not None:
                progress(index + 1, len(cells))
        return _compared(config, cells, states, allow)
    finally:
        os.close(lock)


def _claim(folder: Path) -> None:
    """Take an empty folder, or one of a sweep."""
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SWEEP_FILE).is_file():
        raise ConfigError(
            f"the folder {folder} is in use",
            why=f"it is not empty, and has no {SWEEP_FILE} of a sweep",
            next_step="write to another folder (--out DIR)",
        )
    if not (folder / SWEEP_FILE).is_file():
        write_json(folder / SWEEP_FILE, {})


def _check_code(cells: Sequence[Cell], allow: Sequence[str]) -> None:
    """Refuse before hours of training what the comparison would refuse after them."""
    if "code" in allow:
        return
    for cell in cells:
        if not (cell.folder / RUN_FILE).is_file():
            continue
        record = read_run(cell.folder)
        code = None if record.identity is None else record.identity.code
        begun = record.status == FINISHED or record.resolved
        if begun and code != source_hash():
            raise ComparisonError(
                "this sweep was begun with other code",
                where=str(cell.folder),
                why=f"it was made by {code}, and the code is now {source_hash()}",
                next_step="write to another folder (--out DIR), or let it differ (--allow code)",
            )


def _finished(cell: Cell, state: CellState) -> CellState | None:
    """The state of a run that is there already; None where it is to be trained."""
    if not (cell.folder / RUN_FILE).is_file() or read_run(cell.folder).status != FINISHED:
        return None
    return CellState(state.setting, state.seed, state.folder, FINISHED)


def _trained(cell: Cell, state: CellState, train: Train) -> CellState:
    """Train, or go on; a failure is told and does not stop the others."""
    try:
        train(cell.config)
    except Exception as error:  # noqa: BLE001 - hours of other runs do not depend on it
        told = error.what if isinstance(error, DomainformerError) else str(error)
        message = f"{type(error).__name__}: {told}"
        return CellState(state.setting, state.seed, state.folder, FAILED, message)
    return CellState(state.setting, state.seed, state.folder, FINISHED)


def _write(config: SweepConfig, states: Sequence[CellState]) -> None:
    values = {
        "config": config.model_dump(mode="json"),
        "cells": [asdict(state) for state in states],
    }
    write_json(config.folder / SWEEP_FILE, values)


def _compared(
    config: SweepConfig, cells: Sequence[Cell], states: Sequence[CellState], allow: Sequence[str]
) -> Sweep:
    """The comparison of what is finished, with the first setting first."""
    order = {cell.name: None for cell in cells}
    done = [cell for cell, state in zip(cells, states, strict=True) if state.status == FINISHED]
    if len(done) < 2:
        errors = dict.fromkeys(state.error for state in states if state.error)
        raise ComparisonError(
            f"{len(done)} of {len(cells)} runs succeeded: there is nothing to compare",
            where=str(config.folder),
            why="\n         ".join(map(str, list(errors)[:3])) or "the sweep has one run",
            next_step="name more values or seeds, or repair what failed and run the sweep again",
        )
    folders = [cell.folder for name in order for cell in done if cell.name == name]
    found = compare(folders, compared(config), allow=allow, metric=config.metric)
    found.write(config.folder)
    return Sweep(config.folder, tuple(states), found)


def _relative(cell: Cell, config: SweepConfig) -> str:
    return cell.folder.relative_to(config.folder).as_posix()
