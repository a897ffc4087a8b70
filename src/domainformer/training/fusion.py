"""``fit_fusion``: a backbone over events and a tabular encoder, trained together on labels.

::

    group      what                                   learning rate      weight decay
    backbone   the Transformer (pretrained or new)    rates.backbone     weight_decay
    tabular    embeddings, deep branch                rates.tabular      weight_decay
    cross      DCNv2 layers                           rates.tabular      cross_weight_decay
    head       LayerNorm of the history, MLP          rates.head         weight_decay

Training goes through :class:`~domainformer.training.trainer.EventTrainer`; it stops when the
validation loss has not improved for ``patience`` evaluations and takes the best weights. The
scaler, the categories and (where no bundle is given) the tokenizer see training rows alone.
"""

from __future__ import annotations

import copy
import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import TrainerCallback

from domainformer.data import EventTable
from domainformer.data.tabular import TabularSchema
from domainformer.errors import ConfigError, DataError, nearest
from domainformer.inference import Bundle
from domainformer.inference.fusion import (
    FusionInputs,
    FusionPredictor,
    FusionTarget,
    collate_fusion,
    events_of,
    read_histories,
)
from domainformer.models import DomainTransformerConfig, JointFusionConfig, JointFusionModel
from domainformer.models.numeric import FeatureLinear
from domainformer.schema import DomainSchema
from domainformer.tokenizers import DomainTokenizer
from domainformer.training.engine import model_settings
from domainformer.training.fusion_config import FusionConfig
from domainformer.training.fusion_targets import (
    Floats,
    Labels,
    encode_labels,
    labelled,
    read_fusion_targets,
)
from domainformer.training.optimizer import choose_precision
from domainformer.training.plan import TrainPlan, device
from domainformer.training.session import reproducible
from domainformer.training.trainer import EventTrainer

_BUCKET_BATCHES = 16  # batches among which neighbours are sorted by length


def fit_fusion(
    frame: pl.DataFrame,
    labels: Labels,
    *,
    events: EventTable | None = None,
    validation: pl.DataFrame | None = None,
    key: str | None = None,
    bundle: Bundle | None = None,
    schema: DomainSchema | None = None,
    config: FusionConfig | None = None,
) -> FusionPredictor:
    """Train a model of histories, tabular features, or both, end to end.

    Args:
        frame: Training rows, one per example: the key, the labels, and features (all else).
        labels: A label column, several, or columns with their kind (``binary``, ``multiclass``,
            ``regression``). A null label is not known; a row without any is left out.
        events: Histories, cut off where each example may no longer see; None: features alone.
        validation: Rows to stop by; None: a share of ``frame``. Give them where an entity has
            several rows: a random share would not hold it out.
        key: Column of the frame that names the events' entity; None: the events' own name.
        bundle: A pretrained model to start from; None: a new tokenizer and backbone.
        schema: Of the events, where no bundle is given.
        config: The settings.

    Returns:
        The predictor with the best weights; ``record`` has the losses of every evaluation.

    Raises:
        DataError: Labels, keys, features or events cannot be used.
        ConfigError: Settings that do not fit, or events without bundle and schema.

    Example:
        >>> rows = np.random.default_rng(0).normal(size=(80, 2))
        >>> frame = pl.DataFrame({"a": rows[:, 0], "b": rows[:, 1], "late": rows[:, 0] > 0})
        >>> predictor = fit_fusion(frame, "late", config=FusionConfig(epochs=2, batch_rows=16))
        >>> predictor.predict(frame).shape, len(predictor.record["losses"])
        ((80, 1), 2)
    """
    config = config or FusionConfig()
    key = key or ("example" if events is None else events.entity)
    targets = read_fusion_targets(frame, labels)
    frame = labelled(frame, targets)
    if validation is None:
        frame, validation = _hold_out(frame, config)
        targets = read_fusion_targets(frame, {each.name: each.kind for each in targets})
    validation = labelled(validation, targets)
    with reproducible(config.seed, threads=config.threads):
        tabular = TabularSchema.fit(
            frame,
            exclude=(key, *(target.name for target in targets)),
            min_count=config.min_category_count,
        )
        tokenizer = None
        if events is not None:
            tokenizer = _tokenizer(events, frame, key, targets, bundle, schema, config)
        model = _model(tabular, targets, tokenizer, bundle, config)
        parts: list[_Rows] = []
        for rows in (frame, validation):
            histories = None
            if tokenizer is not None:
                histories = read_histories(tokenizer, rows, events, key, config.context)
            parts.append(
                _Rows(
                    FusionInputs(histories, tabular.encode(rows)),
                    encode_labels(rows, targets),
                    bucket=_BUCKET_BATCHES * config.batch_rows,
                    seed=None if parts else config.seed,
                )
            )
        if model.tabular is not None and model.tabular.numbers is not None:
            model.tabular.numbers.fit(parts[0].inputs.tabular.numbers)
        pad_id = 0 if tokenizer is None else tokenizer.pad_id
        record = _train(model.to(device()), parts[0], parts[1], pad_id, config)
    record["settings"] = config.model_dump(mode="json")
    return FusionPredictor(model, tabular, targets, key, tokenizer, config.context, record)


class FusionTrainer(EventTrainer):
    """The engine with a learning rate for each part of a fusion model.

    Args:
        model: The fusion model.
        plan: The resolved numbers.
        config: Learning rates and decays.
        **kwargs: As for :class:`~domainformer.training.trainer.EventTrainer`.
    """

    def __init__(
        self, model: JointFusionModel, plan: TrainPlan, *, config: FusionConfig, **kwargs: Any
    ) -> None:
        self._config = config
        super().__init__(model, plan, **kwargs)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over :func:`fusion_groups`."""
        groups = fusion_groups(self.model, self._config)
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, fused=True)
        return self.optimizer

    def count_targets(self, labels: torch.Tensor) -> int:
        """Rows with at least one known label."""
        return int((~torch.isnan(labels)).any(dim=1).sum())


def fusion_groups(model: JointFusionModel, config: FusionConfig) -> list[dict[str, Any]]:
    """Trainable parameters by part and decay, each with its learning rate.

    Example:
        >>> model = JointFusionModel(JointFusionConfig(n_numbers=2))
        >>> [(g["name"], g["lr"], g["weight_decay"]) for g in fusion_groups(model, FusionConfig())]
        [('cross', 0.001, 0.05), ('cross', 0.001, 0.0), ('head', 0.001, 0.01), ('head', 0.001, 0.0),
         ('tabular', 0.001, 0.01), ('tabular', 0.001, 0.0)]
    """
    rates, decays = config.rates, {"cross": config.cross_weight_decay}
    lines = {"backbone": rates.backbone, "tabular": rates.tabular, "cross": rates.tabular}
    # What decays is the weight of a linear layer; embeddings, frequencies and norms do not.
    matrices = {
        id(module.weight)
        for module in model.modules()
        if isinstance(module, (nn.Linear, FeatureLinear))
    }
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = _part(name)
            groups.setdefault((part, id(parameter) in matrices), []).append(parameter)
    return [
        {
            "name": part,
            "params": parameters,
            "lr": lines.get(part, rates.head),
            "weight_decay": decays.get(part, config.weight_decay) if decayed else 0.0,
        }
        for (part, decayed), parameters in sorted(
            groups.items(), key=lambda item: (item[0][0], not item[0][1])
        )
    ]


def _part(name: str) -> str:
    if name.startswith("tabular.cross."):
        return "cross"
    first = name.split(".", 1)[0]
    return first if first in ("backbone", "tabular") else "head"


class _Rows:
    """Examples with labels, as the trainer asks for them; neighbours of similar length."""

    def __init__(
        self, inputs: FusionInputs, labels: Floats, *, bucket: int, seed: int | None
    ) -> None:
        self.inputs = inputs
        self._labels = labels
        self._bucket = bucket
        self._seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle by (seed, epoch), then sort within buckets: less padding, order still random."""
        order = np.arange(len(self.inputs))
        if self._seed is not None:
            order = np.random.default_rng((self._seed, epoch)).permutation(order)
            if self.inputs.histories is not None:
                buckets = np.arange(len(order)) // self._bucket
                order = order[np.lexsort((self.inputs.lengths[order], buckets))]
        self._order = order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        place = int(self._order[index])
        return {**self.inputs[place], "labels": self._labels[place]}


@dataclass
class _Patience(TrainerCallback):
    """Keeps the validation losses, and stops when they have not improved for a while."""

    patience: int

    def __post_init__(self) -> None:
        self.losses: list[float] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """Look at the newest loss."""
        self.losses.append(float(metrics["eval_loss"]))
        best = int(np.nanargmin(self.losses)) if np.isfinite(self.losses).any() else 0
        if len(self.losses) - 1 - best >= self.patience:
            control.should_training_stop = True


def _train(
    model: JointFusionModel, train: _Rows, valid: _Rows, pad_id: int, config: FusionConfig
) -> dict[str, Any]:
    per_epoch = -(-len(train) // config.batch_rows)
    steps, eval_every = config.length(per_epoch)
    plan = TrainPlan(
        steps=steps,
        rows=config.batch_rows,
        warmup_ratio=config.warmup_ratio,
        max_grad_norm=config.max_grad_norm,
        bf16=choose_precision(config.precision, device(), model.config.hidden_size) == "bf16",
        eval_every=eval_every,
        save_every=steps,  # the best are saved whenever they are found
        log_every=min(eval_every, 50),
        keep=1,
        seed=config.seed,
    )
    watcher = _Patience(config.patience)
    with tempfile.TemporaryDirectory() as folder:
        trainer = FusionTrainer(
            model,
            plan,
            config=config,
            train_rows=train,
            eval_rows=valid,
            collate=partial(collate_fusion, pad_id=pad_id),
            checkpoint_root=Path(folder),
            callbacks=[watcher],
        )
        trainer.fit()
        best = trainer.load_best()
    model.eval()
    return {
        "losses": watcher.losses,
        "best_epoch": best // per_epoch,
        "parameters": model.num_parameters(),
        "train_rows": len(train),
        "validation_rows": len(valid),
    }


def _hold_out(frame: pl.DataFrame, config: FusionConfig) -> tuple[pl.DataFrame, pl.DataFrame]:
    held = round(frame.height * config.validation_share)
    if not 0 < held < frame.height:
        raise DataError(
            f"{frame.height} labelled rows are too few to hold some out",
            next_step="give more rows, or validation=…",
        )
    order = np.random.default_rng((config.seed, 1)).permutation(frame.height)
    return frame[np.sort(order[held:])], frame[np.sort(order[:held])]


def _tokenizer(
    events: EventTable,
    frame: pl.DataFrame,
    key: str,
    targets: Sequence[FusionTarget],
    bundle: Bundle | None,
    schema: DomainSchema | None,
    config: FusionConfig,
) -> DomainTokenizer:
    if (bundle is None) == (schema is None):
        raise ConfigError(
            "events need a bundle or a schema, one of them",
            next_step="pass bundle=load_bundle(…), or schema=infer_schema(table).schema",
        )
    known = bundle.schema if bundle is not None else schema
    fields = known.fields if known is not None else []
    told = {field.source for field in fields} & {target.name for target in targets}
    if told:
        raise DataError(
            f"the label {min(told)!r} is a field of the events' schema",
            why="the model reads it in every event, so predicting it would prove nothing",
            next_step="take the field out of the schema, or take another label",
        )
    if bundle is not None and bundle.merges is not None:
        raise DataError(
            "joint fusion cannot start from a model of merged tokens",
            why="it encodes events field by field",
            next_step="start from a model without tokenizer.merges, or join its embeddings: embed",
        )
    if bundle is not None:
        return bundle.tokenizer
    if key not in frame.columns:
        raise DataError(
            f"there is no key column {key!r}",
            where="the training rows",
            next_step="name the column that holds the events' entity: key=…",
        )
    assert schema is not None
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=config.bpe_vocab_size)
    return tokenizer.fit(events_of(events, frame[key]))


def _model(
    tabular: TabularSchema,
    targets: Sequence[FusionTarget],
    tokenizer: DomainTokenizer | None,
    bundle: Bundle | None,
    config: FusionConfig,
) -> JointFusionModel:
    follows = {"backbone", "n_numbers", "category_sizes", "targets"} & config.model.keys()
    if follows:
        what = f"{min(follows)} follows from the data"
        raise ConfigError(what, where="model", next_step="leave it out")
    backbone: DomainTransformerConfig | None = None
    if tokenizer is not None and bundle is not None:
        backbone = copy.deepcopy(bundle.model.config)
    elif tokenizer is not None:
        backbone = model_settings(config.backbone, tokenizer.vocab_size, config.context)
    fields = {field.name for field in dataclasses.fields(JointFusionConfig)}
    for name in config.model:
        if name not in fields:
            raise ConfigError(
                f"the fusion model has no setting {name!r}",
                where="model",
                next_step=nearest(name, fields),
            )
    try:
        settings = JointFusionConfig(
            backbone=backbone,
            n_numbers=len(tabular.numbers),
            category_sizes=tabular.sizes,
            targets=[_settings_of(target, config.target_weights) for target in targets],
            **config.model,
        )
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ConfigError(
            "the fusion model cannot be built", where="model", why=str(error.__cause__ or error)
        ) from error
    model = JointFusionModel(settings)
    if bundle is not None and model.backbone is not None:
        model.backbone.load_state_dict(bundle.model.base_model.state_dict())
    if model.backbone is not None and config.rates.backbone == 0:
        model.backbone.requires_grad_(requires_grad=False)
    return model


def _settings_of(target: FusionTarget, weights: dict[str, float]) -> dict[str, Any]:
    return {
        "name": target.name,
        "kind": target.kind,
        "outputs": target.outputs,
        "weight": weights.get(target.name, 1.0),
        "center": target.center,
        "scale": target.scale,
    }
