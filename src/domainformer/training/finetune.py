"""``finetune``: a pretrained model learns to classify entities by their histories.

Each entity is one row: the newest events that fit the context, classified at the last of them::

    BOS e₁ e₂ … eₙ ─▶ Transformer ─▶ hidden state of the last token ─▶ linear head ─▶ class

``full`` trains everything, ``head`` the linear head alone on a frozen backbone, ``lora`` the head
and low-rank additions to the backbone's matrices (see ``lora.py``). The test entities
are those that pretraining held out, where it split by entity.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from pydantic import Field, model_validator

from domainformer.config import StrictConfig, apply_overrides, build
from domainformer.data import Budgets, EventTable
from domainformer.data.dataset import DomainSequenceDataset
from domainformer.data.splits import ROLE_NAMES, Split, split_by_entity
from domainformer.data.tokens import TokenizedEvents
from domainformer.errors import ConfigError, DataError
from domainformer.inference import Bundle, load_bundle, save_bundle
from domainformer.models import Collator, DomainTransformerForSequenceClassification
from domainformer.run import Run
from domainformer.training.config import TrainingConfig
from domainformer.training.lora import LoraConfig, add_lora, merge_lora
from domainformer.training.objective_config import ObjectiveWeights
from domainformer.training.plan import autocast, device
from domainformer.training.running import MODEL, RunResult, open_run, plan_of, result_of, train
from domainformer.training.session import reproducible
from domainformer.training.targets import UNLABELLED, Targets, read_targets, score

_BUCKET = 256  # rows among which neighbours are sorted by length
PREDICTIONS = "predictions.parquet"
Mode = Literal["full", "head", "lora"]


class FinetuneTraining(TrainingConfig):
    """The optimisation of a fine-tuning: gentler, several epochs, one history per row."""

    batch_tokens: int | Literal["auto"] = 4096
    learning_rate: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    packed: Literal[False] = False

    @model_validator(mode="after")
    def _classes_are_the_objective(self) -> FinetuneTraining:
        names = {"objectives", *ObjectiveWeights.model_fields} & set(TrainingConfig.model_fields)
        if self.model_dump(include=names) != TrainingConfig().model_dump(include=names):
            raise ValueError("objectives belong to pretraining; here the classes are learned")
        return self


class FinetuneConfig(StrictConfig):
    """Everything that decides a fine-tuning, beside the table.

    Args:
        model: The bundle to start from.
        label: The label's column.
        mode: ``full``, ``head`` or ``lora``.
        lora: Rank, factor and places of the additions, for ``lora``.
        fractions: Shares of training, validation and test entities.
        split_seed: Of the assignment of entities.
        training: The optimisation; its ``context`` follows the model where it is not given.
    """

    model: str
    label: str
    mode: Mode = "full"
    lora: LoraConfig = LoraConfig()
    fractions: tuple[float, float, float] = (0.7, 0.1, 0.2)
    split_seed: int = 0
    training: FinetuneTraining = FinetuneTraining(epochs=5)


class LabelledRows:
    """Rows of histories with the class of each, neighbours of similar length.

    Args:
        rows: One row per entity.
        codes: Class of each entity [n_entities].
    """

    def __init__(self, rows: DomainSequenceDataset, codes: np.ndarray) -> None:
        self._rows = rows
        self._codes = codes
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle by (seed, epoch), then sort within buckets: less padding, order still random."""
        self._rows.set_epoch(epoch)
        lengths = self._rows.row_lengths
        buckets = np.arange(len(lengths)) // _BUCKET
        self._order = np.lexsort((lengths, buckets))

    @property
    def row_lengths(self) -> np.ndarray:
        """Tokens of each row, in the order of this epoch."""
        return self._rows.row_lengths[self._order]

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self._rows[int(self._order[index])]
        return {**row, "target": self._codes[row["entity"][0]]}


@dataclass(frozen=True)
class TargetCollator:
    """Padded histories with one class per row as ``labels``.

    Args:
        collate: Pads the histories.
    """

    collate: Collator

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Batch the rows."""
        batch: dict[str, Any] = self.collate(rows)
        batch["labels"] = torch.tensor([int(row["target"]) for row in rows])
        return batch


def finetune(
    model: str | Path,
    table: EventTable,
    label: str,
    *,
    label_table: str | Path | pl.DataFrame | None = None,
    mode: Mode = "full",
    split: Split | None = None,
    output: str | Path = "runs/finetuned",
    overrides: Sequence[str] = (),
) -> RunResult:
    """Train a classifier of entities, starting from a pretrained model.

    Args:
        model: The bundle's folder.
        table: Events with the columns of the model's schema.
        label: The label's column: constant within each entity, null where it is not known.
        label_table: Table with the label, one row per entity; None: the events have it.
        mode: ``full`` trains all weights, ``head`` only the new linear head, ``lora`` the head
            and low-rank additions, which are merged into the weights at the end.
        split: By entity; None: as pretraining split, or a new one.
        output: The run folder to make.
        overrides: Dotted overrides of :class:`FinetuneConfig`, such as ``training.epochs=3``;
            ``training.resume=true`` continues the run in ``output``.

    Returns:
        The run: the classifier's bundle, ``predictions.parquet`` of the test entities, and as
        metrics ``test_auroc``, ``test_accuracy``, ``test_log_loss``, ``test_majority_accuracy``.

    Raises:
        ConfigError: The configuration or split cannot be used.
        DataError: Labels are missing, vary within an entity, or are part of the schema.
        MissingExtraError: LoRA was asked for and peft is not installed.
    """
    bundle = load_bundle(model)
    config = _configure(model, label, mode, overrides, bundle)
    if label in {field.source for field in bundle.schema.fields}:
        raise DataError(
            f"the label {label!r} is a field of the model's schema",
            why="the model reads it in every event, so predicting it would prove nothing",
            next_step="pretrain with data.label set, or take another label",
        )
    targets = read_targets(table, label, label_table)
    split = split or _split(table, bundle, config)
    roles = _entity_roles(table, split)
    output = Path(output)
    run = open_run(str(output.parent), output.name, config, kind="finetune")
    if run.record.status == "finished":
        return result_of(run)
    with run, reproducible(config.training.seed, threads=config.training.threads):
        run.update(
            data_fingerprint=table.fingerprint(),
            schema_fingerprint=bundle.schema.fingerprint(),
            tokenizer_fingerprint=bundle.tokenizer.fingerprint,
            split=split.record,
        )
        events, budgets = bundle.encode(table), bundle.tokenizer.budgets
        parts = _parts(events, targets, roles, config.training, budgets)
        classifier = _classifier(bundle, targets, config)
        collate = TargetCollator(Collator(bundle.tokenizer.pad_id, packed=False))
        train_rows = parts["train"]
        plan = plan_of(run, config.training, classifier, train_rows, collate)
        validation = parts.get("validation")
        metrics = train(run, config, classifier, plan, train_rows, validation, collate)
        if config.mode == "lora":
            merge_lora(classifier)
        test = parts["test"]
        probabilities, codes, entities = predict(classifier, test, collate, plan.rows, plan.bf16)
        metrics |= {f"test_{name}": value for name, value in score(probabilities, codes).items()}
        _write_predictions(run, table, targets, test, probabilities, codes, entities, roles)
        record = {
            **bundle.record,
            "run": run.record.id,
            "kind": "finetune",
            "pretrained": bundle.record.get("run"),
            "task": {"label": label, "classes": [str(name) for name in targets.classes]},
            "split": split.record,
            "metrics": metrics,
        }
        save_bundle(
            run.directory / MODEL,
            classifier,
            bundle.tokenizer,
            record,
            merges=bundle.merges,
            overwrite=True,
        )
        run.finish(metrics)
    return result_of(run)


def predict(
    model: Any, rows: LabelledRows, collate: TargetCollator, batch_rows: int, bf16: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class probabilities [n, classes], true classes [n] and entity indices [n]."""
    model.eval()
    probabilities, codes, entities = [], [], []
    for start in range(0, len(rows), batch_rows):
        chosen = [rows[i] for i in range(start, min(start + batch_rows, len(rows)))]
        inputs = {k: v.to(model.device) for k, v in collate(chosen).items()}
        codes.append(inputs.pop("labels").cpu().numpy())
        with torch.inference_mode(), autocast(model.device, bf16):
            logits = model(**inputs).logits
        probabilities.append(logits.double().softmax(-1).cpu().numpy())
        entities.append([int(row["entity"][0]) for row in chosen])
    return np.concatenate(probabilities), np.concatenate(codes), np.concatenate(entities)


def _configure(
    model: str | Path, label: str, mode: str, overrides: Sequence[str], bundle: Bundle
) -> FinetuneConfig:
    values: dict[str, Any] = {"model": str(model), "label": label, "mode": mode}
    values["training"] = {"context": bundle.context}
    if mode != "full":
        values["training"]["learning_rate"] = 3e-3
    values = apply_overrides(values, overrides)
    if not {"epochs", "max_steps", "max_tokens"} & values["training"].keys():
        values["training"]["epochs"] = 5
    return build(FinetuneConfig, values)


def _split(table: EventTable, bundle: Bundle, config: FinetuneConfig) -> Split:
    # Entities that pretraining held out stay held out.
    record = bundle.record.get("split") or {}
    if record.get("kind") == "entity":
        return Split.from_record(table, record)
    return split_by_entity(table, fractions=config.fractions, seed=config.split_seed)


def _entity_roles(table: EventTable, split: Split) -> np.ndarray:
    if split.kind != "entity" or len(split.roles) != table.n_events:
        raise ConfigError(
            "classifying entities needs a split of these entities",
            why=f"the split is by {split.kind}, of {len(split.roles):,} events",
            next_step="pass split=split_by_entity(table)",
        )
    return split.roles[table.offsets[:-1]]


def _parts(
    events: TokenizedEvents,
    targets: Targets,
    roles: np.ndarray,
    training: TrainingConfig,
    budgets: Budgets | None,
) -> dict[str, LabelledRows]:
    """Rows of each part; entities without a label are left out."""
    parts = {}
    for role, name in enumerate(ROLE_NAMES):
        chosen = np.flatnonzero((roles == role) & (targets.codes != UNLABELLED))
        if len(chosen):
            rows = DomainSequenceDataset(
                events.take_entities(chosen),
                context=training.context,
                packed=False,
                keep="newest",
                train_roles=None,
                seed=training.seed,
                shuffle=name == "train",
                budgets=budgets,
            )
            parts[name] = LabelledRows(rows, targets.codes[chosen])
        elif name != "validation":
            raise DataError(
                f"no entity of the {name} part has a label",
                next_step="check the label's column and the split",
            )
    return parts


def _classifier(
    bundle: Bundle, targets: Targets, settings: FinetuneConfig
) -> DomainTransformerForSequenceClassification:
    config = copy.deepcopy(bundle.model.config)
    config.num_labels = len(targets.classes)
    config.id2label = {code: str(name) for code, name in enumerate(targets.classes)}
    config.label2id = {name: code for code, name in config.id2label.items()}
    config.problem_type = "single_label_classification"
    model = DomainTransformerForSequenceClassification(config)
    model.model.load_state_dict(bundle.model.model.state_dict())
    if settings.mode == "head":
        model.model.requires_grad_(requires_grad=False)
    elif settings.mode == "lora":
        add_lora(model, settings.lora)
    return model.to(device())


def _write_predictions(
    run: Run,
    table: EventTable,
    targets: Targets,
    rows: LabelledRows,
    probabilities: np.ndarray,
    codes: np.ndarray,
    entities: np.ndarray,
    roles: np.ndarray,
) -> None:
    test = ROLE_NAMES.index("test")
    chosen = np.flatnonzero((roles == test) & (targets.codes != UNLABELLED))
    frame = pl.DataFrame(
        {
            table.entity: table.entity_ids.gather(chosen[entities]),
            "label": pl.Series([targets.classes[code] for code in codes]),
            **{
                f"probability_{name}": probabilities[:, code]
                for code, name in enumerate(targets.classes)
            },
        }
    )
    frame.write_parquet(run.directory / PREDICTIONS)
