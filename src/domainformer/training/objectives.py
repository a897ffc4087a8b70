"""Several objectives on one backbone: the weighted sum that a pretraining minimises.

::

    rows   ─▶ backbone ┬▶ logits  ─▶ next token    × w₁ ┐
                       └▶ states  ─▶ horizon       × w₂ │
    hidden ─▶ backbone ─▶ logits  ─▶ masked field  × w₃ ├─▶ loss
    slices ─▶ backbone ─▶ vectors ─▶ contrastive   × w₄ ┘

Each loss is a mean over its own terms of the whole optimizer step. What an objective trains beside
the model is kept in checkpoints; the bundle holds the model alone.

Start with ``objective_base.py`` (what an objective is); each has a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from domainformer.data.dataset import DomainSequenceDataset
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.tokenizers import DomainTokenizer
from domainformer.training.config import TrainingConfig
from domainformer.training.objective_base import COUNT, STATES, Objective
from domainformer.training.objective_contrastive import ContrastiveObjective
from domainformer.training.objective_horizon import make_horizon
from domainformer.training.objective_masked import MaskedFieldObjective

NEXT_TOKEN = "next_token"  # noqa: S105 - the name of an objective


def make_objectives(
    training: TrainingConfig,
    tokenizer: DomainTokenizer,
    model: DomainTransformerConfig,
    rows: DomainSequenceDataset,
) -> list[Objective]:
    """The objectives with a weight, but for next tokens, which the model knows by itself.

    Args:
        training: Weights and settings.
        tokenizer: Whose ids the rows hold.
        model: Configuration of the language model.
        rows: Training rows.

    Raises:
        ConfigError: An objective cannot be learned from these rows.
    """
    weights = training.objectives
    shared: dict[str, Any] = {"context": training.context, "packed": training.packed}
    sizes: dict[str, Any] = {"width": model.hidden_size, "std": model.initializer_range}
    made: list[Objective] = []
    if weights.contrastive:
        made.append(ContrastiveObjective(training.contrastive, pad_id=tokenizer.pad_id, **shared))
    if weights.masked_field:
        made.append(MaskedFieldObjective(training.masked_field, tokenizer, **shared, **sizes))
    if weights.horizon:
        made.append(make_horizon(training.horizon, tokenizer, rows, **sizes))
    return made


@dataclass(frozen=True)
class Losses:
    """What one pass gives.

    Args:
        loss: The weighted sum, a scalar.
        parts: The share of each objective in its mean over the step, without its weight.
    """

    loss: torch.Tensor
    parts: dict[str, torch.Tensor]

    def __getitem__(self, name: str) -> torch.Tensor:
        """``["loss"]``, as model outputs have it."""
        if name != "loss":
            raise KeyError(name)
        return self.loss


class ObjectiveModel(nn.Module):
    """A language model with the heads of its objectives; its forward gives their weighted loss.

    Args:
        model: The language model.
        objectives: The objectives beside next tokens.
        training: Has the weights.
    """

    accepts_loss_kwargs = True

    def __init__(
        self,
        model: DomainTransformerForCausalLM,
        objectives: Sequence[Objective],
        training: TrainingConfig,
    ) -> None:
        super().__init__()
        self.model = model
        self.heads = nn.ModuleList(objectives)
        self.weights = training.objectives.used

    @property
    def objectives(self) -> list[Objective]:
        """The objectives beside next tokens."""
        return list(self.heads)

    @property
    def config(self) -> DomainTransformerConfig:
        """The language model's configuration."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.device

    @property
    def base_model(self) -> nn.Module:
        """The backbone: its blocks are what learning rules mean by ``blocks``."""
        return self.model.base_model

    def get_input_embeddings(self) -> nn.Module:
        """The language model's, which learning rules call ``embedding``."""
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The language model's, which learning rules call ``head``."""
        return self.model.get_output_embeddings()

    def num_parameters(self) -> int:
        """Number of scalars of the language model and of all heads."""
        return sum(parameter.numel() for parameter in self.parameters())

    def forward(
        self,
        totals: Mapping[str, int] | None = None,
        num_items_in_batch: int | None = None,
        **batch: Any,
    ) -> Losses:
        """The losses of one pass.

        Args:
            totals: Terms of each objective in the whole optimizer step, by which its sum is
                divided; None: those of this batch.
            num_items_in_batch: Not read: ``totals`` says more.
            **batch: What an `ObjectiveCollator` made.
        """
        totals = totals or count_batch(batch)
        inputs = {key: batch[key] for key in _INPUTS if key in batch}
        parts: dict[str, torch.Tensor] = {}
        scores = not self.training or NEXT_TOKEN in self.weights
        states = any(batch[f"{each.name}{COUNT}"] for each in self.objectives if each.reads_states)
        if scores and totals[NEXT_TOKEN]:
            output = self.model(
                **inputs,
                labels=batch["labels"],
                num_items_in_batch=totals[NEXT_TOKEN],
                **({"output_hidden_states": True} if states else {}),
            )
            parts[NEXT_TOKEN] = output.loss
            if states:
                batch[STATES] = output.hidden_states[-1]
        elif states:
            output = self.model.base_model(**inputs, use_cache=False)
            batch[STATES] = output.last_hidden_state
        for objective in self.objectives:
            if batch[f"{objective.name}{COUNT}"]:
                total = objective.loss(self.model, batch)
                parts[objective.name] = total / totals[objective.name]
        weighted = [self.weights[name] * parts[name] for name in self.weights if name in parts]
        # A pass without any term still has a loss that can be differentiated.
        loss = torch.stack(weighted).sum() if weighted else 0.0 * self._any_weight()
        return Losses(loss, parts)

    def _any_weight(self) -> torch.Tensor:
        return next(self.model.parameters()).flatten()[0]


def count_batch(batch: Mapping[str, Any]) -> dict[str, int]:
    """Terms of each objective in a batch.

    Example:
        >>> count_batch({"labels": torch.tensor([[-100, 5, 6]]), "contrastive_count": 4})
        {'next_token': 2, 'contrastive': 4}
    """
    counts = {NEXT_TOKEN: int(batch["labels"][:, 1:].ne(-100).sum())}
    for key, value in batch.items():
        if key.endswith(COUNT):
            counts[key.removesuffix(COUNT)] = int(value)
    return counts


_INPUTS = (
    "input_ids",
    "attention_mask",
    "position_ids",
    "cu_seq_lens_q",
    "cu_seq_lens_k",
    "max_length_q",
    "max_length_k",
)
