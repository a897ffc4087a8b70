"""What an objective is: what it reads from a row, what it adds to a batch, what it asks of a model.

::

    DomainSequenceDataset ─▶ ObjectiveRows ─▶ ObjectiveCollator ─▶ ObjectiveModel
                              reader(i, row)    batch(rows)                loss(model, batch)

A loss is a *sum* over its terms, and the batch says beforehand how many there are. So the mean over
an optimizer step is exact, in however many passes it is accumulated. A new objective is one class.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from domainformer.data.dataset import DomainSequenceDataset
from domainformer.models import Collator

Row = dict[str, Any]
Reader = Callable[[int, Row], Row]
COUNT = "_count"  # ending of the key that holds an objective's number of terms
STATES = "row_states"  # key of the rows' hidden states, for objectives that read them


class Objective(nn.Module, ABC):
    """One thing to learn from, beside next tokens. Its parameters are trained with the model's.

    Attributes:
        name: Its name in the configuration and the log.
        reads_states: Whether it reads the hidden states of the rows themselves: `loss` then finds
            them in the batch, [B, L, W], and the backbone runs once for it and for next tokens.
    """

    name: str
    reads_states: ClassVar[bool] = False

    @abstractmethod
    def reader(self, dataset: DomainSequenceDataset) -> Reader:
        """What the objective takes from a row of the data set, as keys of its own.

        Everything random in it is a function of (seed, epoch, position).
        """

    @abstractmethod
    def batch(self, rows: Sequence[Mapping[str, Any]]) -> Row:
        """Tensors for some rows, and ``{name}_count``, the number of the loss's terms."""

    @abstractmethod
    def loss(self, model: Any, batch: Mapping[str, Any]) -> torch.Tensor:
        """Sum of the loss's terms.

        Args:
            model: A causal language model.
            batch: Everything that `batch` added, and the rows' states where they are read.
        """


class ObjectiveRows:
    """Rows of a data set with what the objectives take from them.

    Args:
        rows: The data set.
        objectives: The objectives.
    """

    def __init__(self, rows: DomainSequenceDataset, objectives: Sequence[Objective]) -> None:
        self._rows = rows
        self._readers = [objective.reader(rows) for objective in objectives]

    def set_epoch(self, epoch: int) -> None:
        """Order the rows anew."""
        self._rows.set_epoch(epoch)

    @property
    def row_lengths(self) -> Any:
        """Tokens of each row, in the order of this epoch."""
        return self._rows.row_lengths

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        row: Row = dict(self._rows[index])
        for reader in self._readers:
            row |= reader(index, row)
        return row


class ObjectiveCollator:
    """Batches of rows with what the objectives need.

    Args:
        collate: Batches the rows themselves.
        objectives: The objectives.
    """

    def __init__(self, collate: Collator, objectives: Sequence[Objective]) -> None:
        self._collate, self._objectives = collate, objectives

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> Row:
        """Batch the rows."""
        batch: Row = self._collate(rows)
        for objective in self._objectives:
            batch |= objective.batch(rows)
        return batch
