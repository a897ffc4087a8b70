"""A fitted SemanticIdTokenizer as a folder, with what new entities need to get their codes.

::

    semantic_ids.json    the field, every entity's id, and how features read columns
    model.safetensors    features and codebooks; only where there is a model
    manifest.json        size and SHA-256 of each, written last
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from domainformer.artifacts import fsync_path, staged_directory, verify_directory, write_json
from domainformer.errors import ArtifactError
from domainformer.schema.fields import FieldSpec
from domainformer.tokenizers.semantic.model import SemanticModel
from domainformer.tokenizers.semantic.tokenizer import SemanticIdTokenizer
from domainformer.version import __version__

KIND = "domainformer.semantic_ids"
VERSION = 1
STATE_FILE = "semantic_ids.json"
MODEL_FILE = "model.safetensors"


def write_tokenizer(tokenizer: SemanticIdTokenizer, folder: Path, *, overwrite: bool) -> Path:
    """Write a fitted tokenizer; the folder appears whole or not at all."""
    model = tokenizer.model
    state = {
        "kind": KIND,
        "version": VERSION,
        "domainformer": __version__,
        "field": tokenizer.spec.options(),
        "features": None if model is None else model.features.state(),
        "ids": tokenizer.state(),
    }
    with staged_directory(folder, overwrite=overwrite, meta={"kind": KIND}) as staging:
        write_json(staging / STATE_FILE, state)
        if model is not None:
            save_file(dict(sorted(model.arrays().items())), str(staging / MODEL_FILE))
            fsync_path(staging / MODEL_FILE)
    return folder


def read_tokenizer(folder: Path) -> SemanticIdTokenizer:
    """Read a folder that `write_tokenizer` has written.

    Raises:
        ArtifactError: It is missing, incomplete, changed, of another kind or a newer version.
    """
    manifest = verify_directory(folder)
    if manifest.get("meta", {}).get("kind") != KIND:
        raise ArtifactError(
            f"{folder} holds no semantic ids",
            next_step="give a folder written by SemanticIdTokenizer.save",
        )
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        if state["version"] != VERSION:
            raise ArtifactError(
                f"{folder} has version {state['version']!r}",
                why=f"this version of domainformer ({__version__}) reads version {VERSION}",
                next_step=f"use domainformer {state.get('domainformer')}, which wrote it",
            )
        tokenizer = SemanticIdTokenizer.from_state(FieldSpec(**state["field"]), state["ids"])
        return tokenizer.with_model(_read_model(folder, state))
    except (OSError, ValueError, KeyError, TypeError, IndexError, SafetensorError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(
            f"{folder} cannot be read",
            why=f"{type(error).__name__}: {error}",
            next_step="restore the folder from a copy, or fit and save the semantic ids again",
        ) from error


def _read_model(folder: Path, state: dict[str, Any]) -> SemanticModel | None:
    if state["features"] is None:
        return None
    arrays = {name: np.asarray(a) for name, a in load_file(str(folder / MODEL_FILE)).items()}
    return SemanticModel.restored(state["features"], arrays)
