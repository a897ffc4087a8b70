"""Files of weights, as every layer may look at them: safetensors, never pickles, never code.

A model folder as ``transformers`` writes it::

    config.json                          architecture and sizes
    model.safetensors                    the tensors; or shards, named by …
    model.safetensors.index.json         … the index
    tokenizer.json, …                    text to ids

A pickle runs whatever its author wrote into it as soon as it is opened, so a folder that has
nothing else is refused. A safetensors file is a JSON header (names, types, shapes) and bytes: its
header alone tells how many parameters there are, without loading any::

    8 bytes: length n of the header │ n bytes: JSON │ the tensors

Source: https://github.com/huggingface/safetensors, "Format". Neither torch nor transformers is
imported here.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from domainformer.errors import RegistryError

CONFIG_FILE = "config.json"
ADAPTER_FILE = "adapter_config.json"
INDEX_FILE = "model.safetensors.index.json"
SUFFIX = ".safetensors"
# What torch, pickle, joblib, Keras and Flax write: opening any of them may run code, or needs a
# framework that is not used here.
PICKLED = frozenset(
    {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".h5", ".msgpack"}
)
# Files of that kind which are no weights: without them a model is still whole.
_NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "rng", "random_states", "scaler")
_MAX_HEADER = 100_000_000
_MAX_CONFIG = 16 << 20


def is_pickle(name: str) -> bool:
    """Whether a file of that name may run code when it is opened.

    Example:
        >>> is_pickle("pytorch_model.bin"), is_pickle("model.safetensors")
        (True, False)
    """
    return PurePosixPath(name).suffix.lower() in PICKLED


def weight_files(names: Iterable[str], *, where: str) -> tuple[str, ...]:
    """The safetensors files among the names of a model folder.

    Args:
        names: Names of files, relative to the folder.
        where: The folder or repository, for the errors.

    Raises:
        RegistryError: There are only pickles, or no weights at all.

    Example:
        >>> weight_files(["config.json", "model.safetensors", "training_args.bin"], where="here")
        ('model.safetensors',)
        >>> weight_files(["config.json", "pytorch_model.bin"], where="here")
        Traceback (most recent call last):
        ...
        domainformer.errors.RegistryError: the weights are pickles, which are refused
          where: here
          why:   opening pytorch_model.bin may run any code; there is no .safetensors beside it
          next:  ask for safetensors, or convert a copy that you trust with save_pretrained
    """
    listed = sorted(names)
    found = tuple(name for name in listed if name.endswith(SUFFIX) and "/" not in name)
    if found:
        return found
    pickles = [
        name
        for name in listed
        if is_pickle(name) and not PurePosixPath(name).name.startswith(_NO_WEIGHTS)
    ]
    if pickles:
        raise RegistryError(
            "the weights are pickles, which are refused",
            where=where,
            why=f"opening {', '.join(pickles[:3])} may run any code; "
            "there is no .safetensors beside it",
            next_step="ask for safetensors, or convert a copy that you trust with save_pretrained",
        )
    raise RegistryError(
        "there are no weights",
        where=where,
        why="no file ends in .safetensors",
        next_step="give a folder as save_pretrained writes it, or the model/ folder of a run",
    )


def check_weights(folder: Path) -> tuple[str, ...]:
    """The weight files of a folder, all there and with readable headers.

    Raises:
        RegistryError: Only pickles, none, a shard of the index is missing, or a file is damaged.
    """
    if not folder.is_dir():
        raise RegistryError(f"there is no folder {folder}", next_step="check the path")
    found = weight_files(
        (path.name for path in folder.iterdir() if path.is_file()), where=str(folder)
    )
    index = folder / INDEX_FILE
    if index.is_file():
        named = set(_read_json(index).get("weight_map", {}).values())
        missing = sorted(str(name) for name in named - set(found))
        if missing:
            raise RegistryError(
                "weights are missing",
                where=str(folder),
                why=f"{INDEX_FILE} names {', '.join(missing[:3])}",
                next_step="copy the folder again, with all of its files",
            )
    for name in found:
        read_header(folder / name)
    return found


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Names, types and shapes of the tensors in a safetensors file; no tensor is read.

    Returns:
        For each tensor ``dtype``, ``shape`` and ``data_offsets``.

    Raises:
        RegistryError: The file is cut off, or no safetensors file.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > min(_MAX_HEADER, size - 8):
                raise ValueError(f"its header would have {length:,} bytes, the file has {size:,}")
            header: dict[str, Any] = json.loads(handle.read(length))
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if 8 + length + end != size:
            raise ValueError(f"it has {size:,} bytes, its header speaks of {8 + length + end:,}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise RegistryError(
            f"{path.name} is no whole safetensors file",
            where=str(path),
            why=str(error),
            next_step="copy or download it again",
        ) from error
    return header


def parameter_count(folder: Path, names: Iterable[str]) -> int:
    """How many numbers the weight files hold (tied weights are stored, and counted, once)."""
    return sum(
        math.prod(entry["shape"]) for name in names for entry in read_header(folder / name).values()
    )


def read_model_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a model folder.

    Raises:
        RegistryError: There is none, or it is no JSON object.
    """
    path = folder / CONFIG_FILE
    if path.is_file():
        return _read_json(path)
    if (folder / ADAPTER_FILE).is_file():
        raise RegistryError(
            f"{folder} is no model folder",
            why="it holds a LoRA adapter without its model",
            next_step="merge it into its model (merge_and_unload), then save_pretrained",
        )
    raise RegistryError(
        f"{folder} is no model folder",
        why=f"it has no {CONFIG_FILE}",
        next_step="give a folder as save_pretrained writes it, or the model/ folder of a run",
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_CONFIG:
            raise ValueError("it is larger than 16 MiB")
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise TypeError(f"it holds a {type(value).__name__}, not an object")
    except (OSError, ValueError, TypeError) as error:
        raise RegistryError(
            f"{path.name} cannot be read",
            where=str(path),
            why=str(error),
            next_step="copy or download the folder again",
        ) from error
    return value
