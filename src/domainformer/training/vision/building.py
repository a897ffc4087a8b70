"""The parts of a run: the compressor upon its model, rows, the numbers of the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from domainformer.artifacts import read_facts, verify_directory
from domainformer.errors import ConfigError
from domainformer.models.vision import (
    CompressorConfig,
    ImageTokens,
    RelevanceCompressor,
    RelevanceRealizer,
)
from domainformer.models.vision.capabilities import VisionBase
from domainformer.models.vision.folder import FACTS as ADAPTER_FACTS
from domainformer.models.vision.folder import KIND as ADAPTER_KIND
from domainformer.models.vision.folder import VERSION as ADAPTER_VERSION
from domainformer.models.vision.folder import WEIGHTS as ADAPTER_WEIGHTS
from domainformer.training.plan import TrainPlan
from domainformer.training.trainer_parts import on_device
from domainformer.training.vision.collator import VisionCollator
from domainformer.training.vision.config import VisionRunConfig, VisionTrainingConfig
from domainformer.training.vision.rows import FeatureStore, VisionRows
from domainformer.training.vision.sources import Split

_EVALUATIONS = 10  # where eval_every is left open
# Settings of a compressor that its weights do not depend on.
_NO_WEIGHTS = ("min_tokens", "max_tokens", "budget_rule", "share", "merge")


def make_realizer(config: VisionRunConfig, model: nn.Module) -> RelevanceRealizer:
    """A frozen model with a new compressor, or with the one that training starts from.

    Raises:
        ConfigError: The compressor cannot be built as configured.
        VisionError: The model cannot be compressed.
        ArtifactError: The adapter to start from cannot be used.
    """
    # Weights follow from the seed alone, however the model came to be here.
    torch.manual_seed(config.training.seed)
    size = VisionBase.probe(model).feature_size
    settings = CompressorConfig.from_dict({**config.compressor, "feature_size": size})
    compressor = RelevanceCompressor(settings)
    if config.training.start_from is not None:
        start_from(compressor, Path(config.training.start_from))
    return RelevanceRealizer(model, compressor)


def start_from(compressor: RelevanceCompressor, folder: Path) -> None:
    """Give a new compressor the weights of an adapter.

    Its base may be another model: one that was trained further, or on larger grids. The weights
    are a beginning, and training fits them to the features of this one.

    Args:
        compressor: A new one.
        folder: An adapter folder.

    Raises:
        ArtifactError: The folder is missing, damaged or something else.
        ConfigError: Its compressor is built otherwise.
    """
    from safetensors.torch import load_file

    remedy = "give the adapter folder of a run, or leave training.start_from out"
    facts = read_facts(
        folder, ADAPTER_FACTS, kind=ADAPTER_KIND, version=ADAPTER_VERSION, remedy=remedy
    )
    verify_directory(folder)
    now, then = compressor.config.to_dict(), facts["selector"]
    changed = [
        f"{key}: {then.get(key)!r} there, {value!r} here"
        for key, value in now.items()
        if key not in _NO_WEIGHTS and then.get(key) != value
    ]
    if changed:
        raise ConfigError(
            "training cannot start from a compressor that is built otherwise",
            where=f"training.start_from: {folder}",
            why="\n         ".join(changed),
            next_step="configure the compressor as it is there",
        )
    compressor.load_state_dict(load_file(folder / ADAPTER_WEIGHTS))


def make_rows(
    split: Split,
    collator: VisionCollator,
    realizer: RelevanceRealizer,
    training: VisionTrainingConfig,
    tell: Callable[[str], None],
) -> tuple[VisionRows, VisionRows]:
    """Training and validation rows, with the tower's features where they fit.

    Raises:
        ConfigError: There is nothing to train on.
    """
    if not len(split.train):
        raise ConfigError("there are no questions to train on", where="data")
    train_rows = VisionRows(split.train, collator, seed=training.seed)
    judged = VisionRows(split.validation, collator, seed=None)

    def encode(**inputs: Any) -> ImageTokens:
        return realizer.encode(**on_device(inputs, realizer.model))

    store = FeatureStore(training.cache_features, getattr(torch, training.feature_dtype))
    if training.cache_features:
        for name, rows in (("training", train_rows), ("validation", judged)):
            fits = rows.cache(encode, store)
            tell(
                f"features of {name}: {store.size:,.0f} MB in all"
                if fits
                else f"features of {name} exceed training.cache_features: the tower runs each step"
            )
    return train_rows, judged


def plan_of(training: VisionTrainingConfig, place: torch.device) -> TrainPlan:
    """The numbers of the engine.

    Example:
        >>> plan = plan_of(VisionTrainingConfig(steps=50), torch.device("cpu"))
        >>> plan.steps, plan.rows, plan.eval_every, plan.save_every
        (50, 32, 5, 5)
    """
    steps = training.steps
    every = min(training.eval_every or max(1, steps // _EVALUATIONS), steps)
    return TrainPlan(
        steps=steps,
        rows=training.batch_size,
        learning_rate=training.learning_rate,
        schedule=training.schedule,
        warmup_ratio=training.warmup_ratio,
        final_rate=training.final_rate,
        betas=training.betas,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        eval_every=every,
        eval_rows=training.eval_questions,
        save_every=min(training.save_every or every, steps),
        log_every=min(training.log_every, steps),
        keep=training.keep,
        seed=training.seed,
        device=place.type,
    )
