"""EpochLoader: the batches of an epoch, decided by (seed, epoch, number), resumable in between.

::

    state_dict    {"epoch": 3, "batch": 17}      after 17 batches of epoch 3
    load          ─▶ the next batch is number 17 of epoch 3, as it would have been

Lightning saves and restores this state; its own loaders begin the epoch again after a stop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader

from domainformer.errors import CheckpointError, ConfigError
from domainformer.training.sampler import EpochBatches, EpochDataset


class EpochLoader:
    """Batches of a data set that orders itself, for Lightning or any loop.

    Args:
        dataset: With ``set_epoch``; every epoch has as many rows as it has now.
        collate: Rows to a batch.
        batch_size: Rows per batch; the last of an epoch may have less.
        workers: Processes that make batches; 0 makes them here.
        pin_memory: Put batches where a GPU copies them from while it computes.
        fixed: Every pass gives epoch 0, for validation.

    Raises:
        ConfigError: A number out of range.

    Example:
        >>> from domainformer.training.lightning.rows import TextRows
        >>> rows = TextRows([[n, n] for n in range(5)], context=2)
        >>> loader = EpochLoader(rows, lambda rows: [int(r["input_ids"][0]) for r in rows],
        ...                      batch_size=2)
        >>> first = list(loader)
        >>> loader.load_state_dict({"epoch": 0, "batch": 2})
        >>> list(loader) == first[2:], loader.state_dict()
        (True, {'epoch': 1, 'batch': 0})
    """

    def __init__(
        self,
        dataset: EpochDataset,
        collate: Callable[[list[Any]], Any],
        *,
        batch_size: int,
        workers: int = 0,
        pin_memory: bool = False,
        fixed: bool = False,
    ) -> None:
        if batch_size < 1 or workers < 0:
            raise ConfigError(
                "batches cannot be made",
                why=f"batch_size is {batch_size} and must be at least 1, workers {workers} and "
                "must not be negative",
            )
        self.dataset, self.collate = dataset, collate
        self.batch_size, self.workers = batch_size, workers
        self.pin_memory, self.fixed = pin_memory, fixed
        self.rows = len(dataset)
        self.epoch = self.batch = 0
        self._resumed = False

    @property
    def sampler(self) -> EpochLoader:
        """Lightning tells the sampler of a loader which epoch begins."""
        return self

    @property
    def batch_sampler(self) -> None:
        """None: Lightning asks the loader of a validation for it, once it has a sampler."""
        return

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of another epoch."""
        if epoch != self.epoch and not self.fixed:
            self.epoch, self.batch, self._resumed = epoch, 0, False

    def __len__(self) -> int:
        """Batches of every epoch."""
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        if not self._resumed:
            self.batch = 0
        self._resumed = False
        self.dataset.set_epoch(self.epoch)
        batches = list(EpochBatches(self.dataset, self.rows, self.batch_size))
        epoch = self.epoch
        # A generator of its own: a loader would else draw from the global one.
        loader = DataLoader(
            self.dataset,
            batch_sampler=batches[self.batch :],
            collate_fn=self.collate,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
            generator=torch.Generator().manual_seed(0),
        )
        for batch in loader:
            # Counted when it is given out, not when a worker made it.
            self.batch += 1
            if self.batch == len(self):
                self.epoch, self.batch = (epoch if self.fixed else epoch + 1), 0
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Where the next batch stands."""
        return {"epoch": self.epoch, "batch": self.batch}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go where the next batch stands.

        Raises:
            CheckpointError: This loader has no such batch: it has other rows or batches.
        """
        epoch, batch = int(state["epoch"]), int(state["batch"])
        if epoch < 0 or not 0 <= batch < len(self):
            raise CheckpointError(
                f"there is no batch {batch} of epoch {epoch}",
                why=f"an epoch has {len(self)} batches of {self.batch_size} rows",
                next_step="resume with the data and the batch size of the checkpoint",
            )
        self.epoch, self.batch, self._resumed = epoch, batch, True
