"""Fetching a model from the hub: one commit, safetensors only, every file checked.

::

    org/name@main ─▶ commit 3f2a… ─▶ names of files ─▶ no pickles, no code ─▶ download, compare with
                     (pinned)                                                  the hub's checksums
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from domainformer.artifacts import sha256_file
from domainformer.errors import RegistryError
from domainformer.weights import weight_files

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Beside the weights: configuration, tokenizers of every kind, the card, the license.
_SUFFIXES = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".yaml", ".md")
_FOLDERS = ("", "additional_chat_templates")


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at one commit.

    Args:
        name: Such as ``Qwen/Qwen2.5-0.5B``.
        commit: The commit that the revision stood for.
        files: What is to be fetched, as the hub describes it, by path.
    """

    name: str
    commit: str
    files: dict[str, Any]


def is_repository(source: str) -> bool:
    """Whether a source reads like a repository of the hub.

    Example:
        >>> is_repository("Qwen/Qwen2.5-0.5B"), is_repository("./models/qwen")
        (True, False)
    """
    return _REPOSITORY.fullmatch(source) is not None and ".." not in source


def look_up(source: str, revision: str | None = None) -> Repository:
    """Pin a revision to its commit, and choose the files to fetch.

    Raises:
        RegistryError: There is no such repository or revision, it is gated, it has only pickles,
            or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    info = ask(
        lambda: HfApi().model_info(source, revision=revision, files_metadata=True), source, revision
    )
    files = {one.rfilename: one for one in info.siblings or () if _is_wanted(one.rfilename)}
    weight_files((one.rfilename for one in info.siblings or ()), where=source)
    return Repository(source, str(info.sha), files)


def fetch(
    repository: Repository, target: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Download a repository's files into an empty folder and compare each with its checksum.

    Args:
        repository: What :func:`look_up` gave.
        target: The folder.
        progress: Takes (files done, files in all).

    Raises:
        RegistryError: The hub cannot be reached, or a file is not what the hub says.
    """
    from huggingface_hub import hf_hub_download

    for done, (name, described) in enumerate(sorted(repository.files.items())):
        if progress is not None:
            progress(done, len(repository.files))
        ask(
            lambda name=name: hf_hub_download(  # type: ignore[misc]
                repository.name, name, revision=repository.commit, local_dir=target
            ),
            repository.name,
            repository.commit,
        )
        _compare(target / name, name, described, repository)


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name)
    parent = "" if str(path.parent) == "." else str(path.parent)
    if parent not in _FOLDERS or path.name.startswith("."):
        return False
    weights = path.suffix == ".safetensors" and not parent
    return weights or path.suffix in _SUFFIXES or path.name.upper().startswith("LICENSE")


def _compare(path: Path, name: str, described: Any, repository: Repository) -> None:
    """Large files are known to the hub by SHA-256, small ones by git's hash of a blob."""
    if described.lfs is not None:
        expected, found = described.lfs.sha256, sha256_file(path)
    elif described.blob_id:
        content = path.read_bytes()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
        expected, found = described.blob_id, blob.hexdigest()
    else:
        return
    if found != expected:
        raise RegistryError(
            f"{name} arrived damaged",
            where=f"{repository.name}@{repository.commit[:12]}",
            why=f"the hub names {expected[:12]}…, what came is {found[:12]}…",
            next_step="import it again; nothing was registered",
        )


def ask(
    question: Callable[[], Any], source: str, revision: str | None, *, deed: str = "fetched from"
) -> Any:
    """Ask the hub, and say in our words what it refuses.

    Args:
        question: What asks.
        source: The repository.
        revision: Its branch, tag or commit.
        deed: What is being done, as it completes "… cannot be … the hub".
    """
    from huggingface_hub import errors

    def _refused(source: str, why: str, step: str) -> RegistryError:
        return RegistryError(f"{source} cannot be {deed} the hub", why=why, next_step=step)

    try:
        return question()
    except errors.GatedRepoError as error:
        why, step = "its owner asks for consent first", "accept its terms on its page, and log in"
        raise _refused(source, why, step) from error
    except errors.RevisionNotFoundError as error:
        step = "check the branch, tag or commit"
        raise _refused(source, f"it has no revision {revision!r}", step) from error
    except errors.RepositoryNotFoundError as error:
        why = "the hub has no such repository (or it is private), and there is no such folder"
        raise _refused(source, why, "check the name: ORGANISATION/NAME, or a path") from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        step = "unset HF_HUB_OFFLINE, or import a local folder"
        raise _refused(source, _line(error), step) from error
    except errors.HFValidationError as error:
        raise _refused(source, _line(error), "check the name: ORGANISATION/NAME") from error
    # Beside its own, whatever its HTTP client raises: timeouts, broken connections, certificates.
    except Exception as error:
        step = "check the connection and try again; nothing was registered"
        if deed != "fetched from":
            step = "check the connection, the token (hf auth login) and its rights"
        raise _refused(source, f"{type(error).__name__}: {_line(error)}", step) from error


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no message"
