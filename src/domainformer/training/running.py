"""A run folder and the loop in it: what every training shares, whatever it learns from.

::

    open_run ─▶ plan_of ─▶ train ─▶ result_of
    identity    numbers    rules attached, checkpoints, metrics, best weights
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback

from domainformer.data.dataset import DomainSequenceDataset
from domainformer.errors import RuleError
from domainformer.run import RUN_FILE, Run, RunRecord, resume_run, run_directory, start_run
from domainformer.training.checkpoints import newest_checkpoint
from domainformer.training.config import MAY_DIFFER_ON_RESUME
from domainformer.training.objectives import ObjectiveModel
from domainformer.training.optimisation_config import OptimisationConfig
from domainformer.training.plan import TrainPlan, resolve_plan
from domainformer.training.progress import (
    METRICS_FILE,
    JsonLines,
    Watcher,
    make_display,
    say,
    say_nothing,
)
from domainformer.training.rules import Chain, attach, chain
from domainformer.training.rules.compiled import check_compiled
from domainformer.training.sampler import EpochDataset
from domainformer.training.session import StopAfterStep, StopRequest
from domainformer.training.trackers import make_trackers
from domainformer.training.trainer import EventTrainer
from domainformer.training.trainer_parts import Collate, on_device

CHECKPOINTS = "checkpoints"
MODEL = "model"


@dataclass(frozen=True)
class RunResult:
    """What a run left behind.

    Args:
        run_dir: The run folder.
        model_dir: The bundle in it.
        metrics: Final numbers: ``eval_loss`` (best), ``steps``, ``tokens``, ``seconds``, …
        split: The record of the split.
        record: The run's identity as it ended.
    """

    run_dir: Path
    model_dir: Path
    metrics: dict[str, Any]
    split: dict[str, Any]
    record: RunRecord


def open_run(root: str, name: str | None, config: Any, *, kind: str) -> Run:
    """Start a run folder, or open the one that shall be continued.

    Args:
        root: The folder of all runs.
        name: The run's folder in it.
        config: With a ``training`` section.
        kind: What will be done.
    """
    if config.training.resume and name is not None:
        directory = run_directory(root, name)
        if (directory / RUN_FILE).is_file():
            return resume_run(directory, config, may_differ=MAY_DIFFER_ON_RESUME)
    return start_run(root, name, kind=kind, config=config)


def result_of(run: Run) -> RunResult:
    """The result of a finished run."""
    record = run.record
    return RunResult(
        run_dir=run.directory,
        model_dir=run.directory / MODEL,
        metrics=dict(record.results or {}),
        split=dict(record.split or {}),
        record=record,
    )


def record_rules(run: Run, rules: Chain, sources: Mapping[str, str]) -> None:
    """Put the learning rules of a run into its identity.

    Args:
        run: The open run.
        rules: All rules that it is trained with.
        sources: Hash of the source of each of the user's own rules, by its name.

    Raises:
        RuleError: The run is continued, and a source is not what it was: half of its steps would
            be those of another rule.
    """
    then = run.record.rule_sources
    # What stopped before its first step owes nothing to the source that it was begun with.
    if run.record.resolved and then != dict(sources):
        changed = [name for name in sources if then.get(name) != sources[name]]
        raise RuleError(
            f"the source of learning rules changed since the run {run.record.name} was started",
            where=", ".join(changed) or ", ".join(then),
            next_step="put it back as it was, or start another run",
        )
    run.update(rules=[key for key, _ in rules.keyed], rule_sources=dict(sources))


def plan_of(
    run: Run,
    training: OptimisationConfig,
    model: PreTrainedModel | ObjectiveModel,
    rows: DomainSequenceDataset | Any,
    collate: Collate,
) -> TrainPlan:
    """The resolved numbers; a run that is taken up again keeps those it was started with."""
    known = run.record.resolved.get("plan")
    if known is not None:
        return TrainPlan(**{**known, "keep": training.keep, "log_every": training.log_every})
    plan = resolve_plan(
        training,
        model=model,
        width=model.config.hidden_size,
        row_lengths=rows.row_lengths,
        make_batch=lambda chosen: collate([rows[index] for index in chosen]),
    )
    run.update(
        resolved={
            "plan": plan.to_json(),
            "parameters": model.num_parameters(),
            "vocab_size": model.config.vocab_size,
            "device": plan.device,
            "threads": torch.get_num_threads(),
            "train_rows": len(rows),
            "train_tokens": int(rows.row_lengths.sum()),
        }
    )
    return plan


def train(
    run: Run,
    config: Any,
    model: PreTrainedModel | ObjectiveModel,
    plan: TrainPlan,
    train_rows: EpochDataset,
    eval_rows: EpochDataset | None,
    collate: Collate,
    *,
    trainer: type[EventTrainer] = EventTrainer,
    rules: Chain | None = None,
    origin: Mapping[str, Any] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    groups: Callable[[torch.nn.Module, float, float], list[dict[str, Any]]] | None = None,
) -> dict[str, Any]:
    """Train a model inside a run folder, from its newest checkpoint on, and load its best weights.

    Args:
        run: The open run.
        config: A configuration with a ``training`` section.
        model: On its device.
        plan: The resolved numbers.
        train_rows: Rows to train on.
        eval_rows: Rows to validate on, or None.
        collate: Rows to model inputs.
        trainer: The loop: ``EventTrainer``, or one that knows several objectives.
        rules: Learning rules, attached to the model for as long as it trains.
        origin: What the weights came from, for the manifest of each checkpoint.
        callbacks: Further watchers.
        groups: Makes other parameter groups for the optimizer.

    Returns:
        ``eval_loss``, ``best_step``, ``steps``, ``tokens``, ``seconds``, ``tokens_per_second``.
    """
    root = run.directory / CHECKPOINTS
    checkpoint = newest_checkpoint(root)
    done = checkpoint.step if checkpoint else 0
    if run.record.status != "preparing":
        run.update(resumed=[*run.record.resumed, done], finished=None, error=None)
    run.update(status="running")
    tell = say_nothing if config.training.quiet else say
    if plan.compile is not None:
        batch = collate([train_rows[index] for index in range(min(2, len(train_rows)))])
        check_compiled(rules or chain(), model, on_device(batch, model), plan.compile)
    with contextlib.ExitStack() as stack:
        attached = None
        if rules is not None and rules.rules:
            attached = stack.enter_context(attach(rules, model, seed=plan.seed))
        sinks = [
            JsonLines(run.directory / METRICS_FILE, after=done),
            *make_trackers(config.training.report_to, run.directory, run.record.config),
        ]
        watcher = Watcher(sinks, make_display(quiet=config.training.quiet))
        stack.callback(watcher.close)
        stop = stack.enter_context(StopRequest(lambda: tell("stopping after this step")))
        loop = trainer(
            model,
            plan,
            train_rows=train_rows,
            eval_rows=eval_rows,
            collate=collate,
            checkpoint_root=root,
            callbacks=[watcher, StopAfterStep(stop), *callbacks],
            rules=attached,
            origin=origin,
            groups=groups,
        )
        started = time.perf_counter()
        loop.fit(checkpoint)
        seconds = time.perf_counter() - started
        complete = loop.state.global_step >= plan.steps
        best = loop.load_best() if complete else None
    if not complete:
        tell(f"stopped at step {loop.state.global_step:,}; training.resume=true continues it")
        raise KeyboardInterrupt
    model.eval()
    return {
        "eval_loss": loop.state.best_metric,
        "best_step": best,
        "steps": loop.state.global_step,
        "tokens": loop.state.num_input_tokens_seen,
        "seconds": round(seconds, 2),
        "tokens_per_second": round(watcher.mean_rate, 1),
    }
