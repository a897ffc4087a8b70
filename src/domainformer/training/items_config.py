"""Settings of :func:`~domainformer.training.items.fit_items`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from domainformer.config import StrictConfig


class ItemsConfig(StrictConfig):
    """Everything that decides a next-item model, beside the data.

    The defaults suit histories of some ten items and catalogues of some ten thousand.

    Args:
        width: Width of the embeddings and of the residual stream.
        layers: Number of blocks.
        heads: Attention heads; they divide the width.
        dropout: Of embeddings, of what blocks add to the stream, and of attention weights.
        position_encoding: ``learned``, ``none`` or ``rope``.
        context: Most items of a history, the newest.
        reach: A position learns the next so many items; 1: the next one alone.
        gap_decay: Weight of a target one step further away.
        smoothing: Share of the targets that is spread over all items.
        negatives: Items drawn for each step in place of the full softmax; None: all items.
        negative_power: Drawn in proportion to (frequency + 1)^this.
        epochs: Passes over the histories, over which the learning rate falls to 0.
        patience: Evaluations without a better validation figure before it stops.
        evaluate_every: Epochs between evaluations.
        batch_users: Histories per optimizer step.
        learning_rate: Peak of the cosine schedule.
        warmup_steps: Steps with a rising learning rate.
        weight_decay: On matrices; not on norms and biases.
        max_grad_norm: Gradients longer than this are scaled down; 0 switches clipping off.
        precision: Of the products with the item table: ``fp32`` or ``bf16`` (full softmax only).
        initializer_range: Standard deviation of new weights.
        seed: Of initialisation, order, dropout and draws.
        threads: Processor threads; None leaves them.

    Raises:
        ValueError: Smoothing or bf16 together with drawn negatives; heads that do not fit.

    Example:
        >>> ItemsConfig(reach=3, gap_decay=0.5).target_weights
        (1.0, 0.5, 0.25)
    """

    width: int = Field(64, ge=1)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    position_encoding: Literal["learned", "none", "rope"] = "learned"
    context: int = Field(50, ge=1)
    reach: int = Field(8, ge=1)
    gap_decay: float = Field(0.85, gt=0, le=1)
    smoothing: float = Field(0.0, ge=0, lt=1)
    negatives: int | None = Field(None, ge=1)
    negative_power: float = Field(0.5, ge=0, le=1)
    epochs: int = Field(20, ge=1)
    patience: int = Field(3, ge=1)
    evaluate_every: int = Field(2, ge=1)
    batch_users: int = Field(128, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    warmup_steps: int = Field(200, ge=0)
    weight_decay: float = Field(0.01, ge=0)
    max_grad_norm: float = Field(1.0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    initializer_range: float = Field(0.02, gt=0)
    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> ItemsConfig:
        if self.negatives is not None and (self.smoothing or self.precision == "bf16"):
            raise ValueError("smoothing and bf16 go with the full softmax: leave negatives out")
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")
        return self

    @property
    def target_weights(self) -> tuple[float, ...]:
        """Weight of the next item, of the one after it, and so on."""
        return tuple(self.gap_decay**step for step in range(self.reach))
