"""How many rows go through the model at once: the most that fit a memory budget.

Memory of a training step is a constant plus so much per row::

    bytes(rows) = weights + gradients + two moments  +  rows · (what the backward pass keeps)

On a processor the second part is measured by counting the tensors that autograd saves in one small
forward pass; on a GPU by the allocator's own peak. What does not fit at once is accumulated: the
tokens per optimizer step stay what the configuration asks for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import nn

from domainformer.errors import ConfigError
from domainformer.training.optimizer import count, trainable

# Beside what is kept there are buffers that live for a moment: gradients beside their activations,
# and around the largest tensor, the logits, four more of its size (itself, its cast, the gradients
# of both). Against resident memory this is right within 15 %, on the safe side.
_GRADIENTS = 1.15
_AROUND_THE_LARGEST = 4
_MAX_ROWS = 4096


class MemoryMeter(Protocol):
    """Tells what a training step with some rows holds at its peak."""

    def bytes_for(self, rows: int) -> float:
        """Bytes at the peak, or infinity where it ran out of memory."""
        ...


@dataclass(frozen=True)
class BatchPlan:
    """Rows per forward pass, and forward passes per optimizer step.

    Args:
        rows: Rows per forward pass.
        accumulation: Forward passes per step.
    """

    rows: int
    accumulation: int

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step."""
        return self.rows * self.accumulation


def plan_batches(
    *,
    batch_tokens: int | Literal["auto"],
    accumulation: int | Literal["auto"],
    context: float,
    available_rows: int,
    meter: Callable[[], MemoryMeter],
    budget: Callable[[], float],
) -> BatchPlan:
    """Choose rows and accumulation for the tokens per step that were asked for.

    Args:
        batch_tokens: Tokens per optimizer step; ``auto``: what fits at once.
        accumulation: Forward passes per step; ``auto``: as few as fit.
        context: Mean tokens per row.
        available_rows: Rows of the data set; a step never takes more.
        meter: Makes the memory meter; called only where memory decides.
        budget: Bytes that training may hold; called only where memory decides.

    Raises:
        ConfigError: Not even one row fits the budget.

    Example:
        >>> class Linear:
        ...     def bytes_for(self, rows): return 100 + 10 * rows
        >>> plan_batches(batch_tokens=16 * 512, accumulation="auto", context=512,
        ...              available_rows=1000, meter=Linear, budget=lambda: 160)
        BatchPlan(rows=6, accumulation=3)
    """
    if batch_tokens == "auto":
        passes = 1 if accumulation == "auto" else accumulation
        limit = max(1, min(available_rows // passes, _MAX_ROWS))
        return BatchPlan(largest_fitting(meter(), budget(), limit), passes)
    wanted = max(1, min(round(batch_tokens / context), available_rows))
    if accumulation != "auto":
        return BatchPlan(max(1, round(wanted / accumulation)), accumulation)
    fitting = largest_fitting(meter(), budget(), min(wanted, _MAX_ROWS))
    passes = math.ceil(wanted / fitting)
    # Even passes: 10 rows of which 8 fit are two times 5, not 8 and 2.
    return BatchPlan(math.ceil(wanted / passes), passes)


def largest_fitting(meter: MemoryMeter, budget: float, limit: int) -> int:
    """The most rows, up to a limit, whose step stays within the budget: doubling, then bisection.

    Raises:
        ConfigError: One row is already too much.
    """
    if limit <= 1 or meter.bytes_for(limit) <= budget:
        if limit <= 1:
            _require_one(meter, budget)
        return max(limit, 1)
    _require_one(meter, budget)
    low, high = 1, limit  # low fits, high does not
    while high - low > 1:
        middle = min(2 * low, (low + high) // 2)
        low, high = (middle, high) if meter.bytes_for(middle) <= budget else (low, middle)
    return low


def _require_one(meter: MemoryMeter, budget: float) -> None:
    needed = meter.bytes_for(1)
    if needed > budget:
        raise ConfigError(
            "the model does not fit the memory budget with a single row",
            why=f"it needs {needed / 2**20:,.0f} MiB and may hold {budget / 2**20:,.0f} MiB",
            next_step="take a smaller training.context or model.preset, or raise "
            "training.memory_budget",
        )


class SavedTensorMeter:
    """Counts what autograd keeps for the backward pass, on one and on two rows.

    Nothing is allocated beyond two small forward passes, so this also works where the answer would
    not fit. Each storage counts once, however many views of it are saved.

    Args:
        model: The model; only a forward pass is run.
        make_batch: Model inputs (with ``labels``) for some rows.
        autocast: Context in which the forward pass of the training runs.
    """

    def __init__(
        self,
        model: nn.Module,
        make_batch: Callable[[int], dict[str, Any]],
        autocast: Callable[[], Any],
    ) -> None:
        # Weights, gradients and the two moments of AdamW, all in fp32.
        trained = count(trainable(model))
        self._fixed = 4 * count(model.parameters()) + 12 * trained
        one, two = (self._held(model, make_batch(rows), autocast) for rows in (1, 2))
        self._per_row = max(two - one, 1.0)
        self._base = max(one - self._per_row, 0.0)

    def bytes_for(self, rows: int) -> float:
        """Bytes of a training step."""
        return self._fixed + self._base + rows * self._per_row

    @classmethod
    def _held(cls, model: nn.Module, batch: dict[str, Any], autocast: Callable[[], Any]) -> float:
        saved = cls.saved_bytes(model, batch, autocast)
        return _GRADIENTS * sum(saved) + _AROUND_THE_LARGEST * max(saved, default=0)

    @staticmethod
    def saved_bytes(
        model: nn.Module, batch: dict[str, Any], autocast: Callable[[], Any]
    ) -> list[int]:
        """Sizes of the storages that one forward pass saves for the backward pass."""
        weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
        held: dict[int, int] = {}
        kept = []  # storages stay alive until they are counted, so no address is used twice

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                held[storage.data_ptr()] = storage.nbytes()
                kept.append(storage)
            return tensor

        was_training = model.training
        model.train()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast():
            output = model(**batch)
        del output
        model.train(was_training)
        return list(held.values())


class CudaMeter:
    """Runs a forward and a backward pass and reads the allocator's peak."""

    def __init__(
        self,
        model: nn.Module,
        make_batch: Callable[[int], dict[str, Any]],
        autocast: Callable[[], Any],
    ) -> None:
        self._model, self._make_batch, self._autocast = model, make_batch, autocast
        self._moments = 8 * count(trainable(model))  # AdamW allocates them at the first step
        self._measured: dict[int, float] = {}

    def bytes_for(self, rows: int) -> float:
        """Bytes of a training step, or infinity where it ran out of memory."""
        if rows not in self._measured:
            self._measured[rows] = self._measure(rows)
        return self._measured[rows]

    def _measure(self, rows: int) -> float:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        try:
            with self._autocast():
                loss = self._model(**self._make_batch(rows))["loss"]
            loss.backward()
            peak = float(torch.cuda.max_memory_allocated())
        except torch.cuda.OutOfMemoryError:
            peak = math.inf
        self._model.zero_grad(set_to_none=True)
        return peak + self._moments


def free_memory(device: torch.device) -> int:
    """Bytes that are free now: on the GPU, or in the machine and its control group."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    candidates = [_available_in_machine(), _available_in_group()]
    return min(value for value in candidates if value is not None)


def _available_in_machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _available_in_group() -> int | None:
    """What a container still may take (cgroup 2), or None where nothing limits it."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit = (folder / "memory.max").read_text(encoding="ascii").strip()
        used = int((folder / "memory.current").read_text(encoding="ascii"))
        return None if limit == "max" else max(int(limit) - used, 0)
    except (OSError, ValueError):
        return None
