"""Reading weights with ``transformers``, without its silence about what did not fit."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as hf_logging

from domainformer.errors import RegistryError
from domainformer.weights import ADAPTER_FILE


def read_pretrained(auto: Any, folder: Path, *, dtype: torch.dtype | None, **options: Any) -> Any:
    """A model from safetensors in a folder: nothing is fetched, no code of the folder is run.

    ``from_pretrained`` fills weights that it does not find with random numbers and goes on; here
    that is an error.

    Args:
        auto: A model class, or an Auto class.
        folder: Where ``config.json`` and the weights are.
        dtype: Cast the weights; None: as they were saved.
        **options: ``device_map``, ``quantization_config``.

    Raises:
        RegistryError: Weights are missing or of another shape, or the configuration is wrong.
    """
    if (folder / ADAPTER_FILE).is_file():
        raise RegistryError(
            "the folder holds a LoRA adapter",
            where=str(folder),
            why="its model would be fetched from elsewhere and mixed in unseen",
            next_step="merge it first (merge_and_unload), then save_pretrained",
        )
    with without_progress_bar(), _quiet():
        try:
            model, info = auto.from_pretrained(
                folder,
                dtype=dtype or "auto",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                **options,
            )
        except Exception as error:
            raise _unreadable(folder, f"{type(error).__name__}: {_line(error)}") from error
    missing = sorted(info["missing_keys"])
    if missing:
        named = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise _unreadable(folder, f"{len(missing)} weights are not in the files: {named}")
    return model


@contextlib.contextmanager
def without_progress_bar() -> Iterator[None]:
    """Transformers draws a bar for every weight file, and stderr is the user's."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What it would warn of is an error here, and said once."""
    level = hf_logging.get_verbosity()
    hf_logging.set_verbosity_error()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no message"


def _unreadable(folder: Path, why: str) -> RegistryError:
    return RegistryError(
        "the model cannot be read",
        where=str(folder),
        why=why,
        next_step="config.json and the weights must be of one model: copy the folder again",
    )
