"""``load_model``: open a model wherever it is, with the options that transformers knows."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from domainformer.artifacts import staged_directory
from domainformer.errors import ConfigError, MissingExtraError, RegistryError, nearest
from domainformer.inference.bundle import Bundle, is_bundle, load_bundle
from domainformer.inference.fusion import FUSION_FILE, FusionPredictor
from domainformer.models.families import BaseAdapter, adapter_for
from domainformer.registry import Registry
from domainformer.registry.contents import model_folder
from domainformer.registry.hub import fetch, is_repository, look_up

Model = Bundle | FusionPredictor | BaseAdapter
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    source: str | Path,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: Any = None,
    quantization: Any = None,
    overrides: Mapping[str, Any] | None = None,
    registry: str | Path = "models",
) -> Model:
    """Open a model of any kind that this library has made or can use.

    ::

        folder or run ─┐
        registry name ─┼─▶ fusion model │ bundle of events │ language model of any family
        hub @ revision ┘   (code in a folder is never run, pickles are never opened)

    Args:
        source: A folder, a run folder, a name of the registry, or ``ORGANISATION/NAME`` of the hub.
        revision: Branch, tag or commit of a repository of the hub.
        dtype: ``float32``, ``bfloat16``, ``float16`` or torch's own; None: as it was saved.
        device: Where the weights go; None: the processor.
        device_map: As in ``from_pretrained``, such as ``"auto"``; decides in place of `device`.
        quantization: ``"8bit"``, ``"4bit"`` or a configuration of transformers
            (``BitsAndBytesConfig``, ``TorchAoConfig``…).
        overrides: Attributes of the configuration to change, such as
            ``{"attention_dropout": 0.1}``.
        registry: Folder of the registry.

    Raises:
        RegistryError: There is no such model, or it cannot be used.
        ConfigError: An option is unknown, or does not fit the kind of model.
        MissingExtraError: Quantisation was asked for and its package is not installed.

    Example:
        >>> import tempfile
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> folder = Path(tempfile.mkdtemp()) / "model"
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=9, num_hidden_layers=1)
        >>> DomainTransformerForCausalLM(config).save_pretrained(folder)
        >>> adapter = load_model(folder, dtype="bfloat16", overrides={"attention_dropout": 0.1})
        >>> adapter.model.dtype, adapter.model.config.attention_dropout
        (torch.bfloat16, 0.1)
    """
    folder = find_model(source, revision=revision, registry=registry)
    options = _options(device_map, quantization)
    kind = torch_dtype(dtype)
    if (folder / FUSION_FILE).is_file():
        if options or overrides or kind not in (None, torch.float32):
            raise ConfigError(
                "a fusion model is opened as it was saved",
                where=str(folder),
                why="its scaling needs full precision, and its parts fit each other alone",
                next_step="leave dtype, device_map, quantization and overrides out",
            )
        return FusionPredictor.load(folder, device=device or "cpu")
    place = None if options else device or "cpu"
    if is_bundle(folder):
        found: Any = load_bundle(folder, device=place, dtype=kind, **options)
    else:
        found = adapter_for(folder, device=place, dtype=kind, **options)
    _override(found.model.config, overrides or {}, where=str(folder))
    return found


def find_model(
    source: str | Path, *, revision: str | None = None, registry: str | Path = "models"
) -> Path:
    """The folder of a model, fetched from the hub where it is there.

    A commit is fetched once: its folder in the cache is named by it and checked by its manifest.

    Raises:
        RegistryError: There is no such model.
    """
    if Path(source).is_dir():
        if revision is not None:
            raise RegistryError("a folder has no revision", where=str(source))
        return model_folder(Path(source))
    known = Registry(registry)
    names = [entry.model_name for entry in known.list()]
    if str(source) in names:
        return known.folder(str(source))
    text = str(source)
    if "/" not in text or not is_repository(text):
        raise RegistryError(
            f"there is no model {text!r}",
            why="it is no folder, no name of the registry and no ORGANISATION/NAME of the hub",
            next_step=nearest(text, names) or "check the path",
        )
    repository = look_up(text, revision)
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "domainformer" / "hub"
    target = cache / f"{text.replace('/', '--')}@{repository.commit[:12]}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with staged_directory(target, overwrite=True, meta={"source": text}) as staging:
            fetch(repository, staging)
    return target


def torch_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A type of torch by its name.

    Raises:
        ConfigError: There is no such type, or models cannot have it.

    Example:
        >>> torch_dtype("bfloat16")
        torch.bfloat16
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ConfigError(
            f"there is no dtype {dtype!r} for weights", next_step=nearest(name, _DTYPES)
        )
    return _DTYPES[name]


def _options(device_map: Any, quantization: Any) -> dict[str, Any]:
    """What goes to ``from_pretrained`` as it is."""
    options: dict[str, Any] = {}
    if device_map is not None:
        options["device_map"] = device_map
    if quantization in ("8bit", "4bit"):
        if importlib.util.find_spec("bitsandbytes") is None:
            raise MissingExtraError(
                "bitsandbytes", extra="quantization", purpose=f"opening a model in {quantization}"
            )
        from transformers import BitsAndBytesConfig

        eight = quantization == "8bit"
        quantization = BitsAndBytesConfig(load_in_8bit=eight, load_in_4bit=not eight)
    elif isinstance(quantization, str):
        raise ConfigError(
            f"there is no quantization {quantization!r}",
            next_step="'8bit', '4bit', or a configuration of transformers",
        )
    if quantization is not None:
        options["quantization_config"] = quantization
    return options


def _override(config: Any, overrides: Mapping[str, Any], *, where: str) -> None:
    known = set(config.to_dict())
    for key, value in overrides.items():
        if key not in known:
            raise ConfigError(
                f"the configuration has no {key!r}", where=where, next_step=nearest(key, known)
            )
        setattr(config, key, value)
