"""``train_vision``: from a configuration to a run folder with an adapter.

::

    runs/tiles/
      run.json  config.yaml        identity, before the first step
      checkpoints/  metrics.jsonl  while it trains: the compressor alone, validated by hard drop
      adapter/                     the compressor and the name of the model that it belongs to

Killed at any moment and started again with ``training.resume: true``, it ends with the weights
that it would have had.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn

from domainformer.errors import ConfigError, FingerprintError
from domainformer.models.vision import RelevanceRealizer
from domainformer.models.vision.folder import base_facts, save_adapter
from domainformer.run import Run, RunRecord
from domainformer.training.optimizer import count
from domainformer.training.plan import device
from domainformer.training.progress import say, say_nothing
from domainformer.training.running import open_run, train
from domainformer.training.session import reproducible
from domainformer.training.vision.building import make_realizer, make_rows, plan_of
from domainformer.training.vision.collator import VisionCollator
from domainformer.training.vision.config import VisionRunConfig
from domainformer.training.vision.examples import questions_fingerprint
from domainformer.training.vision.judging import batches_of, judge
from domainformer.training.vision.learner import VisionLearner
from domainformer.training.vision.processor import open_base
from domainformer.training.vision.rows import VisionRows
from domainformer.training.vision.sources import Split, open_questions
from domainformer.training.vision.trainer import VisionTrainer

KIND = "vision"
ADAPTER = "adapter"
# The engine's summary of the validation that chose a checkpoint: here none does.
_NOT_RESULTS = ("eval_loss", "best_step")


@dataclass(frozen=True)
class VisionRun:
    """What a run left behind.

    Args:
        run_dir: The run folder.
        adapter_dir: The trained compressor in it, for ``RelevanceRealizer.from_pretrained``.
        metrics: Of the whole validation split, by hard drop: ``accuracy_0.25``, ``kept_0.25``, …
            for each budget, ``accuracy_full`` without compression; ``steps``, ``seconds``.
        record: The run's identity as it ended.
    """

    run_dir: Path
    adapter_dir: Path
    metrics: dict[str, Any]
    record: RunRecord


def train_vision(
    config: VisionRunConfig,
    *,
    model: nn.Module | None = None,
    processor: Any = None,
    questions: Split | None = None,
) -> VisionRun:
    """Train a compressor of image tokens on a frozen vision-language model.

    Args:
        config: Everything that decides the result.
        model: The model, where it is at hand; otherwise ``model.name`` is opened.
        processor: Of that model.
        questions: Where they are at hand; otherwise as the configuration says.

    Returns:
        The run folder, the adapter in it, and the final numbers.

    Raises:
        ConfigError: The configuration cannot be carried out.
        DataError: A file of questions cannot be used.
        VisionError: The model cannot be compressed, or a question cannot be read.
        CheckpointError: Resuming was asked for and no checkpoint can be trusted.
        KeyboardInterrupt: Stopped by Ctrl-C or SIGTERM, after a checkpoint was written.

    Example:
        >>> from domainformer.config import load_config
        >>> config = load_config(VisionRunConfig, "tiles.yaml")  # doctest: +SKIP
        >>> run = train_vision(config)  # doctest: +SKIP
        >>> model = open_base(config.model)[0]  # doctest: +SKIP
        >>> RelevanceRealizer.from_pretrained(run.adapter_dir, model=model)  # doctest: +SKIP
    """
    if (model is None) != (processor is None):
        raise ConfigError(
            "a model is given with its processor, or neither",
            next_step="pass both, or name the model in model.name",
        )
    training = config.training
    # A new run opens what it needs before its folder is made: a path misspelt leaves none behind.
    if not training.resume:
        questions = questions or open_questions(config.data)
        if model is None:
            model, processor = open_base(config.model)
    run = open_run(config.output.root, config.output.name, config, kind=KIND)
    if run.record.status == "finished":
        return _result(run)
    tell = say_nothing if training.quiet else say
    with run, reproducible(training.seed, threads=training.threads):
        split = questions or open_questions(config.data)
        if model is None:
            model, processor = open_base(config.model)
        realizer = make_realizer(config, model)
        realizer.to(device(training.device))
        collator = VisionCollator(
            processor, prompt=config.model.prompt, end_of_answer=config.model.end_of_answer
        )
        rows = make_rows(split, collator, realizer, training, tell)
        metrics = _train(run, config, realizer, split, rows)
        asking = config.model.model_dump(include={"prompt", "end_of_answer"})
        save_adapter(realizer, run.directory / ADAPTER, overwrite=True, asking=asking)
        run.finish(metrics)
    return _result(run)


def _train(
    run: Run,
    config: VisionRunConfig,
    realizer: RelevanceRealizer,
    split: Split,
    rows: tuple[VisionRows, VisionRows],
) -> dict[str, Any]:
    """Run the engine, then judge by the whole validation split."""
    train_rows, judged = rows
    learner = VisionLearner(realizer, config.training)
    learner.to(realizer.base.device)
    plan = plan_of(config.training, realizer.base.device)
    if config.training.guidance is not None and _seen_twice(config, train_rows):
        train_rows.guide(learner.looked_at, at_once=config.training.batch_size)
    base = base_facts(realizer.model)
    _identify(run, split, base)
    run.update(
        split={"train": len(split.train), "validation": len(split.validation)},
        resolved={
            "plan": plan.to_json(),
            "parameters": count(learner.parameters()),
            "base": base,
            "compressor": learner.selector.config.to_dict(),
            "cached": [one.cached for one in rows],
            "device": plan.device,
            "threads": torch.get_num_threads(),
        },
    )
    metrics = train(
        run,
        config,
        learner,
        plan,
        train_rows,
        judged if len(judged) else None,
        train_rows.collator,
        trainer=VisionTrainer,
        origin={"base": base},
    )
    found = judge(learner, batches_of(learner, judged, plan.rows), full=True)
    kept = {name: value for name, value in metrics.items() if name not in _NOT_RESULTS}
    return {**kept, **found}


def _seen_twice(config: VisionRunConfig, rows: VisionRows) -> bool:
    """Whether training comes back to its questions, so that a teacher is worth remembering."""
    return config.training.steps * config.training.batch_size > len(rows)


def _identify(run: Run, split: Split, base: dict[str, Any]) -> None:
    """Enter the questions into the run's identity; what is continued must not have changed.

    Raises:
        ConfigError: The questions are not those that the run was started with.
        FingerprintError: The model is another one.
    """
    then = run.record.resolved.get("base")
    if then is not None and then["fingerprint"] != base["fingerprint"]:
        raise FingerprintError(
            f"the run {run.record.name} was started with another model",
            where="model",
            why=f"its weights are {base['fingerprint']}, then {then['fingerprint']}",
            next_step="open the model of then, or start another run",
        )
    now = split.fingerprint or questions_fingerprint(chain(split.train, split.validation))
    if then is not None and run.record.data_fingerprint != now:
        raise ConfigError(
            f"the questions changed since the run {run.record.name} was started",
            where="data",
            next_step="give the same questions, or start another run",
        )
    run.update(data_fingerprint=now)


def _result(run: Run) -> VisionRun:
    record = run.record
    return VisionRun(
        run_dir=run.directory,
        adapter_dir=run.directory / ADAPTER,
        metrics=dict(record.results or {}),
        record=record,
    )
