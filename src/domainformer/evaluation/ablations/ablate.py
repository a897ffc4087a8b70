"""One command from a run to a table of what each of its choices is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from domainformer.config import build
from domainformer.data import EventTable
from domainformer.data.splits import TEST, VALIDATION, Split
from domainformer.errors import ConfigError, DataError
from domainformer.evaluation.ablations.axes import BASE, Base
from domainformer.evaluation.ablations.config import AblationConfig, AblationSettings
from domainformer.evaluation.ablations.downstream import Downstream, from_labels, from_task
from domainformer.evaluation.ablations.plan import Plan, claim, make_plan
from domainformer.evaluation.ablations.result import Ablation
from domainformer.evaluation.ablations.scores import magnitude_limits
from domainformer.evaluation.ablations.summary import summarise
from domainformer.evaluation.ablations.trials import (
    Judged,
    Trial,
    finished,
    run_trial,
    trial_folder,
)
from domainformer.evaluation.labels import read_labels
from domainformer.evaluation.next_event import choose_events
from domainformer.evaluation.tasks import Task
from domainformer.schema import DomainSchema
from domainformer.training.config import RunConfig
from domainformer.training.preparation import find_schema, make_split, read_table

Progress = Callable[[int, int], None]
_ROLES = {"validation": VALIDATION, "test": TEST}
# Events are drawn once, the same for all variants, seeds and later additions.
_DRAW = 0


def ablate(
    config: AblationConfig | RunConfig,
    *,
    axes: Sequence[str] | None = None,
    table: EventTable | None = None,
    schema: DomainSchema | None = None,
    task: Task | None = None,
    progress: Progress | None = None,
) -> Ablation:
    """Vary one factor of a run at a time, and tell how each variant differs from the base.

    Every variant is trained once per seed, in a run folder of its own below
    ``output.root/output.name``. What is finished is not done again: an ablation that was stopped
    goes on where it was, and further axes, variants and seeds are added to what is there.

    Args:
        config: The run that is varied; an :class:`AblationConfig` says more.
        axes: Only these axes; by default those of the configuration, or all of ours.
        table: The events, where they are at hand; otherwise ``data.path`` is read.
        schema: The schema, where it is at hand; otherwise as the configuration says, or inferred
            once from the base's training events.
        task: Judge embeddings by this task instead of a label per entity.
        progress: Called with (trainings done, trainings in all).

    Returns:
        The table; it is also written to ``ablation.json``.

    Raises:
        ConfigError: An axis or a variant cannot be carried out, or the folder holds an ablation
            of another base.
        DataError: The table cannot be used, or there is nothing to judge by.

    Example:
        >>> import tempfile
        >>> from domainformer.data.simulate import simulate
        >>> config = build(AblationConfig, {
        ...     "data": {"entity": "patient_id", "time": "timestamp", "label": "label"},
        ...     "model": {"overrides": {"num_hidden_layers": 1, "hidden_size": 8}},
        ...     "training": {"max_steps": 2, "context": 64, "batch_tokens": 256},
        ...     "schema": "health", "split": {"kind": "entity"}, "axes": {"position": ["rope"]},
        ...     "output": {"root": tempfile.mkdtemp()},
        ...     "ablation": {"max_events": 8, "samples": 2, "label_table": None}})
        >>> found = ablate(config, table=simulate("health", entities=50, events_per_entity=16))
        >>> [(row.axis, row.variant) for row in found.rows]
        [('position', 'base'), ('position', 'rope')]
    """
    config = _as_ablation(config)
    prepared = _prepare(config, table, schema, task)
    plan = make_plan(prepared.base, config.axes, axes)
    claim(config.folder, plan, prepared.identity)
    seeds = config.ablation.seeds
    trials: dict[str, list[Trial]] = {variant.folder: [] for variant in plan.variants}
    done, total = 0, len(plan.variants) * len(seeds)
    # Seed by seed, so that a table of all variants is there as soon as can be.
    for seed in seeds:
        for variant in plan.variants:
            folder = trial_folder(config.folder, variant, seed)
            trial = finished(folder) or run_trial(
                folder, prepared.base, variant, seed, prepared.judged
            )
            trials[variant.folder].append(trial)
            done += 1
            if progress is not None:
                progress(done, total)
    found = _result(config, prepared, plan, trials)
    found.write()
    return found


def _as_ablation(config: AblationConfig | RunConfig) -> AblationConfig:
    if isinstance(config, AblationConfig):
        return config
    return build(AblationConfig, config.model_dump())


@dataclass(frozen=True)
class _Prepared:
    """What is there before the first training."""

    base: Base
    judged: Judged
    identity: dict[str, Any]
    owners: npt.NDArray[np.int64]
    split: dict[str, Any]


def _prepare(
    config: AblationConfig,
    table: EventTable | None,
    schema: DomainSchema | None,
    task: Task | None,
) -> _Prepared:
    run, settings = config.base, config.ablation
    table = read_table(run) if table is None else table
    split = make_split(table, run.split)
    training = split.events(table, "train")
    schema = schema or find_schema(run, training)
    owners = np.repeat(np.arange(table.n_entities), table.lengths)
    downstream = _downstream(config, table, task)
    judged = Judged(
        table=table,
        chosen=_chosen(settings, table, split),
        limits=magnitude_limits(schema, training),
        samples=settings.samples,
        downstream=downstream,
        keep_stores=settings.keep_stores,
    )
    identity = {
        "data": table.fingerprint(),
        "role": settings.role,
        "max_events": settings.max_events,
        "samples": settings.samples,
        "downstream": None if downstream is None else downstream.identity,
        "folds": settings.folds,
    }
    return _Prepared(Base(_pinned(run, split), schema), judged, identity, owners, split.record)


def _pinned(run: RunConfig, split: Split) -> RunConfig:
    """The run with its cuts told as times: events that are hidden must not move them."""
    if run.split.kind != "time":
        return run
    cuts = {key: split.record[key] for key in ("validation_from", "test_from")}
    values = run.model_dump()
    values["split"] |= cuts
    return build(RunConfig, values)


def _chosen(settings: AblationSettings, table: EventTable, split: Split) -> npt.NDArray[np.int64]:
    """The events that all variants are judged on: of one role, with a past."""
    eligible = split.roles == _ROLES[settings.role]
    eligible[table.offsets[:-1]] = False
    candidates = np.flatnonzero(eligible)
    if not len(candidates):
        raise DataError(
            f"there are no {settings.role} events with a past",
            why="the loss of a variant is told on them",
            next_step="choose another split, or ablation.role=test",
        )
    return choose_events(candidates, settings.max_events, _DRAW)


def _downstream(config: AblationConfig, table: EventTable, task: Task | None) -> Downstream | None:
    settings = config.ablation
    if task is not None:
        if settings.label is not None:
            raise ConfigError(
                "a label and a task were given",
                where="ablation.label",
                next_step="judge embeddings by one of them",
            )
        return from_task(task)
    label = settings.label or config.data.label
    if label is None:
        return None
    if settings.label_table is None:
        labels = read_labels(table, None, label)
    else:
        labels = read_labels(Path(settings.label_table), table.entity, label)
    return from_labels(table, labels, folds=settings.folds)


def _result(
    config: AblationConfig, prepared: _Prepared, plan: Plan, trials: dict[str, list[Trial]]
) -> Ablation:
    rows, common = summarise(plan, trials, prepared.owners)
    every = [trial for found in trials.values() for trial in found]
    scores = [trial.facts["downstream"] for trial in trials[BASE]]
    downstream = prepared.judged.downstream
    return Ablation(
        folder=config.folder,
        rows=rows,
        common=common,
        subject={
            "data": config.data.path,
            "fingerprint": prepared.identity["data"],
            "schema": plan.base.schema.name,
            "split": prepared.split,
            "role": config.ablation.role,
            "events": len(prepared.judged.chosen),
            "seeds": list(config.ablation.seeds),
            "context": plan.base.config.training.context,
            "downstream": None if downstream is None else downstream.name,
        },
        measure=None if scores[0] is None else scores[0]["measure"],
        notes=[*_left_out(common), *plan.notes, *_remarks(config)],
        seconds=round(sum(trial.facts["seconds_in_all"] for trial in every), 1),
    )


def _left_out(common: dict[str, Any]) -> list[str]:
    return [
        f"{axis}: not compared on {', '.join(found.left_out)}, "
        "which not all variants have with the same tokens"
        for axis, found in common.items()
        if found.left_out
    ]


def _remarks(config: AblationConfig) -> list[str]:
    notes = []
    if len(config.ablation.seeds) == 1:
        notes.append(
            "one seed: intervals tell of the draw of events, not of the noise of training; "
            "give three seeds or more (ablation.seeds=[0,1,2]) before you believe a difference"
        )
    if config.ablation.role == "test":
        notes.append("told on test events: do not choose by these figures")
    return notes
