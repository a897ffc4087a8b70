"""What is checked, from where it lies: a model folder, a class in a file, a text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from domainformer.errors import ConfigError, DataError, RegistryError
from domainformer.evaluation.checks.source import TextWindows
from domainformer.inference.bundle import is_bundle, load_bundle
from domainformer.inference.fusion import FUSION_FILE, FusionPredictor
from domainformer.models.families import adapter_for
from domainformer.models.families.base import BY_ARCHITECTURE, BY_MODEL_TYPE
from domainformer.models.families.loading import read_pretrained
from domainformer.models.universal.pretrained import UniversalForCausalLM
from domainformer.models.universal.source import load_source
from domainformer.weights import check_weights, read_model_config


def open_model(
    folder: str | Path | None,
    *,
    source: str | None = None,
    arguments: str | Mapping[str, Any] | None = None,
    trust: bool = False,
) -> tuple[nn.Module, Any, bool | None]:
    """A model to be checked: of a folder, of a class in a file, or of both.

    Args:
        folder: A model folder; with ``source``, the weights that ``save_pretrained`` of
            :class:`~domainformer.models.universal.pretrained.UniversalForCausalLM` wrote.
        source: ``FILE:Class``.
        arguments: Keywords of its constructor, also as JSON.
        trust: Run the file in this process, after it ran within limits.

    Returns:
        The model, a text tokenizer if there is one, and whether it was trained (None: not known).

    Raises:
        ConfigError: Neither is given, or the file is not trusted.
        AdapterError: The file or the constructor fails.
        DataError: There is no such folder.
    """
    if source is None:
        if folder is None:
            raise ConfigError(
                "no model was given", next_step="give a model folder, or --source FILE:Class"
            )
        return *open_folder(folder), True
    path, _, name = source.rpartition(":")
    if not path:
        raise ConfigError(f"{source!r} names no class", next_step="write FILE:Class")
    if not trust:
        raise ConfigError(
            f"checks run {name} in this process, and its file is not trusted",
            where=path,
            next_step=f"read it (domainformer inspect {source} --run), then add --trust",
        )
    given = _arguments(arguments)
    found = load_source(path, name, arguments=given, trust=True).model_class
    assert found is not None
    if folder is None:
        return found(**given), None, False
    adapted = UniversalForCausalLM.from_pretrained(folder, module=found(**given))
    return adapted, _tokenizer(Path(folder)), True


def _arguments(given: str | Mapping[str, Any] | None) -> dict[str, Any]:
    if not isinstance(given, str):
        return dict(given or {})
    try:
        found = json.loads(given)
    except ValueError as error:
        raise ConfigError("the arguments are no JSON", where=given, why=str(error)) from error
    if not isinstance(found, dict):
        raise ConfigError("the arguments are no mapping", where=given)
    return found


def open_folder(folder: str | Path) -> tuple[nn.Module, Any]:
    """The model of a folder and its text tokenizer, if it has one; code in it is never run.

    Args:
        folder: A bundle, a fusion model, a model folder of transformers, or a run folder that
            holds one as ``model/``.

    Raises:
        DataError: There is no such folder.
        RegistryError: It is damaged, or its architecture needs code of its own.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}",
            next_step="give a model folder, or --source FILE:Class for a class of your own",
        )
    if (folder / "model").is_dir() and not (folder / "config.json").is_file():
        folder = folder / "model"
    config = read_model_config(folder)
    if "fusion" in str(config.get("model_type", "")) or (folder / FUSION_FILE).is_file():
        return FusionPredictor.load(folder).model, None
    if is_bundle(folder):
        return load_bundle(folder).model, None
    return _of_transformers(folder, config), _tokenizer(folder)


def _of_transformers(folder: Path, config: Mapping[str, Any]) -> nn.Module:
    named = str((config.get("architectures") or [""])[0])
    if named in BY_ARCHITECTURE or str(config.get("model_type")) in BY_MODEL_TYPE:
        return adapter_for(folder).model
    check_weights(folder)
    found = getattr(transformers, named, None) if named else AutoModelForCausalLM
    if found is None:
        raise RegistryError(
            f"transformers has no {named}",
            where=str(folder / "config.json"),
            why="it needs code of its own, which is never run",
            next_step="load it yourself, then check(model) in Python",
        )
    model: nn.Module = read_pretrained(found, folder, dtype=None)
    return model.eval()


def _tokenizer(folder: Path) -> Any:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise RegistryError(
            "the tokenizer cannot be read", where=str(folder), why=str(error).splitlines()[0][:200]
        ) from error


def read_text(text: str | Path, tokenizer: Any, *, vocab_size: int, shortest: int) -> TextWindows:
    """A text, or a file of one, as ids.

    Args:
        text: The text itself; a :class:`~pathlib.Path` is read.
        tokenizer: Called with a text, it gives ``input_ids``.
        vocab_size: Of the model.
        shortest: Tokens that the held-out part must have.

    Raises:
        ConfigError: There is no tokenizer.
        DataError: The file cannot be read, is too short, or has ids that the model does not know.
    """
    if tokenizer is None:
        raise ConfigError(
            "a text needs a tokenizer",
            why="the model folder has none for text",
            next_step="check(model, text=…, tokenizer=…), or leave the text out",
        )
    if isinstance(text, Path):
        try:
            text = text.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError("the text cannot be read", where=str(text), why=str(error)) from error
    found = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = torch.as_tensor(found, dtype=torch.long).flatten()
    if len(ids) and int(ids.max()) >= vocab_size:
        raise DataError(
            f"the tokenizer gives the id {int(ids.max())}, and the model knows {vocab_size}",
            next_step="give the tokenizer that the model was made with",
        )
    return TextWindows(ids, shortest=shortest)
