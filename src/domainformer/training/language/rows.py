"""Windows of text as rows of the engine: L inputs, and what each of them shall say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from domainformer.data.text_windows import TextWindows
from domainformer.training.trainer import EventTrainer
from domainformer.training.trainer_parts import Batch

TARGETS = "shift_labels"  # what the losses of transformers call labels that are shifted already
IGNORED = -100


class LanguageRows:
    """Windows of L + 1 ids as rows of L inputs and L targets: no position is run for nothing.

    ::

        window    t o ␣ b e
        inputs    t o ␣ b
        targets   o ␣ b e

    Args:
        windows: Made by a :class:`~domainformer.data.SequenceBuilder`.

    Example:
        >>> from domainformer.data import SequenceBuilder
        >>> rows = LanguageRows(SequenceBuilder(context=4).build([[9, 1, 8, 2, 7, 3, 6, 4, 5]]))
        >>> {key: value.tolist() for key, value in rows[0].items()}
        {'input_ids': [2, 7, 3, 6], 'shift_labels': [7, 3, 6, 4]}
    """

    def __init__(self, windows: TextWindows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        row = self.windows[index]
        return {"input_ids": row["input_ids"][:-1], TARGETS: row["labels"][1:]}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Several rows, cut in one pass; data loaders ask for these where they can."""
        batch = self.windows.batch(indices)
        lengths = self.windows.row_lengths[np.asarray(indices)]
        return [
            {"input_ids": ids[: length - 1], TARGETS: labels[1:length]}
            for ids, labels, length in zip(
                batch["input_ids"], batch["labels"], lengths, strict=True
            )
        ]

    def set_epoch(self, epoch: int) -> None:
        """Bring the windows into the order of this epoch."""
        self.windows.set_epoch(epoch)

    @property
    def row_lengths(self) -> np.ndarray:
        """Inputs of each row."""
        lengths: np.ndarray = self.windows.row_lengths - 1
        return lengths


def collate_text(rows: Sequence[Mapping[str, Any]]) -> Batch:
    """Rows to model inputs; a shorter one is filled up on the right, where nothing looks at it."""
    longest = max(len(row["input_ids"]) for row in rows)
    batch = {
        key: torch.from_numpy(np.stack([_filled(row[key], longest, fill) for row in rows]))
        for key, fill in (("input_ids", 0), (TARGETS, IGNORED))
    }
    # The models compute a loss where labels are given, and shift these only if not told otherwise.
    return {**batch, "labels": batch[TARGETS]}


def _filled(ids: np.ndarray, length: int, fill: int) -> np.ndarray:
    return ids if len(ids) == length else np.pad(ids, (0, length - len(ids)), constant_values=fill)


class LanguageTrainer(EventTrainer):
    """The engine's loop over rows whose targets are shifted already."""

    def targets_of(self, batch: Batch) -> torch.Tensor:
        """What each position shall say, ids [B, L]; −100 is nothing."""
        targets: torch.Tensor = batch[TARGETS]
        return targets

    def count_targets(self, batch: Batch) -> int:
        """Number of predictions that a batch's loss averages over."""
        return int(batch[TARGETS].ne(IGNORED).sum())
