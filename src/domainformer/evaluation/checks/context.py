"""What a check is given: the model, how much it may ask, and data whose entropy is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import torch

from domainformer.evaluation.checks.source import MarkovSource, TextWindows
from domainformer.evaluation.checks.subject import Batch, Subject
from domainformer.models.universal.verdict import CheckResult

_CLASSIFIER_BATCHES = 4

Check = Callable[["Context"], CheckResult]


class Source(Protocol):
    """Where rows of ids come from."""

    def draw(self, rows: int, length: int, *, seed: int, held_out: bool = False) -> torch.Tensor:
        """Ids [rows, length]; those that are held out are never drawn for training."""
        ...


@dataclass
class Context:
    """Everything that a check may use.

    Args:
        subject: The model.
        length: Tokens per row.
        rows: Rows of a training step.
        steps: Of each short training.
        trials: Of the hyper-parameter probe.
        seconds: Most time that one training may take.
        seed: Of everything that is drawn.
        trained: Whether the model was trained before; None: not known.
        text: Windows of the user's text, if there is one.
        export_format: Of the export check.
        notes: What one check leaves for a later one, such as the best learning rate.
    """

    subject: Subject
    length: int = 16
    rows: int = 16
    steps: int = 120
    trials: int = 6
    seconds: float = 60.0
    seed: int = 0
    trained: bool | None = None
    text: TextWindows | None = None
    export_format: str = "onnx"
    notes: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def markov(self) -> MarkovSource:
        """A source of known entropy, in ids of the model."""
        return MarkovSource.for_vocabulary(self.subject.vocab_size, seed=self.seed)

    @property
    def source(self) -> Source:
        """The user's text, or the source of known entropy."""
        return self.text or self.markov

    def training_batch(self, step: int) -> Batch:
        """What a step of a short training sees: new rows of the source.

        A classifier's labels are random, so that it sees the same few batches again and again.
        """
        if self.subject.kind == "classifier":
            return self.subject.batch(self.rows, self.length, seed=step % _CLASSIFIER_BATCHES)
        ids = self.source.draw(self.rows, self.length, seed=self.seed + step)
        return self.subject.batch_of(ids, seed=step)

    @property
    def asked(self) -> dict[str, Any]:
        """What the probes take."""
        return {
            "vocab_size": self.subject.vocab_size,
            "length": self.length,
            "seed": self.seed,
        }

    @property
    def asked_there(self) -> dict[str, Any]:
        """The same, for probes that make their own tensors."""
        return {**self.asked, "device": self.subject.device}
