"""Batcher: windows of text on a device, in an order of their own; and the batch size that pays.

::

    seed, epoch ──▶ order of the windows ──▶ batch i = rows i·B … i·B + B - 1 ──▶ device

Batch i of an epoch is worked out from its number alone: no generator is asked, and none of torch,
numpy or Python moves. A run that resumes at batch i therefore takes up exactly what it would
have seen, without going through the batches before.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from domainformer.data.text_windows import TextWindows
from domainformer.errors import ConfigError
from domainformer.training.batch_size import MemoryMeter

_PATIENCE = 2  # larger candidates in a row that bring nothing, before the search ends


class Batcher:
    """The batches of an epoch on a device, decided by (seed, epoch, number) alone.

    They are those that the trainer makes of the same windows: every epoch has as many rows as the
    first; what is missing is filled by its first rows (see ``EpochBatches``).

    Args:
        windows: For training or scoring; they are not changed, and changes to them change nothing
            here.
        batch_size: Rows per batch; the last of an epoch may have less.
        device: Where the batches shall be: ``cpu``, ``cuda``, ``mps``, or a device of torch.
        seed: Of the order; None takes that of the windows.
        epoch: To begin with.

    Raises:
        ConfigError: A number out of range, or a device that is not there.

    Example:
        >>> from domainformer.data import SequenceBuilder
        >>> windows = SequenceBuilder(context=3).build([range(20)])
        >>> batcher = Batcher(windows, batch_size=2, seed=1)
        >>> len(batcher), batcher.batch(0)["input_ids"].shape
        (3, torch.Size([2, 4]))
        >>> first = [batch["input_ids"].tolist() for batch in batcher]
        >>> first == [batch["input_ids"].tolist() for batch in batcher]
        True
        >>> batcher.set_epoch(1)
        >>> first == [batch["input_ids"].tolist() for batch in batcher]
        False
    """

    def __init__(
        self,
        windows: TextWindows,
        batch_size: int,
        device: torch.device | str = "cpu",
        *,
        seed: int | None = None,
        epoch: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, but is {batch_size}")
        if seed is not None and seed < 0:
            raise ConfigError(f"the seed must not be negative, but is {seed}")
        self.batch_size, self.device = batch_size, _present(device)
        self._windows = windows.at(seed=seed)
        self.rows = len(self._windows)
        self.set_epoch(epoch)

    @property
    def epoch(self) -> int:
        """The epoch whose batches these are."""
        return self._windows.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the batches of another epoch."""
        self._windows.set_epoch(epoch)

    def __len__(self) -> int:
        """Batches of every epoch."""
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for index in range(len(self)):
            yield self.batch(index)

    def batch(self, index: int) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``labels`` of one batch of the epoch, int64 [B, L + 1], on the device.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of {len(self)}")
        start = index * self.batch_size
        return self._rows(np.arange(start, min(start + self.batch_size, self.rows)))

    def take(self, rows: int) -> dict[str, torch.Tensor]:
        """A batch of any size from the epoch's first rows, repeated where they are too few.

        For measuring: :func:`find_batch_size`, or a memory meter's ``make_batch``.
        """
        return self._rows(np.arange(rows))

    def _rows(self, rows: np.ndarray) -> dict[str, torch.Tensor]:
        arrays = self._windows.batch(rows % len(self._windows))
        tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
        if self.device.type == "cuda":  # pinned memory is copied while the device computes
            return {
                key: value.pin_memory().to(self.device, non_blocking=True)
                for key, value in tensors.items()
            }
        return {key: value.to(self.device) for key, value in tensors.items()}


@dataclass(frozen=True)
class MeasuredBatch:
    """What was found for one batch size.

    Args:
        rows: Rows per step.
        seconds: Of one step, the fastest of those measured; None where it was not run.
        bytes: At the peak of a step, where a meter told.
    """

    rows: int
    seconds: float | None
    bytes: float | None = None

    @property
    def rows_per_second(self) -> float:
        """Throughput; 0 where it did not fit."""
        return self.rows / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class BatchChoice:
    """The batch size that was chosen, and why.

    Args:
        rows: The smallest whose throughput is as good as the best.
        measured: All that were looked at, by size.
    """

    rows: int
    measured: tuple[MeasuredBatch, ...]

    def render(self) -> str:
        """A table to print: rows, rows per second, memory."""
        lines = ["  rows   rows/s     MiB"]
        for found in self.measured:
            speed = f"{found.rows_per_second:,.0f}" if found.seconds else "no room"
            size = "" if found.bytes is None else f"{found.bytes / 2**20:,.0f}"
            chosen = "  ◀" if found.rows == self.rows else ""
            lines.append(f"{found.rows:>6} {speed:>8} {size:>7}{chosen}")
        return "\n".join(lines)


def find_batch_size(
    step: Callable[[int], object],
    candidates: Sequence[int] = (4, 8, 16, 32, 64, 128, 256, 512),
    *,
    device: torch.device | str = "cpu",
    meter: MemoryMeter | None = None,
    budget: float | None = None,
    tolerance: float = 0.05,
    repeats: int = 3,
    clock: Callable[[], float] = time.perf_counter,
) -> BatchChoice:
    """Measure the throughput of some batch sizes and take the smallest that is as good as the best.

    Larger batches give fewer updates for the same text, so a size is only worth its rows where the
    device works through them faster::

        rows/s  ▁ ▃ ▆ █ █ █
        rows    4 8 16 32 64 128      ─▶ 32

    The search goes upward. It ends at a size that does not fit, or after two in a row that bring
    no more than the tolerance.

    Args:
        step: Runs a training step on so many rows: forward, backward, and the update where its
            memory shall count. It is run on a model that may change.
        candidates: Sizes to try.
        device: Waited for before the clock is read.
        meter: Tells the memory of a step before it is run (``SavedTensorMeter``, ``CudaMeter``).
        budget: Bytes that a step may hold; goes with the meter.
        tolerance: Share of the best throughput that a smaller size may lack, in [0, 1).
        repeats: Steps measured per size, after one to warm up; the fastest counts.
        clock: Seconds.

    Raises:
        ConfigError: No candidates, a meter without a budget, or not even the smallest fits.

    Example:
        >>> now = [0.0]
        >>> def step(rows): now[0] += 0.010 + 0.001 * max(rows - 16, 0)  # busy from 16 rows on
        >>> find_batch_size(step, (4, 8, 16, 32, 64, 128), clock=lambda: now[0]).rows
        16
    """
    sizes = sorted(set(candidates))
    if not sizes or sizes[0] < 1 or repeats < 1 or not 0 <= tolerance < 1:
        raise ConfigError(
            "batch sizes cannot be compared",
            why=f"candidates {sizes}, repeats {repeats}, tolerance {tolerance}",
            next_step="give sizes and repeats of at least 1, and a tolerance from 0 to below 1",
        )
    if (meter is None) != (budget is None):
        raise ConfigError("a memory meter and a budget go together", next_step="give both")
    place, measured, best, idle = _present(device), list[MeasuredBatch](), 0.0, 0
    for rows in sizes:
        size = None if meter is None else meter.bytes_for(rows)
        fits = size is None or budget is None or size <= budget
        seconds = _time(step, rows, place, repeats, clock) if fits else None
        found = MeasuredBatch(rows, seconds, size)
        measured.append(found)
        idle = 0 if found.rows_per_second * (1 - tolerance) > best else idle + 1
        best = max(best, found.rows_per_second)
        if seconds is None or idle == _PATIENCE:
            break
    if not best:
        raise ConfigError(
            f"not even {sizes[0]} rows fit into memory",
            next_step="try smaller sizes, a smaller model or a shorter context",
        )
    good = (found for found in measured if found.rows_per_second >= best * (1 - tolerance))
    return BatchChoice(next(good).rows, tuple(measured))


def _time(
    step: Callable[[int], object],
    rows: int,
    device: torch.device,
    repeats: int,
    clock: Callable[[], float],
) -> float | None:
    """Seconds of the fastest step; None where memory ran out."""
    times = []
    try:
        for _ in range(repeats + 1):
            _wait(device)
            begin = clock()
            step(rows)
            _wait(device)
            times.append(clock() - begin)
    except (MemoryError, torch.OutOfMemoryError):
        return None
    except RuntimeError as error:  # so says torch on a processor
        if "can't allocate memory" not in str(error):
            raise
        return None
    return max(min(times[1:]), 1e-9)  # a clock may be too coarse


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _present(device: torch.device | str) -> torch.device:
    """The device, if it is one and this machine has it."""
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(
            f"there is no device {device!r}", why=str(error), next_step="take cpu, cuda or mps"
        ) from error
    there = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if place.type in there and not there[place.type]():
        raise ConfigError(f"this machine has no {place.type} device", next_step="take cpu")
    return place
