"""How a training goes, whatever it learns from: length, batches, rates, evaluation, checkpoints."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from domainformer.config import StrictConfig

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_LENGTHS = ("max_steps", "max_tokens", "epochs")


def parse_bytes(text: str | int) -> int:
    """A number of bytes from a text with a unit.

    Example:
        >>> parse_bytes("2 GiB"), parse_bytes("500MB"), parse_bytes(1024)
        (2147483648, 500000000, 1024)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)?\s*", str(text), re.IGNORECASE)
    if match is None:
        raise ValueError(f"{text!r} is not a size such as 2GiB or 500MB")
    return int(float(match[1]) * _UNITS[(match[2] or "").upper()])


class OptimisationConfig(StrictConfig):
    """The optimisation.

    One of ``epochs``, ``max_steps`` and ``max_tokens`` says how long; none of them means one epoch.

    Args:
        context: Tokens per row.
        epochs: Passes over the training rows.
        max_steps: Optimizer steps.
        max_tokens: Tokens to train on (rounded up to whole steps).
        batch_tokens: Tokens per optimizer step; ``auto``: as many as fit the memory budget at once.
        gradient_accumulation: Forward passes per optimizer step; ``auto``: as few as the memory
            budget allows.
        memory_budget: What training may hold (such as ``4GiB``); None: half of what is free.
        learning_rate: Peak of the schedule.
        schedule: How the rate falls after its warm-up: half a ``cosine``, a ``linear`` ramp, or
            not at all (``constant``, for rules that average the weights).
        warmup_ratio: Share of the steps with a rising learning rate.
        final_rate: Learning rate at the last step, as a share of the peak.
        betas: Decay of AdamW's two moments; not read where a rule brings an optimizer.
        weight_decay: On weight matrices only (not embeddings, norms, biases).
        max_grad_norm: Gradients longer than this are scaled down; 0 switches clipping off.
        precision: ``auto`` takes bf16 autocast where the processor has it and the model is wide
            enough to gain from it.
        eval_every: Steps between evaluations; None: ten times in the run.
        eval_rows: Validation rows per evaluation, evenly spread; None: all.
        save_every: Steps between checkpoints; None: at each evaluation.
        log_every: Steps between lines of ``metrics.jsonl``.
        keep: Checkpoints kept beside the best.
        compile: Backend of ``torch.compile`` for training steps; None: eager. Gradients of both
            are compared before the first step.
        device: Where to train; ``auto``: a GPU if there is one, else the processor.
        seed: Of initialisation, order, dropout and learning rules.
        threads: Processor threads; None leaves the process as it is.
        report_to: Further trackers, ``tensorboard`` or ``trackio``.
        quiet: No progress on stderr.
        resume: Continue the run ``output.root/output.name`` where it stopped.
    """

    context: int = Field(512, ge=8)
    epochs: float | None = Field(None, gt=0)
    max_steps: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    batch_tokens: int | Literal["auto"] = 8192
    gradient_accumulation: int | Literal["auto"] = "auto"
    memory_budget: str | int | None = None
    learning_rate: float = Field(1e-3, gt=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    final_rate: float = Field(0.0, ge=0, le=1)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.1, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    eval_every: int | None = Field(None, ge=1)
    eval_rows: int | None = Field(256, ge=1)
    save_every: int | None = Field(None, ge=1)
    log_every: int = Field(10, ge=1)
    keep: int = Field(2, ge=1)
    compile: Literal["inductor", "aot_eager"] | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, ge=1)
    report_to: tuple[Literal["tensorboard", "trackio"], ...] = ()
    quiet: bool = False
    resume: bool = False

    @field_validator("memory_budget")
    @classmethod
    def _readable_size(cls, value: str | int | None) -> str | int | None:
        if value is not None and parse_bytes(value) <= 0:
            raise ValueError("the memory budget must be positive")
        return value

    @field_validator("batch_tokens", "gradient_accumulation")
    @classmethod
    def _positive_or_auto(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1, or auto")
        return value

    @model_validator(mode="before")
    @classmethod
    def _one_length(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = [name for name in _LENGTHS if values.get(name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of {', '.join(_LENGTHS)}, not {' and '.join(given)}")
        return values if given else {**values, "epochs": 1.0}


# These do not decide the weights, so a resumed run may change them.
OPTIMISATION_MAY_DIFFER = frozenset(
    f"training.{key}"
    for key in (
        "keep",
        "log_every",
        "memory_budget",
        "quiet",
        "report_to",
        "resume",
        "threads",
    )
)
