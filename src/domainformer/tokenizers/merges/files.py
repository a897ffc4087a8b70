"""Merges as one JSON file: format version, checksum, and rows that a person can read."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from domainformer.artifacts import write_text
from domainformer.errors import ArtifactError, DomainformerError

KIND = "domainformer.merges"
VERSION = 1
_REMEDY = "restore it from a copy, or learn the merges again"


def write(path: Path, state: dict[str, Any], *, overwrite: bool) -> Path:
    """Write a state with its checksum, whole or not at all.

    Raises:
        ArtifactError: The file exists, or cannot be written.
    """
    if path.exists() and not overwrite:
        raise ArtifactError(
            f"{path} exists already",
            next_step="choose another path, or pass overwrite=True (--overwrite) to replace it",
        )
    head = {"kind": KIND, "version": VERSION, "sha256": _checksum(state)}
    write_text(path, json.dumps({**head, "state": state}, ensure_ascii=False) + "\n")
    return path


def read(path: Path) -> dict[str, Any]:
    """The state of a file that `write` has written.

    Raises:
        ArtifactError: It is missing, damaged, something else, or of a newer version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(f"there is no file {path}", next_step="check the path") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read", why=str(error), next_step=_REMEDY) from error
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ArtifactError(
            f"{path} holds no merges",
            why=f"it does not say that it is of kind {KIND!r}",
            next_step="give the file that ActionPieceMerges.save has written",
        )
    version = content.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise ArtifactError(
            f"{path} has the format version {version!r}",
            why=f"this domainformer reads up to {VERSION}",
            next_step="pip install --upgrade domainformer",
        )
    state = content.get("state")
    if not isinstance(state, dict) or content.get("sha256") != _checksum(state):
        raise ArtifactError(
            f"{path} is damaged",
            why="its content differs from its checksum",
            next_step=_REMEDY,
        )
    return state


@contextlib.contextmanager
def as_damage(path: Path) -> Iterator[None]:
    """Turn what a state of the wrong shape raises into an artifact error."""
    try:
        yield
    except (DomainformerError, KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} is damaged",
            why=f"{type(error).__name__}: {error}",
            next_step=_REMEDY,
        ) from error


def _checksum(state: dict[str, Any]) -> str:
    text = json.dumps(state, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
