"""``contest``: every model on every fold with every seed, and who is better by how much.

::

    task ─▶ leaks? ─▶ for fold, seed: for model: fit, predict ─▶ cells (kept) ─▶ Comparison
                                                 blend: from the cells of its members

A cell that was finished before is read, not run: an interrupted contest goes on where it stopped,
and a model, a seed or a fold that is added later costs itself alone. Only the last step, judging,
reads test labels.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy.typing as npt
import polars as pl
from rich.table import Table

from domainformer.artifacts import fingerprint, write_json
from domainformer.errors import ArtifactError, ConfigError, nearest
from domainformer.evaluation.comparison import Comparison, FoldPrediction, evaluate_predictions
from domainformer.evaluation.contest.blend import Blend, choose_weights, held_back
from domainformer.evaluation.contest.boosting import find_plan
from domainformer.evaluation.contest.cells import Cell, Shelf
from domainformer.evaluation.contest.config import ContestConfig
from domainformer.evaluation.contest.curves import curves_of
from domainformer.evaluation.contest.identity import (
    check_folder,
    open_folder,
    record_of,
    versions,
    with_files,
)
from domainformer.evaluation.contest.logits import average
from domainformer.evaluation.contest.table import BASELINES, build_contestant, usual_models
from domainformer.evaluation.contest.tasks import make_task, task_fingerprint
from domainformer.evaluation.leaks import check_leaks
from domainformer.evaluation.measures import check_prediction
from domainformer.evaluation.protocols import check_split, inner_split
from domainformer.evaluation.task_features import TaskFeatures
from domainformer.evaluation.tasks import EXAMPLE, LABEL, Model, Task, TaskSplit

COMPARISON_FILE = "comparison.json"
_NOTHING: Any = object()  # of a model that reads no aggregates
Progress = Callable[[int, int], None]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Contest:
    """A finished contest.

    Args:
        folder: Where predictions and results are.
        task: The task.
        comparison: Figures, differences, cells.
        record: What the results file says beside the comparison: curves, identity.
    """

    folder: Path
    task: Task
    comparison: Comparison
    record: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data: what stands in ``comparison.json``."""
        return {**self.comparison.to_json(), **self.record}

    def render(self) -> Table:
        """The table for a terminal."""
        return self.comparison.render()


def contest(
    config: ContestConfig,
    *,
    task: Task | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> Contest:
    """Run what is missing, judge everything, write ``comparison.json``.

    Args:
        config: Task, models, seeds, folds, output.
        task: The task where it is at hand; otherwise as the configuration says.
        progress: Called with (cells done, cells in all).
        tell: Called with a line per finished cell.

    Raises:
        ConfigError: A contestant, setting, baseline or fold that does not exist.
        DataError: The table, label or cuts cannot be used, or a feature knows the label.
        FingerprintError: The output folder holds another task, or a model with other settings.
        ArtifactError: Stored predictions were altered.
    """
    started = datetime.now(UTC)
    if task is None and config.models is None:
        task = make_task(config.task)  # its kind says who usually takes part
    models = build_models(config, task)
    task = make_task(config.task) if task is None else task
    folds = _folds(config, task)
    folder = Path(config.output)
    shelf = Shelf(folder, task_fingerprint(task))
    check_folder(folder, shelf.task, task)
    if config.check_leaks:
        look_for_leaks(task, models)
    open_folder(folder, shelf.task, task)
    rounds = _Rounds(task, models, shelf, tell or (lambda line: None), progress)
    rounds.run(folds, config.seeds)
    comparison = evaluate_predictions(
        task,
        rounds.predictions,
        baselines=baselines_of(config, models),
        folds=folds,
        samples=config.samples,
    )
    record = {
        "curves": curves_of(task, rounds.predictions),
        "identity": record_of(config, task, shelf.task, models, rounds.facts, started),
    }
    done = Contest(folder, task, comparison, record)
    write_json(folder / COMPARISON_FILE, done.to_json())
    return done


def build_models(
    config: ContestConfig, task: Task | None = None
) -> dict[str, tuple[str, Model, str]]:
    """The models of a contest: name → (contestant, model, fingerprint of its settings).

    Members of a blend come before it.

    Args:
        config: Has the models.
        task: Says who takes part where the configuration does not.

    Raises:
        ConfigError: There is no such contestant, setting, or member of a blend.
    """
    given = dict.fromkeys(usual_models(task)) if config.models is None else config.models
    found: dict[str, tuple[str, Model, str]] = {}
    for name, values in given.items():
        settings = dict(values or {})
        kind = str(settings.pop("contestant", name))
        model = build_contestant(kind, settings, where=f"models.{name}")
        found[name] = (kind, model, fingerprint([kind, with_files(settings)]))
    for name, (_, model, print_) in list(found.items()):
        if isinstance(model, Blend):
            if model.settings:
                raise ConfigError(
                    f"the blend {name!r} has settings of its members",
                    where=f"models.{name}.settings",
                    why="in a contest it takes the predictions of the contest's own models",
                    next_step="give the settings to the members themselves, under models",
                )
            for member in model.of:
                if member not in found or isinstance(found[member][1], Blend):
                    raise ConfigError(
                        f"the blend {name!r} has no such member: {member!r}",
                        where=f"models.{name}.of",
                        next_step=nearest(member, [one for one in found if one != name]),
                    )
            # Other members' settings make another blend.
            members = [found[member][2] for member in model.of]
            found[name] = ("blend", model, fingerprint([print_, members]))
    return dict(sorted(found.items(), key=lambda item: isinstance(item[1][1], Blend)))


def baselines_of(config: ContestConfig, models: Mapping[str, tuple[str, Model, str]]) -> list[str]:
    """The models to beat: those named, or those of a contestant known as a baseline.

    Raises:
        ConfigError: A named baseline is no model of the contest.
    """
    if config.baselines is None:
        return [name for name, (kind, _, _) in models.items() if kind in BASELINES]
    for name in config.baselines:
        if name not in models:
            raise ConfigError(
                f"there is no model {name!r}", where="baselines", next_step=nearest(name, models)
            )
    return list(config.baselines)


def look_for_leaks(task: Task, models: Mapping[str, tuple[str, Model, str]]) -> None:
    """Refuse features that know the label: static columns, and the aggregates that models read.

    Raises:
        DataError: Something was found, with the columns.
    """
    if task.kind == "next_item":
        return
    read = [getattr(model, "plan", _NOTHING) for _, model, _ in models.values()]
    given = {repr(plan): plan for plan in read if plan is not _NOTHING}
    if not given:
        check_leaks(task, task.examples.select(EXAMPLE))
    for one in given.values():
        plan = find_plan(one, task, task.examples)
        check_leaks(task, TaskFeatures.fit(task, task.examples, plan).transform)


class _Rounds:
    """The cells of a contest, run or read."""

    def __init__(
        self,
        task: Task,
        models: Mapping[str, tuple[str, Model, str]],
        shelf: Shelf,
        tell: Tell,
        progress: Progress | None,
    ) -> None:
        self.task, self.models, self.shelf, self.tell = task, models, shelf, tell
        self.predictions: dict[str, list[FoldPrediction]] = {name: [] for name in models}
        self.facts: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
        self._progress = progress or (lambda done, total: None)
        self._blended = {
            member
            for _, model, _ in models.values()
            if isinstance(model, Blend) and model.shares is None
            for member in model.of
        }

    def run(self, folds: list[int], seeds: tuple[int, ...]) -> None:
        """Every model in every fold with every seed."""
        done, total = 0, len(folds) * len(seeds) * len(self.models)
        self._progress(done, total)
        for split in self.task.splits():
            if split.fold not in folds:
                continue
            check_split(self.task, split)
            for seed in seeds:
                train, valid = inner_split(self.task, split, seed=seed)
                cells: dict[str, Cell] = {}
                for name in self.models:
                    cells[name] = self._cell(name, split, seed, train, valid, cells)
                    self._keep(name, split.fold, seed, cells[name])
                    done += 1
                    self._progress(done, total)

    def _cell(
        self,
        name: str,
        split: TaskSplit,
        seed: int,
        train: pl.DataFrame,
        valid: pl.DataFrame,
        cells: Mapping[str, Cell],
    ) -> Cell:
        _, model, settings = self.models[name]
        rows = {"test": split.test, "valid": valid}
        where = f"fold {split.fold}, seed {seed}: {name}"
        found = self.shelf.read(name, split.fold, seed, settings, rows)
        if found is not None and (found.valid is not None or name not in self._blended):
            self.tell(f"{where} was there already")
            return found
        started = time.perf_counter()
        facts: dict[str, Any] = {"settings": settings, "versions": versions()}
        if isinstance(model, Blend):
            facts["weights"] = model.shares or choose_weights(
                self.task, valid, {member: _valid(cells[member], member) for member in model.of}
            )
            each = [cells[member].test for member in model.of]
            test: npt.NDArray[Any] = average(
                each, self.task.kind, [facts["weights"][member] for member in model.of]
            )
            own = None
        else:
            fitted = model.fit(self.task, train, valid, seed)
            test = fitted.predict(self.task, split.test.drop(LABEL))
            own = None
            if name in self._blended:
                own = held_back(model, fitted, self.task, train, valid, seed)
        kind, classes = self.task.kind, self.task.n_classes
        test = check_prediction(test, kind, split.test.height, classes, where)
        cell = Cell(test, own, time.perf_counter() - started, facts)
        self.shelf.write(name, split.fold, seed, cell, rows)
        self.tell(f"{where} took {cell.seconds:,.1f} s")
        return cell

    def _keep(self, name: str, fold: int, seed: int, cell: Cell) -> None:
        self.predictions[name].append(FoldPrediction(fold, cell.test, seed, cell.seconds))
        self.facts[name].append({"fold": fold, "seed": seed, **cell.facts})


def _valid(cell: Cell, member: str) -> npt.NDArray[Any]:
    if cell.valid is None:
        raise ArtifactError(f"{member!r} has no predictions of the validation examples")
    return cell.valid


def _folds(config: ContestConfig, task: Task) -> list[int]:
    folds = task.folds if config.folds is None else sorted(set(config.folds))
    if not folds or not set(folds) <= set(task.folds):
        raise ConfigError(
            f"the task has no such folds: {folds}",
            where="folds",
            next_step=f"choose among {task.folds}",
        )
    return folds
