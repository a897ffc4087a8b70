"""Which adapter a model folder needs, from its ``config.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

from domainformer.errors import RegistryError, nearest
from domainformer.models.families.auto import AutoModelAdapter
from domainformer.models.families.base import BY_ARCHITECTURE, BY_MODEL_TYPE, BaseAdapter
from domainformer.weights import check_weights, read_model_config


def adapter_for(
    folder: str | Path,
    *,
    device: str | torch.device | None = "cpu",
    dtype: torch.dtype | None = None,
    **options: Any,
) -> BaseAdapter:
    """Load a model folder with the adapter of its family.

    Args:
        folder: A folder of ``save_checkpoint``, ``save_pretrained``, ``save_bundle``, or a training
            checkpoint: its own ``config.json`` decides, nothing else need be known.
        device: Where the weights shall go; None: where `options` put them.
        dtype: Cast the weights; as they were saved by default.
        **options: For ``from_pretrained``: ``device_map``, ``quantization_config``.

    Raises:
        RegistryError: It is no model folder, has only pickles, or its architecture is no
            causal language model that is known.
    """
    folder = Path(folder)
    chosen = adapter_class(read_model_config(folder), where=str(folder))
    check_weights(folder)
    return chosen.load_checkpoint(folder, device=device, dtype=dtype, **options)


def adapter_class(config: Mapping[str, Any], *, where: str | None = None) -> type[BaseAdapter]:
    """The adapter of a family, by ``architectures``, then ``model_type``, of a ``config.json``.

    Raises:
        RegistryError: Neither names a language model that is known.

    Example:
        >>> adapter_class({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}).__name__
        'QwenAdapter'
        >>> adapter_class({"model_type": "gpt2"}).__name__
        'AutoModelAdapter'
    """
    kind = str(config.get("model_type") or "")
    architecture = str((config.get("architectures") or [""])[0])
    if architecture in BY_ARCHITECTURE:
        return BY_ARCHITECTURE[architecture]
    family = BY_MODEL_TYPE.get(kind)
    if family is None and kind not in CONFIG_MAPPING:
        remote = "auto_map" in config
        raise RegistryError(
            f"the model type {kind!r} is not known",
            where=where,
            why="it needs code of its own, which is never run" if remote else None,
            next_step="define a subclass of BaseAdapter for it"
            if remote
            else nearest(kind, {*BY_MODEL_TYPE, *CONFIG_MAPPING.keys()}),
        )
    expected = _causal_class(kind)
    if (family is None and expected is None) or _is_other(family, architecture, expected):
        raise RegistryError(
            f"{architecture or kind} is no causal language model",
            where=where,
            why=f"models of type {kind} that predict the next token are {expected}"
            if expected
            else f"transformers has none of type {kind}",
            next_step="import the causal model that it was made from",
        )
    return family or AutoModelAdapter


def _causal_class(kind: str) -> str | None:
    config = CONFIG_MAPPING[kind] if kind in CONFIG_MAPPING else None  # noqa: SIM401 - lazy map
    if config is None or config not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    found = MODEL_FOR_CAUSAL_LM_MAPPING[config]
    return str((found[0] if isinstance(found, tuple) else found).__name__)


def _is_other(family: type[BaseAdapter] | None, architecture: str, expected: str | None) -> bool:
    """Whether the weights are of another head than the one that would be loaded over them.

    A family that reads its models itself knows its heads.
    """
    reads_itself = family is not None and "read_model" in vars(family)
    return not reads_itself and bool(architecture) and expected not in (None, architecture)
