"""All numbers of a training: what the configuration leaves open, resolved for data and machine."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from domainformer.errors import ConfigError
from domainformer.training.batch_size import (
    CudaMeter,
    MemoryMeter,
    SavedTensorMeter,
    free_memory,
    plan_batches,
)
from domainformer.training.optimisation_config import OptimisationConfig, parse_bytes
from domainformer.training.optimizer import choose_precision

_EVALUATIONS = 10  # where eval_every is left open
_FREE_SHARE = 0.5  # of the free memory, where no budget is given


@dataclass(frozen=True)
class TrainPlan:
    """Nothing is left to choose.

    Args:
        steps: Optimizer steps.
        rows: Rows per forward pass.
        accumulation: Forward passes per optimizer step.
        learning_rate: Peak.
        schedule: How the rate falls: ``cosine``, ``linear`` or ``constant``.
        warmup_ratio: Share of the steps with a rising learning rate.
        final_rate: Learning rate at the last step, as a share of the peak.
        betas: Decay of AdamW's moments.
        weight_decay: On matrices.
        max_grad_norm: Clipping; 0 for none.
        bf16: Autocast to bf16.
        eval_every: Steps between evaluations.
        eval_rows: Rows per evaluation; None for all.
        save_every: Steps between checkpoints.
        log_every: Steps between log lines.
        keep: Checkpoints kept beside the best.
        seed: Of order and dropout.
        compile: Backend of ``torch.compile``; None: eager.
        device: Where the model is.
    """

    steps: int
    rows: int
    accumulation: int = 1
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_ratio: float = 0.05
    final_rate: float = 0.0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    bf16: bool = False
    eval_every: int = 100
    eval_rows: int | None = None
    save_every: int = 100
    log_every: int = 10
    keep: int = 2
    seed: int = 0
    compile: str | None = None
    device: str = "auto"

    def to_json(self) -> dict[str, Any]:
        """The numbers as plain data, for the run record."""
        return asdict(self)


def device(wanted: str = "auto") -> torch.device:
    """Where training runs.

    Args:
        wanted: ``cpu``, ``cuda`` or ``mps``; ``auto``: a GPU if there is one, else the processor.

    Raises:
        ConfigError: There is no such device on this machine.

    Example:
        >>> device("cpu")
        device(type='cpu')
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, available in there.items() if available))
    if not there[wanted]:
        raise ConfigError(
            f"this machine has no device {wanted!r}",
            where="training.device",
            next_step=f"choose one of: auto, {', '.join(n for n, has in there.items() if has)}",
        )
    return torch.device(wanted)


def autocast(place: torch.device, bf16: bool) -> contextlib.AbstractContextManager[Any]:
    """The context of a forward pass."""
    if not bf16:
        return contextlib.nullcontext()
    return torch.autocast(place.type, torch.bfloat16)


def resolve_plan(
    config: OptimisationConfig,
    *,
    model: nn.Module,
    width: int,
    row_lengths: np.ndarray,
    make_batch: Callable[[Sequence[int]], dict[str, Any]],
) -> TrainPlan:
    """Turn a configuration into numbers, for a model, a data set and this machine.

    Args:
        config: The configuration.
        model: The model, on its device.
        width: Its hidden size.
        row_lengths: Tokens of each training row.
        make_batch: Model inputs for some rows, to measure the memory of a forward pass.

    Raises:
        ConfigError: Not even one row fits the memory budget.
    """
    place = next(model.parameters()).device
    bf16 = choose_precision(config.precision, place, width) == "bf16"
    mean_tokens = float(np.mean(row_lengths))

    def meter() -> MemoryMeter:
        # The longest rows decide what fits.
        longest = np.argsort(row_lengths)[::-1]

        def batch(rows: int) -> dict[str, Any]:
            inputs = make_batch([int(longest[i % len(longest)]) for i in range(rows)])
            return {k: v.to(place) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}

        kind = CudaMeter if place.type == "cuda" else SavedTensorMeter
        return kind(model, batch, lambda: autocast(place, bf16))

    def budget() -> float:
        if config.memory_budget is not None:
            return parse_bytes(config.memory_budget)
        return _FREE_SHARE * free_memory(place)

    batches = plan_batches(
        batch_tokens=config.batch_tokens,
        accumulation=config.gradient_accumulation,
        context=mean_tokens,
        available_rows=len(row_lengths),
        meter=meter,
        budget=budget,
    )
    steps = count_steps(
        config,
        rows=len(row_lengths),
        rows_per_pass=batches.rows,
        passes=batches.accumulation,
        tokens_per_row=mean_tokens,
    )
    eval_every = min(config.eval_every or max(1, steps // _EVALUATIONS), steps)
    return TrainPlan(
        steps=steps,
        rows=batches.rows,
        accumulation=batches.accumulation,
        learning_rate=config.learning_rate,
        schedule=config.schedule,
        warmup_ratio=config.warmup_ratio,
        final_rate=config.final_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        bf16=bf16,
        eval_every=eval_every,
        eval_rows=config.eval_rows,
        save_every=min(config.save_every or eval_every, steps),
        log_every=min(config.log_every, steps),
        keep=config.keep,
        seed=config.seed,
        compile=config.compile,
        device=place.type,
    )


def count_steps(
    config: OptimisationConfig,
    *,
    rows: int,
    rows_per_pass: int,
    passes: int,
    tokens_per_row: float,
) -> int:
    """Optimizer steps for the length that a configuration asks for.

    Example:
        >>> sizes = {"rows": 100, "rows_per_pass": 8, "passes": 2, "tokens_per_row": 500.0}
        >>> [count_steps(OptimisationConfig(**length), **sizes)
        ...  for length in ({"epochs": 2}, {"max_tokens": 80_001}, {"max_steps": 3})]
        [14, 11, 3]
    """
    if config.max_steps is not None:
        return config.max_steps
    if config.max_tokens is not None:
        return math.ceil(config.max_tokens / (tokens_per_row * rows_per_pass * passes))
    per_epoch = math.ceil(math.ceil(rows / rows_per_pass) / passes)
    return max(1, math.ceil((config.epochs or 1.0) * per_epoch))
