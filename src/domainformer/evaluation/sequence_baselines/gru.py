"""``gru``: a recurrent network on the tokens that the Transformer reads.

::

    training histories ─▶ DomainTokenizer ─▶ windows ─▶ GRU ─▶ read at each example ─▶ label

The tokenizer is fitted on what training examples see. Training stops when the validation loss has
not improved for ``patience`` epochs and takes the best weights.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from transformers import TrainerCallback

from domainformer.errors import ConfigError, DataError
from domainformer.evaluation.contest.schemas import (
    GivenSchema,
    schema_of,
    training_events,
)
from domainformer.evaluation.sequence_baselines.holdout import with_validation
from domainformer.evaluation.sequence_baselines.reader_model import (
    Encoder,
    Reader,
    ReaderConfig,
    softened,
)
from domainformer.evaluation.sequence_baselines.reading import (
    Units,
    WindowRows,
    collate_windows,
    known_labels,
    read_windows,
)
from domainformer.evaluation.tasks import Task
from domainformer.tokenizers import DomainTokenizer
from domainformer.training.plan import TrainPlan, device
from domainformer.training.session import reproducible
from domainformer.training.trainer import EventTrainer

_KINDS = ("binary", "multiclass", "regression")


@dataclass(frozen=True)
class GRU:
    """A GRU over events or over tokens.

    Args:
        schema: A schema file, a preset, or a mapping; None: inferred from training histories.
        units: What a step of the network is: an event (the mean of its tokens' embeddings), a
            token, or "auto": both are trained, and the lower validation loss is taken.
        context: Most tokens of a history, as for the Transformer.
        width: Of embeddings and states.
        layers: Of the network.
        dropout: Of embeddings and states.
        epochs: Passes over the training windows, at most.
        patience: Epochs without a better validation loss before it stops.
        batch_rows: Windows per step.
        learning_rate: Peak of the cosine schedule.
        weight_decay: On matrices.
        bpe_vocab_size: Byte-pair tokens of text fields.
        refit: Train again on training and validation examples together, for as many epochs as were
            best (for tasks whose newest examples are the validation part).
        encoder: "gru", or "transformer": a causal Transformer in its place.
        threads: Processor threads; None leaves them.

    Raises:
        ConfigError: A number is below 1, or a choice is unknown.
    """

    schema: GivenSchema = None
    units: Units | str = "auto"
    context: int = 256
    width: int = 128
    layers: int = 1
    dropout: float = 0.2
    epochs: int = 20
    patience: int = 3
    batch_rows: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    bpe_vocab_size: int = 4096
    refit: bool = False
    encoder: Encoder = "gru"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name in ("width", "layers", "epochs", "patience", "batch_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)} and must be at least 1")
        if self.units not in ("auto", "events", "tokens"):
            raise ConfigError(
                f"there are no units {self.units!r}", next_step="auto, events, tokens"
            )

    @property
    def learns_from_validation(self) -> bool:
        """Whether validation labels do more than stop the training."""
        return self.refit

    def fit(
        self, task: Task, examples_train: pl.DataFrame, examples_valid: pl.DataFrame, seed: int
    ) -> FittedReader:
        """Train, stop by the validation examples.

        Raises:
            DataError: The task is a next_item task, there are too few examples, or no training
                example has any event.
        """
        if task.kind not in _KINDS:
            raise DataError(
                f"a GRU classifier does not answer a task of kind {task.kind!r}",
                where=f"task {task.name!r}",
                next_step="use a contestant for next items",
            )
        examples_train, examples_valid = with_validation(task, examples_train, examples_valid, seed)
        schema = schema_of(task, examples_train, self.schema)
        events = training_events(task, examples_train)
        tokenizer = DomainTokenizer(schema, bpe_vocab_size=self.bpe_vocab_size).fit(events)
        labels = known_labels(task, examples_train)
        scale = Scale.of(labels) if task.kind == "regression" else Scale()
        units: list[Any] = ["events", "tokens"] if self.units == "auto" else [self.units]
        fits = [
            self._train(task, tokenizer, one, examples_train, examples_valid, scale, seed)
            for one in units
        ]
        best = min(fits, key=lambda fitted: min(fitted.losses))
        if not self.refit:
            return best
        everything = pl.concat([examples_train, examples_valid])
        return self._train(
            task,
            tokenizer,
            best.units,
            everything,
            None,
            scale,
            seed,
            stop_after=int(np.argmin(best.losses)) + 1,
        )

    def _train(
        self,
        task: Task,
        tokenizer: DomainTokenizer,
        units: Units,
        train: pl.DataFrame,
        valid: pl.DataFrame | None,
        scale: Scale,
        seed: int,
        stop_after: int | None = None,
    ) -> FittedReader:
        with reproducible(seed, threads=self.threads):
            model = Reader(
                ReaderConfig(
                    vocab_size=tokenizer.vocab_size,
                    width=self.width,
                    layers=self.layers,
                    encoder=self.encoder,
                    dropout=self.dropout,
                    outputs=task.n_classes if task.kind == "multiclass" else 1,
                    objective=task.kind,
                )
            ).to(device())
            parts: list[WindowRows] = []
            for rows in (train, valid):
                if rows is not None:
                    windows = read_windows(tokenizer, task, rows, self.context, units)
                    labels = scale.down(known_labels(task, rows))
                    order = None if parts else seed
                    parts.append(WindowRows(windows, labels, seed=order))
            losses = self._run(model, parts, seed, stop_after)
        return FittedReader(model.eval(), tokenizer, units, self.context, scale, losses)

    def _run(
        self, model: Reader, parts: list[WindowRows], seed: int, stop_after: int | None
    ) -> list[float]:
        per_epoch = -(-len(parts[0]) // self.batch_rows)
        plan = TrainPlan(
            steps=per_epoch * self.epochs,
            rows=self.batch_rows,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            eval_every=per_epoch,
            save_every=per_epoch * self.epochs,
            log_every=per_epoch,
            keep=1,
            seed=seed,
        )
        watcher = EarlyStop(self.patience, stop_after)
        with tempfile.TemporaryDirectory() as folder:
            trainer = EventTrainer(
                model,
                plan,
                train_rows=parts[0],
                eval_rows=parts[1] if len(parts) > 1 else None,
                collate=collate_windows,
                checkpoint_root=Path(folder),
                callbacks=[watcher],
            )
            trainer.fit()
            if len(parts) > 1:
                trainer.load_best()
        return watcher.losses


@dataclass(frozen=True)
class Scale:
    """Numbers of a regression in standard deviations; labels of other tasks as they are.

    Args:
        center: Mean of the training labels.
        spread: Their standard deviation.
    """

    center: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, labels: npt.NDArray[Any]) -> Scale:
        """Of some labels; a spread of 0 counts as 1."""
        return cls(float(labels.mean()), float(labels.std()) or 1.0)

    def down(self, labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """To standard deviations."""
        return labels if self == Scale() else (labels - self.center) / self.spread


class EarlyStop(TrainerCallback):
    """Keeps validation losses; stops when they have not improved, or after so many epochs.

    Args:
        patience: Evaluations without a better loss.
        stop_after: Epochs, where there is no validation part.
    """

    def __init__(self, patience: int, stop_after: int | None = None) -> None:
        self.patience = patience
        self.stop_after = stop_after
        self.losses: list[float] = []

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """Look at the newest loss."""
        self.losses.append(float(metrics["eval_loss"]))
        if len(self.losses) - 1 - int(np.argmin(self.losses)) >= self.patience:
            control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count epochs."""
        if self.stop_after is not None and round(state.epoch) >= self.stop_after:
            control.should_training_stop = True


@dataclass(frozen=True, eq=False)
class FittedReader:
    """A trained network with its tokenizer.

    Args:
        model: In evaluation mode.
        tokenizer: How events are read.
        units: What a step is.
        context: Most tokens of a window.
        scale: Of a regression.
        losses: Validation loss of every epoch; empty after a refit.
    """

    model: Reader
    tokenizer: DomainTokenizer
    units: Units
    context: int
    scale: Scale = field(default_factory=Scale)
    losses: list[float] = field(default_factory=list)

    @torch.no_grad()
    def predict(self, task: Task, examples: pl.DataFrame) -> npt.NDArray[np.float64]:
        """``[n]`` (chance of 1, or the number), or ``[n, classes]``, in the examples' order."""
        windows = read_windows(self.tokenizer, task, examples, self.context, self.units)
        windows.sort(key=lambda window: len(window.offsets))
        objective = self.model.config.objective
        out = np.empty((examples.height, self.model.config.outputs))
        for start in range(0, len(windows), 64):
            chosen = windows[start : start + 64]
            rows = WindowRows(chosen, None)
            batch = collate_windows([rows[i] for i in range(len(chosen))])
            batch = {name: values.to(self.model.device) for name, values in batch.items()}
            said = softened(self.model(**batch).logits.double(), objective)
            places = np.concatenate([window.examples for window in chosen])
            out[places] = said.reshape(len(places), -1).cpu().numpy()
        if objective == "multiclass":
            return out
        return out[:, 0] * self.scale.spread + self.scale.center
