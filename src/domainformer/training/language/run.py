"""``train``: from a configuration and text files to a run folder with a language model.

::

    runs/shakespeare/
      run.json  config.yaml        identity, before the first step
      tokenizer/                   as the model will have it
      checkpoints/  metrics.jsonl  samples.jsonl
      model/                       weights, tokenizer, lineage; transformers reads it as it is

Killed at any moment and started again with ``training.resume: true``, it ends with the weights
that it would have had, on the architecture that the checkpoint names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from domainformer.artifacts import staged_directory
from domainformer.errors import RuleError
from domainformer.models.families import BaseAdapter
from domainformer.registry import Registry
from domainformer.run import Run
from domainformer.training.checkpoints import newest_checkpoint
from domainformer.training.language.config import TextRunConfig
from domainformer.training.language.preparation import (
    TOKENIZER_FOLDER,
    Texts,
    Windows,
    make_adapter,
    make_windows,
    read_split,
    resumed_adapter,
    tokenizer_fingerprint,
)
from domainformer.training.language.rows import LanguageRows, LanguageTrainer, collate_text
from domainformer.training.language.samples import SAMPLES_FILE, Samples
from domainformer.training.language.scoring import score, unigram_nats
from domainformer.training.lora import merge_lora
from domainformer.training.plan import device
from domainformer.training.progress import say, say_nothing
from domainformer.training.rules import Chain, attach, chain
from domainformer.training.rules.config import configured_rules
from domainformer.training.rules.table import make_rules
from domainformer.training.running import (
    CHECKPOINTS,
    MODEL,
    RunResult,
    open_run,
    plan_of,
    record_rules,
    result_of,
)
from domainformer.training.running import train as train_rows
from domainformer.training.session import reproducible
from domainformer.training.surgery_config import callbacks_of, groups_of, operate

KIND = "train"
_INHERITED = ("needs_rules", "rule_code")  # of the parent's record
_BEGINNING = 16  # characters of the validation text that a sample begins with


def train(config: TextRunConfig) -> RunResult:
    """Train a language model on text: a new one, or a registered one further.

    Args:
        config: Everything that decides the result.

    Returns:
        The run folder, the model folder in it, and the final numbers: ``nats``,
        ``bits_per_character`` and ``perplexity`` of the whole validation text.

    Raises:
        ConfigError: The configuration cannot be carried out.
        DataError: The text cannot be used.
        RuleError: A learning rule cannot be attached.
        RegistryError: The registered model cannot be used.
        CheckpointError: Resuming was asked for and no checkpoint can be trusted.
        KeyboardInterrupt: Stopped by Ctrl-C or SIGTERM, after a checkpoint was written.

    Example:
        >>> import tempfile
        >>> from domainformer.config import build
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "a.txt").write_text("to be or not to be, that is the question. " * 20)
        >>> config = build(TextRunConfig, {
        ...     "data": {"path": str(folder / "a.txt")},
        ...     "model": {"overrides": {"num_hidden_layers": 1, "hidden_size": 16}},
        ...     "training": {"context": 16, "batch_tokens": 64, "max_steps": 3, "quiet": True},
        ...     "sampling": {"tokens": 5}, "output": {"root": str(folder), "name": "demo"}})
        >>> result = train(config)
        >>> sorted(result.metrics)[:2], result.metrics["scored_characters"]
        (['best_step', 'bits_per_character'], 83)
    """
    rules, sources = configured_rules(config)
    run = open_run(config.output.root, config.output.name, config, kind=KIND)
    if run.record.status == "finished":
        return result_of(run)
    _check_name(config, run)
    tell = say_nothing if config.training.quiet else say
    with run, reproducible(config.training.seed, threads=config.training.threads):
        texts = read_split(config.data, characters=reads_characters(config))
        adapter = _adapter(config, texts, run)
        rules = chain(inherited_rules(adapter, config.model_name), rules)
        windows = make_windows(config, texts, adapter)
        _identify(run, config, texts, windows, adapter, rules, sources)
        tell(_describe(texts, windows, adapter))
        operate(adapter.model, config.surgery)
        adapter.model.to(device(config.training.device))
        metrics = _train(run, config, adapter, texts, windows, rules)
        record = _record(run, config, rules, metrics)
        adapter.save_checkpoint(run.directory / MODEL, record=record, overwrite=True)
        _publish(config, run, metrics, rules)
        run.finish(metrics)
    return result_of(run)


def reads_characters(config: TextRunConfig) -> bool:
    """Whether a character tokenizer reads the text."""
    return config.model_name is None and config.tokenizer.path is None


def _adapter(config: TextRunConfig, texts: Texts, run: Run) -> BaseAdapter:
    """The model of the newest checkpoint, or the one that the configuration names."""
    checkpoint = newest_checkpoint(run.directory / CHECKPOINTS)
    if checkpoint is not None:
        # Additions are put into the model first: only then do the checkpoint's weights fit.
        empty = config.surgery.lora is not None
        adapter = resumed_adapter(checkpoint.path, run.directory, empty=empty)
        adapter.parent = run.record.resolved.get("parent")
        adapter.record = dict(run.record.resolved.get("parent_record") or {})
        return adapter
    adapter = make_adapter(config, texts, run.directory)
    if reads_characters(config):
        return adapter
    # The run keeps what travels with the model, whatever becomes of its source: so a resumed run
    # ends with the same files.
    own = run.directory / TOKENIZER_FOLDER
    with staged_directory(own, overwrite=True) as staging:
        adapter.carry(staging)
    adapter.folder = own
    return adapter


def _identify(
    run: Run,
    config: TextRunConfig,
    texts: Texts,
    windows: Windows,
    adapter: BaseAdapter,
    rules: Chain,
    sources: dict[str, str],
) -> None:
    parent = adapter.parent or {}
    run.update(
        data_fingerprint=texts.fingerprint,
        tokenizer_fingerprint=tokenizer_fingerprint(run.directory / TOKENIZER_FOLDER),
        parent_id=parent.get("model_id") if config.model_name is not None else None,
        split={
            "by": config.data.split_by,
            "train_documents": len(texts.train),
            "validation_documents": len(texts.validation),
            "train_characters": sum(len(document.text) for document in texts.train),
            "train_tokens": windows.train.n_ids,
            "validation_tokens": windows.validation.n_ids,
            "validation_characters": windows.characters,
            "changes": texts.changes,
        },
    )
    record_rules(run, rules, sources)


def _train(
    run: Run,
    config: TextRunConfig,
    adapter: BaseAdapter,
    texts: Texts,
    windows: Windows,
    rules: Chain,
) -> dict[str, Any]:
    """Run the engine, then score the whole validation text and write the last samples."""
    rows, judged = LanguageRows(windows.train), LanguageRows(windows.validation)
    plan = plan_of(run, config.training, adapter.model, rows, collate_text)
    origin = {"parent": adapter.parent, "architecture": adapter.architecture, "run": run.record.id}
    needs = {key: adapter.record[key] for key in _INHERITED if key in adapter.record}
    settings = {key: rule.model_dump(mode="json") for key, rule in rules.keyed}
    run.update(
        resolved={
            **run.record.resolved,
            **origin,
            "parent_record": needs,
            "rule_settings": settings,
        }
    )
    checkpoint = newest_checkpoint(run.directory / CHECKPOINTS)
    samples = Samples(
        run.directory / SAMPLES_FILE,
        config.sampling,
        adapter.model,
        adapter.tokenizer,
        context=config.training.context,
        beginning=texts.validation[0].text[:_BEGINNING],
        after=0 if checkpoint is None else checkpoint.step,
    )
    metrics = train_rows(
        run,
        config,
        adapter.model,
        plan,
        rows,
        judged,
        collate_text,
        trainer=LanguageTrainer,
        rules=rules,
        origin=origin,
        callbacks=[*callbacks_of(config.surgery, adapter.model), samples],
        groups=groups_of(config.surgery),
    )
    if config.surgery.lora is not None:
        merge_lora(adapter.model)
    # Rules that change what the model computes belong to it here, too.
    with attach(structural(rules), adapter.model, seed=plan.seed):
        found = score(
            adapter.model,
            windows.validation,
            characters=windows.characters,
            rows=config.evaluation.rows,
        )
        if config.sampling.every != 0:
            samples.write(metrics["steps"])
    # What counting alone would reach: the first thing that a score has to be below.
    frequencies = unigram_nats(windows.train, windows.validation, run.record.resolved["vocab_size"])
    return {**metrics, **found.to_json(), "unigram_nats": frequencies}


def inherited_rules(adapter: BaseAdapter, name: str | Path | None) -> Chain:
    """The rules that a model needs because they changed what it computes when it was trained.

    Raises:
        RuleError: Their code is not part of the library.
    """
    needed = adapter.record.get("needs_rules") or []
    if needed and adapter.record.get("rule_code"):
        raise RuleError(
            f"{name} needs learning rules of its maker's own",
            why=f"they are in {', '.join(adapter.record['rule_code'])}, which is not run unasked",
            next_step="attach them in Python: load_rules, make_rules, attach",
        )
    return make_rules(needed)


def structural(rules: Chain) -> Chain:
    """The rules that change what a model computes in evaluation, too."""
    return Chain(rules=tuple(rule for rule in rules.rules if rule.changes_function))


def _record(
    run: Run, config: TextRunConfig, rules: Chain, metrics: dict[str, Any]
) -> dict[str, Any]:
    """What a model tells about its making."""
    return {
        "run": run.record.id,
        "kind": KIND,
        "config_hash": run.record.config_hash,
        "data_fingerprint": run.record.data_fingerprint,
        "context": config.training.context,
        "rules": [key for key, _ in rules.keyed],
        "needs_rules": [
            {rule.name: rule.model_dump(mode="json")} for rule in structural(rules).rules
        ],
        "rule_code": list(config.rule_code),
        "metrics": metrics,
    }


def _check_name(config: TextRunConfig, run: Run) -> None:
    """Refuse a name that is taken before the training, not after it."""
    name, registry = config.registry.publish, Registry(config.registry.root)
    if name is not None and not config.registry.overwrite and not _published(name, registry, run):
        registry.check_free(name)


def _published(name: str, registry: Registry, run: Run) -> bool:
    """Whether this very run entered its model already, before it was killed."""
    return any(one.model_name == name and one.run == run.record.id for one in registry.list())


def _publish(config: TextRunConfig, run: Run, metrics: dict[str, Any], rules: Chain) -> None:
    name, registry = config.registry.publish, Registry(config.registry.root)
    if name is not None and not _published(name, registry, run):
        registry.publish(
            run.directory / MODEL,
            name,
            fine_tuned_from=config.model_name,
            metrics=metrics,
            rules=[key for key, _ in rules.keyed],
            overwrite=config.registry.overwrite,
        )


def _describe(texts: Texts, windows: Windows, adapter: BaseAdapter) -> str:
    parameters = sum(weight.numel() for weight in adapter.model.parameters())
    shown = "" if adapter.parent is None else f" from {adapter.parent['model_name']}"
    lengths = np.asarray([len(document.text) for document in texts.train])
    return (
        f"{adapter.architecture}{shown}, {parameters:,} parameters; {int(lengths.sum()):,} "
        f"characters to train on ({windows.train.n_ids:,} tokens), {windows.characters:,} to score"
    )


def model_of(run: str | Path) -> Path:
    """The model folder of a run folder, or the folder itself."""
    folder = Path(run)
    return folder / MODEL if (folder / MODEL).is_dir() else folder
