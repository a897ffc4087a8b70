"""``import_model``: a model of the hub, or of a folder, with its native tokenizer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from domainformer.errors import RegistryError
from domainformer.registry.contents import model_folder
from domainformer.registry.entry import Entry, check_name
from domainformer.registry.hub import fetch, is_repository, look_up
from domainformer.registry.registry import Registry
from domainformer.weights import check_weights, read_model_config


def import_model(
    source: str | Path,
    name: str | None = None,
    *,
    registry: Registry | str | Path = "models",
    revision: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Entry:
    """Bring a language model and its tokenizer into the registry.

    Code of the source is never run and pickles are never fetched or opened. A repository is
    fetched at the one commit that its revision stands for now, which the entry keeps.

    Args:
        source: A local folder (it wins), or a repository of the hub such as
            ``Qwen/Qwen2.5-0.5B``.
        name: Its name; None takes the folder's, or the last part of the repository's.
        registry: The registry, or its folder.
        revision: Branch, tag or commit of a repository; None: its main branch.
        progress: Takes (files done, files in all) of a download.

    Raises:
        RegistryError: The source is neither, cannot be fetched, has only pickles, is no causal
            language model that is known, or the name is taken.
    """
    registry = registry if isinstance(registry, Registry) else Registry(registry)
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise RegistryError(
                "a folder has no revision", where=str(folder), next_step="leave revision out"
            )
        _check_family(model_folder(folder))
        return registry.publish(folder, name)
    text = str(source)
    if not is_repository(text):
        raise RegistryError(
            f"there is no folder {text}",
            why="it is no repository of the hub either: those read ORGANISATION/NAME",
            next_step="check the path",
        )
    return _from_hub(text, name, registry, revision, progress)


def _from_hub(
    source: str,
    name: str | None,
    registry: Registry,
    revision: str | None,
    progress: Callable[[int, int], None] | None,
) -> Entry:
    name = check_name(name or source.split("/")[-1])
    registry.check_free(name)
    repository = look_up(source, revision)
    arriving = registry.root / f".{name}.arriving-{os.getpid()}"
    try:
        shutil.rmtree(arriving, ignore_errors=True)
        arriving.mkdir(parents=True)
        fetch(repository, arriving, progress)
        _check_family(arriving)
        return registry.publish(
            arriving, name, source=source, revision=repository.commit, move=True
        )
    finally:
        shutil.rmtree(arriving, ignore_errors=True)


def _check_family(folder: Path) -> None:
    from domainformer.models.families import adapter_class

    check_weights(folder)
    adapter_class(read_model_config(folder), where=str(folder))
