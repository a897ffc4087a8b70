"""What the trainer is made of: its arguments, and how batches are counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from domainformer.training.plan import TrainPlan, device

Batch = dict[str, Any]
Collate = Callable[[Sequence[Mapping[str, Any]]], Batch]
TOKENS = "n_tokens"  # key of a batch that counts its real tokens; the model never sees it


def counting(collate: Collate) -> Collate:
    """A collator that also tells how many real tokens its batch has."""

    def collate_and_count(rows: Sequence[Mapping[str, Any]]) -> Batch:
        return {**collate(rows), TOKENS: sum(len(row["input_ids"]) for row in rows)}

    return collate_and_count


def count_targets(labels: torch.Tensor) -> int:
    """Number of predictions that a loss averages over.

    Args:
        labels: Either [rows, tokens], of which the model shifts away the first column, or [rows].
            −100 is no target.
    """
    counted = labels[:, 1:] if labels.ndim > 1 else labels
    return int(counted.ne(-100).sum())


def on_device(batch: Batch, model: torch.nn.Module) -> Batch:
    """A batch where the weights are."""
    place = next(model.parameters()).device
    return {k: v.to(place) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}


def compiled(model: torch.nn.Module, backend: str) -> Any:
    """The model under ``torch.compile``; its weights are shared with the eager one."""
    return torch.compile(model, backend=backend)


def arguments(plan: TrainPlan, root: Path, *, evaluates: bool) -> TrainingArguments:
    """The arguments of the Trainer that say what a plan says.

    Args:
        plan: The resolved numbers.
        root: Folder of the checkpoints.
        evaluates: Whether there are validation rows.
    """
    return TrainingArguments(
        output_dir=str(root),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.rows,
        gradient_accumulation_steps=plan.accumulation,
        learning_rate=plan.learning_rate,
        max_grad_norm=plan.max_grad_norm,
        logging_strategy="steps",
        logging_steps=plan.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=plan.eval_every,
        save_strategy="steps",
        save_steps=plan.save_every,
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        average_tokens_across_devices=False,
        seed=plan.seed,
        use_cpu=device(plan.device).type == "cpu",
    )
