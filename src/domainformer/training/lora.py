"""LoRA: fine-tuning through low-rank additions to frozen matrices, by ``peft``.

::

    y = W x + (α / r) · B A x        W frozen; A [r, in] and B [out, r] trained, B zero at first

The additions are put into the model in place, so that engine, checkpoints and resuming know nothing
of them, and are merged into the matrices at the end: the bundle is a plain model.

Source: Hu et al., "LoRA: Low-rank adaptation of large language models", arXiv 2106.09685.
"""

from __future__ import annotations

import importlib
from typing import Any

from pydantic import Field
from torch import nn

from domainformer.config import StrictConfig
from domainformer.errors import ConfigError, MissingExtraError, nearest


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
    peft = _peft()
    backbone = model.base_model
    paths = {name for name, part in backbone.named_modules() if isinstance(part, nn.Linear)}
    known = {path.rpartition(".")[2] for path in paths}
    targets = known if config.targets is None else set(config.targets)
    for name in sorted(targets - known):
        raise ConfigError(
            f"the model has no linear layer {name!r}",
            where="lora.targets",
            next_step=nearest(name, known),
        )
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=sorted(path for path in paths if path.rpartition(".")[2] in targets),
    )
    peft.inject_adapter_in_model(settings, backbone)  # also freezes all but the additions


def merge_lora(model: Any) -> None:
    """Add what was learned to the matrices themselves, and take the additions out."""
    layer_class = importlib.import_module("peft.tuners.tuners_utils").BaseTunerLayer
    found = [(name, part) for name, part in model.named_modules() if isinstance(part, layer_class)]
    for name, part in found:
        part.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, part.get_base_layer())
    model.requires_grad_(requires_grad=True)


def _peft() -> Any:
    try:
        return importlib.import_module("peft")
    except ImportError:
        raise MissingExtraError("peft", extra="peft", purpose="LoRA") from None
