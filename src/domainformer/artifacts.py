"""Writing folders that are either whole or not there.

Stores, tokenizers, model directories and checkpoints are folders of several files. Each is
written to a staging folder beside its target, described by a manifest of checksums, flushed to
the disk, and renamed into place: a reader sees the old state or the new one, never a mixture::

    target.staging-1234/ ──write files──▶ manifest.json ──fsync──▶ rename ──▶ target/
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from domainformer.errors import ArtifactError

MANIFEST = "manifest.json"
_CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """A short, stable name (16 hexadecimal digits) for plain JSON-like data.

    Example:
        >>> fingerprint({"b": 1, "a": [2]}) == fingerprint({"a": [2], "b": 1})
        True
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def fsync_path(path: Path) -> None:
    """Flush one file or folder entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically (staging file, fsync, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.staging-{os.getpid()}")
    try:
        with staging.open("w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        staging.replace(path)
        fsync_path(path.parent)
    except OSError as error:
        staging.unlink(missing_ok=True)
        raise _disk_error(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically; keys keep their order, text stays readable."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


@contextlib.contextmanager
def staged_directory(
    target: Path, *, overwrite: bool = False, meta: Mapping[str, Any] | None = None
) -> Iterator[Path]:
    """Write a folder so that it appears whole or not at all.

    Yields a staging folder to write into. On a clean exit a manifest of sizes and checksums is
    added, everything is flushed, and the folder is renamed to ``target``. On an error the staging
    folder is removed and an existing ``target`` is left as it was.

    Args:
        target: Where the folder shall appear.
        overwrite: Replace an existing folder; otherwise it is an error.
        meta: Plain data kept in the manifest under ``"meta"``.

    Raises:
        ArtifactError: The target exists, or the disk is full or not writable.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp()) / "numbers"
        >>> with staged_directory(folder) as staging:
        ...     _ = (staging / "one.txt").write_text("1")
        >>> sorted(read_manifest(folder)["files"])
        ['one.txt']
    """
    target = Path(target)
    if target.exists() and not overwrite:
        raise ArtifactError(
            f"{target} exists already",
            next_step="choose another path, or pass overwrite=True (--overwrite) to replace it",
        )
    staging = target.with_name(f"{target.name}.staging-{os.getpid()}")
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        yield staging
        _write_manifest(staging, dict(meta or {}))
        _swap(staging, target)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise _disk_error(target, error) from error
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished folder.

    Raises:
        ArtifactError: The folder or its manifest is missing or unreadable, so it was never
            finished.
    """
    path = Path(folder) / MANIFEST
    if not Path(folder).is_dir():
        raise ArtifactError(f"there is no folder {folder}", next_step="check the path")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder} is incomplete",
            why=f"it has no {MANIFEST}, which is written last",
            next_step="write it again; what is there cannot be trusted",
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read", why=str(error)) from error
    return manifest


def read_facts(folder: Path, name: str, *, kind: str, version: int, remedy: str) -> dict[str, Any]:
    """What a finished folder tells about itself in a JSON file that names its format.

    Args:
        folder: A folder written by :func:`staged_directory`.
        name: The file.
        kind: What the folder should be, for the errors: ``"bundle"``.
        version: The format that this version of domainformer reads.
        remedy: The next step where the folder is something else.

    Raises:
        ArtifactError: The folder is unfinished, something else, unreadable or of another format.
    """
    read_manifest(folder)
    path = folder / name
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ArtifactError(
            f"{folder} is not a {kind}", why=f"it has no {name}", next_step=remedy
        ) from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read", why=str(error)) from error
    if facts.get("format") != version:
        raise ArtifactError(
            f"{folder} has {kind.removesuffix(' model')} format {facts.get('format')!r}",
            why=f"this version of domainformer reads format {version}",
            next_step=f"use domainformer {facts.get('domainformer')}, which wrote it",
        )
    return facts


def verify_directory(folder: Path, *, checksums: bool = True) -> dict[str, Any]:
    """Check a finished folder against its manifest and return the manifest.

    Args:
        folder: A folder written by :func:`staged_directory`.
        checksums: Read every byte (time grows with size); otherwise only names and sizes.

    Raises:
        ArtifactError: A file is missing, has another size, or other content.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name, entry in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise ArtifactError(
                f"{folder} is incomplete",
                where=name,
                why="the file is missing",
                next_step="restore it from a copy or write it again",
            )
        size = path.stat().st_size
        if size != entry["bytes"]:
            raise ArtifactError(
                f"{folder} is damaged",
                where=name,
                why=f"the file has {size} bytes and should have {entry['bytes']}",
                next_step="restore it from a copy or write it again",
            )
        if checksums and sha256_file(path) != entry["sha256"]:
            raise ArtifactError(
                f"{folder} is damaged",
                where=name,
                why="its content differs from the checksum in the manifest",
                next_step="restore it from a copy or write it again",
            )
    return manifest


def _write_manifest(staging: Path, meta: dict[str, Any]) -> None:
    files = {}
    for path in sorted(p for p in staging.rglob("*") if p.is_file()):
        name = path.relative_to(staging).as_posix()
        files[name] = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
        fsync_path(path)
    text = json.dumps({"meta": meta, "files": files}, indent=2, ensure_ascii=False, default=str)
    with (staging / MANIFEST).open("w", encoding="utf-8") as handle:
        handle.write(text + "\n")
        handle.flush()
        os.fsync(handle.fileno())
    for path in sorted(p for p in staging.rglob("*") if p.is_dir()):
        fsync_path(path)
    fsync_path(staging)


def _swap(staging: Path, target: Path) -> None:
    """Put the staged folder in place; an old one steps aside first and goes last."""
    retired = target.with_name(f"{target.name}.retired-{os.getpid()}")
    had_old = target.exists()
    if had_old:
        shutil.rmtree(retired, ignore_errors=True)
        target.rename(retired)
    try:
        staging.rename(target)
    except OSError:
        if had_old:
            retired.rename(target)
        raise
    fsync_path(target.parent)
    shutil.rmtree(retired, ignore_errors=True)


def _disk_error(target: Path, error: OSError) -> ArtifactError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return ArtifactError(
        f"{target} could not be written" + (": the disk is full" if full else ""),
        why=str(error),
        next_step=(
            "free some space or choose another disk; nothing half-written was left"
            if full
            else "check the path and its permissions; nothing half-written was left"
        ),
    )
