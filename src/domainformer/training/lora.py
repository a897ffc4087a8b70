"""LoRA: fine-tuning through low-rank additions to frozen matrices; see ``models/surgery/lora.py``.

::

    y = W x + (α / r) · B A x        W frozen; A [r, in] and B [out, r] trained, B zero at first

The additions are put into the model in place, so that engine, checkpoints and resuming know nothing
of them, and are merged into the matrices at the end: the bundle is a plain model.

Source: Hu et al., "LoRA: Low-rank adaptation of large language models", arXiv 2106.09685.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import nn

from domainformer.config import StrictConfig
from domainformer.errors import ConfigError, SurgeryError
from domainformer.models import surgery


class LoraConfig(StrictConfig):
    """The additions.

    Args:
        rank: Rank r of each.
        alpha: Numerator of the factor α / r.
        targets: Names of the backbone's linear layers that get one, as the last part of their
            path; None: all of them.
        dropout: Of what goes into the additions.
    """

    rank: int = Field(8, ge=1)
    alpha: float = Field(16.0, gt=0)
    targets: tuple[str, ...] | None = None
    dropout: float = Field(0.0, ge=0, lt=1)


def add_lora(model: Any, config: LoraConfig) -> None:
    """Freeze the backbone of a classifier and put low-rank additions into it.

    Args:
        model: A classifier whose backbone is ``base_model``; its head stays trainable.
        config: Rank, factor and places.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: The backbone has no linear layer of a name.
    """
    add_to(model.base_model, config, where="lora.targets")


def add_to(model: nn.Module, config: LoraConfig, *, where: str) -> None:
    """Freeze a model and put low-rank additions into it.

    Args:
        model: Any module.
        config: Rank, factor and places.
        where: The key of the configuration that names the places, for errors.

    Raises:
        MissingExtraError: peft is not installed.
        ConfigError: There is no such place.
    """
    try:
        surgery.add_lora(
            model,
            rank=config.rank,
            alpha=config.alpha,
            targets=config.targets,
            dropout=config.dropout,
        )
    except SurgeryError as error:
        raise ConfigError(
            error.what, where=where, why=error.why, next_step=error.next_step
        ) from error


def merge_lora(model: nn.Module) -> None:
    """Add what was learned to the matrices themselves, and take the additions out."""
    surgery.merge_lora(model)
