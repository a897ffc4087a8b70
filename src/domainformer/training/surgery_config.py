"""What of a model learns, when, how fast and through what: the section ``surgery`` of a run.

::

    surgery:
      freeze: ["*.embed_tokens", "*.layers.[01]"]
      unfreeze: {every: 200}
      layer_decay: 0.9

The operations themselves are those of :mod:`domainformer.models.surgery`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field, model_validator
from torch import nn
from transformers import TrainerCallback

from domainformer.config import StrictConfig
from domainformer.errors import ConfigError, SurgeryError
from domainformer.models import surgery
from domainformer.training.lora import LoraConfig, add_to
from domainformer.training.unfreezing import GradualUnfreezing

Groups = Callable[[nn.Module, float, float], list[dict[str, Any]]]


class UnfreezeConfig(StrictConfig):
    """Gradual unfreezing.

    Args:
        every: Optimizer steps after which the next layer down begins to learn.
    """

    every: int = Field(ge=1)


class SurgeryConfig(StrictConfig):
    """The surgery before and during a training.

    Args:
        freeze: Patterns of weights that keep their values: paths, globs, or ``re:`` and a regular
            expression.
        unfreeze: Begin with the head and let one layer more learn every so many steps; None:
            all that is not frozen learns from the start.
        layer_decay: Learning rate of a layer as a share of that of the layer above it; None: one
            rate for all.
        lora: Train low-rank additions to the frozen model, and merge them at the end; None: train
            its weights.
    """

    freeze: tuple[str, ...] = ()
    unfreeze: UnfreezeConfig | None = None
    layer_decay: float | None = Field(None, gt=0, le=1)
    lora: LoraConfig | None = None

    @model_validator(mode="after")
    def _belong_together(self) -> SurgeryConfig:
        if self.lora is not None and (self.freeze or self.unfreeze is not None):
            raise ValueError("lora freezes the whole model: leave freeze and unfreeze out")
        return self


def operate(model: nn.Module, config: SurgeryConfig) -> None:
    """Freeze what shall be frozen, or add what shall be learned instead.

    Args:
        model: Before its training; changed in place.
        config: What to do.

    Raises:
        ConfigError: A pattern matches nothing, everything would be frozen, or a layer that shall
            get an addition does not exist.
        MissingExtraError: peft is not installed.
    """
    if config.lora is not None:
        add_to(model, config.lora, where="surgery.lora.targets")
    if config.freeze:
        try:
            surgery.freeze(model, *config.freeze)
        except SurgeryError as error:
            raise ConfigError(
                error.what, where="surgery.freeze", why=error.why, next_step=error.next_step
            ) from error
    if not any(weight.requires_grad for weight in model.parameters()):
        raise ConfigError(
            "nothing of the model would learn",
            where="surgery.freeze",
            why="its patterns match every weight, tied ones under any of their names",
            next_step="freeze less",
        )


def groups_of(config: SurgeryConfig) -> Groups | None:
    """What makes the parameter groups of the optimizer; None: as always.

    Example:
        >>> groups = groups_of(SurgeryConfig(layer_decay=0.5))
        >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
        >>> [group["lr"] for group in groups(model, 1.0, 0.1)]
        [1.0, 0.5]
    """
    decay = config.layer_decay
    if decay is None:
        return None

    def groups(model: nn.Module, rate: float, weight_decay: float) -> list[dict[str, Any]]:
        return surgery.layerwise_learning_rates(model, rate, decay, weight_decay=weight_decay)

    return groups


def callbacks_of(config: SurgeryConfig, model: nn.Module) -> list[TrainerCallback]:
    """What watches over a training, for a model that was frozen already."""
    if config.unfreeze is None:
        return []
    return [GradualUnfreezing(surgery.unfreeze_gradually(model, every=config.unfreeze.every))]
