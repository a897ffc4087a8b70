"""An adapter folder: the trained selector beside the name of the model that it was trained upon.

::

    folder/
    ├── adapter.json           base model (name, revision, fingerprint), position policy, selector
    ├── adapter.safetensors    the selector's weights; the base model's are not copied
    └── manifest               sizes and checksums, written by ``artifacts.staged_directory``

Scores mean nothing upon other features, so that another base model is refused by its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from domainformer.artifacts import (
    fingerprint,
    read_facts,
    staged_directory,
    verify_directory,
    write_json,
)
from domainformer.errors import FingerprintError, VisionError
from domainformer.models.vision.compressor import RelevanceCompressor
from domainformer.models.vision.compressor_config import CompressorConfig
from domainformer.models.vision.realizer import RelevanceRealizer
from domainformer.version import __version__

FACTS, WEIGHTS = "adapter.json", "adapter.safetensors"
KIND, VERSION = "vision adapter", 1
_SAMPLES = 16


def base_fingerprint(model: nn.Module) -> str:
    """A short name of a model's weights: every parameter's name and shape, and some of its values.

    Values are read as bfloat16, so that the same weights opened as float32 or bfloat16 agree.

    Example:
        >>> one, other = nn.Linear(2, 2), nn.Linear(2, 2)
        >>> base_fingerprint(one) == base_fingerprint(one)
        True
        >>> base_fingerprint(one) == base_fingerprint(other)
        False
    """
    facts = []
    for name, parameter in model.named_parameters():
        flat = parameter.detach().reshape(-1)
        places = torch.linspace(
            0, max(len(flat) - 1, 0), min(_SAMPLES, len(flat)), dtype=torch.float64
        )
        values = flat[places.long().to(flat.device)].to(torch.bfloat16).float().tolist()
        facts.append([name, list(parameter.shape), values])
    return fingerprint(facts)


def base_facts(model: Any) -> dict[str, Any]:
    """Name, revision and fingerprint of a base model, as plain data."""
    return {
        "name": getattr(model.config, "_name_or_path", "") or None,
        "revision": getattr(model.config, "_commit_hash", None),
        "class": type(model).__name__,
        "fingerprint": base_fingerprint(model),
    }


def save_adapter(
    realizer: RelevanceRealizer,
    folder: Path,
    *,
    overwrite: bool = False,
    asking: Mapping[str, Any] | None = None,
) -> Path:
    """Write what is new of a realizer, whole or not at all.

    Args:
        realizer: with a :class:`RelevanceCompressor`.
        folder: to write.
        overwrite: replace an existing folder.
        asking: plain values that say how questions were put in training (``prompt``): put
            otherwise, the same question has other words to choose tokens by.

    Raises:
        VisionError: the selector is none that can be rebuilt from a folder.
        ArtifactError: the folder exists already, or cannot be written.
    """
    selector = realizer.selector
    if not isinstance(selector, RelevanceCompressor):
        raise VisionError(
            f"{type(selector).__name__} is not saved",
            why="a folder holds the configuration and weights of a RelevanceCompressor",
            next_step="build the selector in Python",
        )
    facts = {
        "kind": KIND,
        "format": VERSION,
        "domainformer": __version__,
        "base": base_facts(realizer.model),
        "positions": realizer.positions,
        "selector": selector.config.to_dict(),
        "asking": dict(asking or {}),
    }
    weights = {name: value.contiguous() for name, value in selector.state_dict().items()}
    with staged_directory(folder, overwrite=overwrite, meta={"kind": KIND}) as staging:
        write_json(staging / FACTS, facts)
        save_file(weights, staging / WEIGHTS)
    return folder


def load_adapter(folder: Path, model: nn.Module) -> RelevanceRealizer:
    """Open an adapter folder upon its base model.

    Args:
        folder: written by :func:`save_adapter`.
        model: the base model.

    Raises:
        ArtifactError: the folder is missing, damaged or something else.
        FingerprintError: the adapter was trained upon other weights.
    """
    facts = read_facts(
        folder,
        FACTS,
        kind=KIND,
        version=VERSION,
        remedy="give a folder of RelevanceRealizer.save_pretrained",
    )
    verify_directory(folder)
    base = facts["base"]
    found = base_facts(model)
    if found["fingerprint"] != base["fingerprint"]:
        raise FingerprintError(
            "the adapter was trained upon another model",
            where=str(folder),
            why=f"its base is {_told(base)}; the model is {_told(found)}",
            next_step="open the base model with the revision that the folder names",
        )
    selector = RelevanceCompressor(CompressorConfig.from_dict(facts["selector"]))
    selector.load_state_dict(load_file(folder / WEIGHTS))
    return RelevanceRealizer(model, selector, positions=facts["positions"])


def _told(base: dict[str, Any]) -> str:
    name, revision = base["name"] or f"an unnamed {base['class']}", base["revision"]
    return f"{name}{f' at {revision}' if revision else ''} ({base['fingerprint']})"
