"""Bringing a model's files into the registry so that they are there whole, or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from domainformer.artifacts import fsync_path, sha256_file
from domainformer.errors import RegistryError
from domainformer.registry.contents import files_of


def stage_files(folder: Path, staging: Path, *, link: bool = False) -> dict[str, str]:
    """Copy a model's files, flushed to the disk, with the SHA-256 of each.

    Args:
        folder: Where they are; links to files are followed, as the hub's cache has them.
        staging: A folder to make; or the same one, then they are only read.
        link: Share the bytes where the file system can, for files that will go from `folder`.

    Raises:
        RegistryError: A file cannot be read, or the disk is full.
    """
    try:
        if staging != folder:
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir(parents=True)
        files = {}
        for name in files_of(folder):
            source, goal = folder / name, staging / name
            if staging != folder:
                goal.parent.mkdir(parents=True, exist_ok=True)
                if not (link and _linked(source, goal)):
                    shutil.copyfile(source, goal)
            fsync_path(goal)
            files[name] = sha256_file(goal)
        fsync_path(staging)
    except OSError as error:
        raise RegistryError(
            f"{folder} could not be copied into the registry",
            where=str(staging.parent),
            why=str(error),
            next_step="free some space or check the permissions; the registry is unchanged",
        ) from error
    return files


@contextlib.contextmanager
def undone_on_error(staging: Path, target: Path) -> Iterator[Callable[[], None]]:
    """Hand out what puts a staged folder in place; take it back if what follows fails.

    The order is kept (folder, then entry), and a folder that was replaced goes last.
    """
    retired = target.with_name(f".{target.name}.retired-{os.getpid()}")
    swapped = False

    def swap() -> None:
        nonlocal swapped
        if target.exists():
            target.rename(retired)
        staging.rename(target)
        # Writing the registry, in the same folder, flushes this rename too.
        swapped = True

    try:
        yield swap
    except BaseException:
        if swapped:
            target.rename(staging)
        if retired.exists():
            retired.rename(target)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _linked(source: Path, goal: Path) -> bool:
    if source.is_symlink():
        return False
    try:
        os.link(source, goal)
    except OSError:  # another file system, or one without hard links
        return False
    return True
