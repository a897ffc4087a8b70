"""Settings of :func:`~domainformer.training.fusion.fit_fusion`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from domainformer.config import StrictConfig
from domainformer.training.config import ModelConfig

# Of few rows an epoch is a few steps. What two features tell only together (their sign's product,
# say) is found after some hundred steps at which nothing seems to be gained; training that counts
# in epochs stops long before.
_EPOCHS, _FEWEST_STEPS, _BETWEEN = 20, 1000, 50


class LearningRates(StrictConfig):
    """Peaks of the cosine schedule; 0 freezes the backbone.

    Args:
        backbone: The Transformer; for a pretrained one take a tenth of the others or less.
        tabular: Tabular encoder.
        head: Head, and the LayerNorm before it.
    """

    backbone: float = Field(3e-4, ge=0)
    tabular: float = Field(1e-3, gt=0)
    head: float = Field(1e-3, gt=0)


class FusionConfig(StrictConfig):
    """Everything that decides a fusion model, beside the data.

    Args:
        model: Values of :class:`~domainformer.models.JointFusionConfig`, such as
            ``numeric_embedding`` or ``cross_layers``; what follows from the data is left out.
        backbone: The Transformer, where no bundle is given.
        target_weights: Share of each target in the loss; 1 where it is not named.
        context: Most tokens of a history.
        min_category_count: Training rows that a category needs to be known.
        bpe_vocab_size: Byte-pair tokens of text fields, where no bundle is given.
        epochs: Passes over the training rows, at most, with an evaluation after each. None: 20, and
            where these are fewer than 1,000 steps, so many steps, with an evaluation every 50.
        patience: Evaluations without a better validation loss before it stops.
        batch_rows: Examples per optimizer step.
        rates: Learning rates.
        weight_decay: On matrices; not on embeddings, frequencies, norms, biases.
        cross_weight_decay: On the matrices of the cross layers.
        warmup_ratio: Share of the steps with rising learning rates.
        max_grad_norm: Gradients longer than this are scaled down; 0 switches clipping off.
        precision: ``fp32``, ``bf16``, or ``auto``.
        validation_share: Of the rows, where no validation rows are given.
        seed: Of initialisation, order, dropout and the validation rows.
        threads: Processor threads; None leaves them.
    """

    model: dict[str, Any] = Field(default_factory=dict)
    backbone: ModelConfig = ModelConfig()
    target_weights: dict[str, float] = Field(default_factory=dict)
    context: int = Field(256, ge=8)
    min_category_count: int = Field(5, ge=1)
    bpe_vocab_size: int = Field(4096, ge=256)
    epochs: int | None = Field(None, ge=1)
    patience: int = Field(4, ge=1)
    batch_rows: int = Field(64, ge=1)
    rates: LearningRates = LearningRates()
    weight_decay: float = Field(0.01, ge=0)
    cross_weight_decay: float = Field(0.05, ge=0)
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    validation_share: float = Field(0.15, gt=0, lt=1)
    seed: int = Field(0, ge=0)
    threads: int | None = Field(None, ge=1)

    def length(self, per_epoch: int) -> tuple[int, int]:
        """Steps in all, and steps between two evaluations.

        Example:
            >>> FusionConfig().length(3), FusionConfig().length(375)
            ((1000, 50), (7500, 375))
            >>> FusionConfig(epochs=5).length(3)
            (15, 3)
        """
        if self.epochs is not None:
            return per_epoch * self.epochs, per_epoch
        return max(per_epoch * _EPOCHS, _FEWEST_STEPS), max(per_epoch, _BETWEEN)
