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
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from huggingface_hub.errors import StrictDataclassError

from domainformer.data import EventTable
from domainformer.data.tabular import TabularSchema
from domainformer.errors import ConfigError, DataError, nearest
from domainformer.inference import Bundle
from domainformer.inference.fusion import (
    FusionInputs,
    FusionPredictor,
    FusionTarget,
    events_of,
    read_histories,
)
from domainformer.models import DomainTransformerConfig, JointFusionConfig, JointFusionModel
from domainformer.schema import DomainSchema
from domainformer.tokenizers import DomainTokenizer
from domainformer.training.engine import model_settings
from domainformer.training.fusion_config import FusionConfig
from domainformer.training.fusion_targets import (
    Labels,
    encode_labels,
    labelled,
    read_fusion_targets,
)
from domainformer.training.fusion_trainer import FusionRows, train_fusion
from domainformer.training.plan import device
from domainformer.training.session import reproducible

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
        parts: list[FusionRows] = []
        for rows in (frame, validation):
            histories = None
            if tokenizer is not None:
                histories = read_histories(tokenizer, rows, events, key, config.context)
            parts.append(
                FusionRows(
                    FusionInputs(histories, tabular.encode(rows)),
                    encode_labels(rows, targets),
                    bucket=_BUCKET_BATCHES * config.batch_rows,
                    seed=None if parts else config.seed,
                )
            )
        if model.tabular is not None and model.tabular.numbers is not None:
            model.tabular.numbers.fit(parts[0].inputs.tabular.numbers)
        pad_id = 0 if tokenizer is None else tokenizer.pad_id
        record = train_fusion(model.to(device()), parts[0], parts[1], pad_id, config)
    record["settings"] = config.model_dump(mode="json")
    return FusionPredictor(model, tabular, targets, key, tokenizer, config.context, record)


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
