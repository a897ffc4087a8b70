"""``pretrain``: from a configuration to a run folder with a trained model.

::

    runs/cards/
      run.json  config.yaml  schema.yaml      identity, before the first step
      tokenizer/  store/                      fitted and encoded
      checkpoints/  metrics.jsonl             while it trains
      model/                                  the bundle: weights, tokenizer, schema

Killed at any moment and started again with ``training.resume: true``, it ends with the weights
that it would have had.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from huggingface_hub.errors import StrictDataclassError

from domainformer.data import EventTable
from domainformer.data.augment import ValueSubstitution, interchangeable
from domainformer.data.dataset import DomainSequenceDataset
from domainformer.data.splits import TRAIN, VALIDATION
from domainformer.errors import ConfigError, RuleError, nearest
from domainformer.inference import save_bundle
from domainformer.models import (
    PRESETS,
    Collator,
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
)
from domainformer.run import Run
from domainformer.schema import DomainSchema, FieldType
from domainformer.tokenizers import DomainTokenizer, PermutedSequenceDataset
from domainformer.training.config import (
    ModelConfig,
    RunConfig,
)
from domainformer.training.merging import merged_rows
from domainformer.training.objective_base import ObjectiveCollator, ObjectiveRows
from domainformer.training.objective_trainer import ObjectiveTrainer
from domainformer.training.objectives import NEXT_TOKEN, ObjectiveModel, make_objectives
from domainformer.training.plan import device
from domainformer.training.preparation import Prepared, prepare
from domainformer.training.progress import (
    METRICS_FILE,
    evaluation_at,
    say,
    say_nothing,
)
from domainformer.training.rules import Chain
from domainformer.training.rules.config import configured_rules
from domainformer.training.running import (
    MODEL,
    RunResult,
    open_run,
    plan_of,
    record_rules,
    result_of,
    train,
)
from domainformer.training.session import reproducible


def pretrain(
    config: RunConfig, *, table: EventTable | None = None, schema: DomainSchema | None = None
) -> RunResult:
    """Train a model to predict the next token of event histories.

    Args:
        config: Everything that decides the result.
        table: The events, where they are at hand; otherwise ``data.path`` is read.
        schema: The schema, where it is at hand; otherwise as the configuration says.

    Returns:
        The run folder, the model folder in it, and the final numbers.

    Raises:
        ConfigError: The configuration cannot be carried out.
        DataError: The table cannot be used.
        CheckpointError: Resuming was asked for and no checkpoint can be trusted.
        KeyboardInterrupt: Stopped by Ctrl-C or SIGTERM, after a checkpoint was written.

    Example:
        >>> import tempfile
        >>> from domainformer.config import build
        >>> from domainformer.data.simulate import simulate
        >>> config = build(RunConfig, {
        ...     "schema": "health", "data": {"entity": "patient_id", "time": "timestamp"},
        ...     "model": {"overrides": {"num_hidden_layers": 1, "hidden_size": 8}},
        ...     "training": {"max_steps": 2, "context": 64, "batch_tokens": 256, "quiet": True},
        ...     "output": {"root": tempfile.mkdtemp(), "name": "demo"}})
        >>> result = pretrain(config, table=simulate("health", entities=20, events_per_entity=20))
        >>> result.metrics["steps"], sorted(p.name for p in result.run_dir.glob("*.json*"))
        (2, ['metrics.jsonl', 'run.json'])
    """
    # A mistake in the model shall show before the table is tokenized.
    model_settings(config.model, 1024, config.training.context)
    rules, sources = event_rules(config)
    run = open_run(config.output.root, config.output.name, config, kind="pretrain")
    if run.record.status == "finished":
        return result_of(run)
    with run, reproducible(config.training.seed, threads=config.training.threads):
        record_rules(run, rules, sources)
        tell = say_nothing if config.training.quiet else say
        prepared = prepare(config, run, table=table, schema=schema, say=tell)
        settings = model_settings(config.model, prepared.vocab_size, config.training.context)
        model = DomainTransformerForCausalLM(settings).to(device(config.training.device))
        train_rows, eval_rows = sequence_rows(prepared, config)
        collate = Collator(
            prepared.tokenizer.pad_id,
            packed=config.training.packed,
            pad_to=config.training.context if config.training.packed else None,
        )
        metrics = train_objectives(
            run, config, model, prepared.tokenizer, train_rows, eval_rows, collate, rules
        )
        save_bundle(
            run.directory / MODEL,
            model,
            prepared.tokenizer,
            bundle_record(run, config, prepared, metrics),
            merges=prepared.merges,
            overwrite=True,
        )
        run.finish(metrics)
    return result_of(run)


def train_objectives(
    run: Run,
    config: RunConfig,
    model: DomainTransformerForCausalLM,
    tokenizer: DomainTokenizer,
    train_rows: DomainSequenceDataset | PermutedSequenceDataset,
    eval_rows: DomainSequenceDataset | None,
    collate: Collator,
    rules: Chain,
) -> dict[str, Any]:
    """Train a model on what the configuration names; next tokens alone need nothing around it."""
    training = config.training
    if set(training.objectives.used) == {NEXT_TOKEN}:
        plan = plan_of(run, training, model, train_rows, collate)
        return train(run, config, model, plan, train_rows, eval_rows, collate, rules=rules)
    assert isinstance(train_rows, DomainSequenceDataset)  # the configuration refuses others
    made = make_objectives(training, tokenizer, model.config, train_rows)
    learner = ObjectiveModel(model, made, training)
    learner.to(device(training.device))
    objectives = learner.objectives
    rows = ObjectiveRows(train_rows, objectives)
    judged = None if eval_rows is None else ObjectiveRows(eval_rows, objectives)
    collator = ObjectiveCollator(collate, objectives)
    plan = plan_of(run, training, learner, rows, collator)
    metrics = train(
        run, config, learner, plan, rows, judged, collator, trainer=ObjectiveTrainer, rules=rules
    )
    # The trainer judged by all objectives; told are the losses of the model that was kept.
    losses = evaluation_at(run.directory / METRICS_FILE, metrics["best_step"])
    return {**metrics, "eval_loss": losses.get("eval_loss"), **losses}


def event_rules(config: RunConfig) -> tuple[Chain, dict[str, str]]:
    """The learning rules of a run on events, and the hash of the source of each of the user's own.

    Raises:
        RuleError: There is no such rule; it changes what the model computes, which a bundle of
            events would not know; or it adds to a loss that consists of several objectives.
    """
    rules, sources = configured_rules(config)
    structural = [rule.name for rule in rules.rules if rule.changes_function]
    if structural:
        raise RuleError(
            f"the rule {structural[0]!r} changes what the model computes after training, too",
            where="rules",
            why="the model of events is used without rules: it would not be the trained one",
            next_step="choose it in model.overrides where there is such a setting, or leave it out",
        )
    adds = [rule.name for rule in rules.rules if "auxiliary_loss" in rule.steps]
    if adds and set(config.training.objectives.used) != {NEXT_TOKEN}:
        raise RuleError(
            f"the rule {adds[0]!r} adds to the loss of next tokens alone",
            where="rules",
            why=f"this run learns {', '.join(config.training.objectives.used)}",
            next_step="leave it out, or train on next tokens alone",
        )
    return rules, sources


def model_settings(config: ModelConfig, vocab_size: int, context: int) -> DomainTransformerConfig:
    """The configuration of a new model.

    Raises:
        ConfigError: There is no such preset, or an override does not fit.
    """
    if config.preset not in PRESETS:
        raise ConfigError(
            f"there is no model preset {config.preset!r}",
            where="model.preset",
            next_step=nearest(config.preset, PRESETS),
        )
    if "vocab_size" in config.overrides:
        raise ConfigError(
            "the vocabulary size follows from the tokenizer",
            where="model.overrides.vocab_size",
            next_step="leave it out",
        )
    sizes = {"vocab_size": vocab_size, "max_position_embeddings": context, **config.overrides}
    try:
        return DomainTransformerConfig.preset(config.preset, **sizes)
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ConfigError(
            "the model cannot be built",
            where="model.overrides",
            why=str(error.__cause__ or error),
        ) from error


def sequence_rows(
    prepared: Prepared, config: RunConfig
) -> tuple[DomainSequenceDataset | PermutedSequenceDataset, DomainSequenceDataset | None]:
    """Rows to train on, and rows that score the validation events (None where there are none)."""
    training, store = config.training, prepared.store
    budgets = prepared.tokenizer.budgets
    if prepared.merges is not None and config.tokenizer.merges is not None:
        return merged_rows(store, prepared.merges, config.tokenizer.merges, training)
    shared = {"context": training.context, "packed": training.packed, "budgets": budgets}
    train_rows = DomainSequenceDataset(
        store,
        train_roles=(TRAIN,),
        seed=training.seed,
        augment=substitution(prepared.tokenizer, training.substitute_values),
        **shared,  # type: ignore[arg-type]
    )
    has_validation = any(bool(np.any(shard.roles == VALIDATION)) for shard in store.shards)
    if not has_validation:
        return train_rows, None
    eval_rows = DomainSequenceDataset(
        store,
        score_roles=(VALIDATION,),
        seed=training.seed,
        shuffle=False,
        **shared,  # type: ignore[arg-type]
    )
    return train_rows, eval_rows


def substitution(tokenizer: DomainTokenizer, rate: float) -> ValueSubstitution | None:
    """What replaces categorical values in training histories, or None where nothing shall."""
    if not rate:
        return None
    groups = []
    for slot in tokenizer.slots:
        categorical = slot.kind in (FieldType.CATEGORICAL_FIXED, FieldType.CATEGORICAL_ENTITY)
        if categorical and not slot.part:  # the parts of a semantic id make sense together only
            unknown = slot.missing + 1  # the second of a categorical block
            groups.append(([i for i in slot.ids.tolist() if i > unknown], (unknown, slot.missing)))
    return ValueSubstitution(interchangeable(groups), rate, tokenizer.vocab_size)


def bundle_record(
    run: Run, config: RunConfig, prepared: Prepared, metrics: dict[str, Any]
) -> dict[str, Any]:
    """What a model tells about its making."""
    merges = config.tokenizer.merges
    return {
        "run": run.record.id,
        "kind": run.record.kind,
        "config_hash": run.record.config_hash,
        "code_version": run.record.code_version,
        "data_fingerprint": run.record.data_fingerprint,
        "context": config.training.context,
        "packed": config.training.packed,
        "split": prepared.split,
        "data": config.data.model_dump(mode="json"),
        "metrics": metrics,
        **({} if merges is None else {"permutations": merges.permutations}),
    }
