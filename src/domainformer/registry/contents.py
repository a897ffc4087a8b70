"""What a model folder holds: files to take, checksums, and what it says of itself.

Nothing is loaded: ``config.json``, the headers of weight files, the model card and the notes that
our own training leaves (``lineage.json``, a bundle's ``domainformer.json``, a run's ``run.json``)
are read as plain data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainformer.artifacts import (
    MANIFEST,
    fingerprint,
    read_manifest,
    sha256_file,
    verify_directory,
)
from domainformer.config import parse_yaml
from domainformer.errors import DomainformerError, RegistryError
from domainformer.registry.entry import Sizes
from domainformer.run import RUN_FILE, read_run
from domainformer.weights import check_weights, is_pickle, parameter_count, read_model_config

CARD_FILE = "README.md"
LINEAGE_FILE = "lineage.json"
BUNDLE_FILE = "domainformer.json"
FUSION_FILE = "fusion.json"
# The only folder inside a model's that transformers reads.
_SUBFOLDERS = ("additional_chat_templates",)
_VOLATILE = ("transformers_version", "_name_or_path", "dtype", "torch_dtype")
_MAX_CARD = 1 << 20


@dataclass(frozen=True)
class Contents:
    """A model folder as it speaks of itself.

    Args:
        architecture: Class of the model.
        config_hash: Of its configuration, without what says nothing of the architecture.
        license: From the model card.
        base_model: From the model card: what it was trained further from.
        parent: From ``lineage.json``: the registered model that it goes back to.
        parent_run: From a bundle: the run whose model it was trained further from.
        run: The run that made it.
        metrics: Numbers that were measured of it.
        rules: Learning rules that it was trained with.
    """

    architecture: str
    config_hash: str
    license: str | None = None
    base_model: str | None = None
    parent: dict[str, str] | None = None
    parent_run: str | None = None
    run: str | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    rules: tuple[str, ...] = ()

    @property
    def names_parent(self) -> bool:
        """Whether the folder says anything of a parent."""
        return bool(self.parent or self.parent_run or self.base_model)


def model_folder(path: Path) -> Path:
    """The model folder itself, where a run folder is given.

    Raises:
        RegistryError: There is no such folder.
    """
    inner = path / "model"
    if (path / RUN_FILE).is_file() and inner.is_dir():
        return inner
    if not path.is_dir():
        raise RegistryError(f"there is no folder {path}", next_step="check the path")
    return path


def read_contents(folder: Path) -> Contents:
    """Look at a model folder.

    Raises:
        RegistryError: It is no model folder, has only pickles, or its weights are damaged.
        ArtifactError: It has a manifest, which does not fit its files.
    """
    config = read_model_config(folder)
    check_weights(folder)
    if (folder / MANIFEST).is_file():
        verify_directory(folder)
    card = read_card(folder / CARD_FILE)
    lineage = _read_json(folder / LINEAGE_FILE)
    bundled = _read_json(folder / BUNDLE_FILE).get("record") or {}
    record = {**bundled, **(lineage.get("record") or {})}
    made = folder.parent / RUN_FILE
    run = read_run(folder.parent) if folder.name == "model" and made.is_file() else None
    base = card.get("base_model")
    architectures = config.get("architectures") or [config.get("model_type") or "unknown"]
    return Contents(
        architecture=str(architectures[0]),
        config_hash=fingerprint({k: v for k, v in config.items() if k not in _VOLATILE}),
        license=_text(card.get("license")),
        base_model=_text(base[0] if isinstance(base, list) and base else base),
        parent=lineage.get("parent"),
        parent_run=_text(bundled.get("pretrained")),
        run=_text(record.get("run")) or (run.id if run else None),
        metrics=dict(record.get("metrics") or (run.results if run else None) or {}),
        rules=tuple(map(str, record.get("rules") or (run.rules if run else ()))),
    )


def files_of(folder: Path) -> tuple[str, ...]:
    """The files that make up a model: no pickles, no hidden files, no code of unknown origin.

    What a manifest names belongs to it, code included: our bundles carry their own, so that they
    open where domainformer is not installed.
    """
    named = set(read_manifest(folder)["files"]) if (folder / MANIFEST).is_file() else set()
    taken = _readable(folder) | {name for name in named if not is_pickle(name)}
    # A manifest that names more than is taken would call the copy incomplete.
    if not named <= taken:
        taken.discard(MANIFEST)
    return tuple(sorted(taken))


def sizes_of(folder: Path, files: Mapping[str, str]) -> Sizes:
    """Parameters and bytes of a model's files."""
    return Sizes(
        parameters=parameter_count(folder, check_weights(folder)),
        bytes=sum((folder / name).stat().st_size for name in files),
    )


def differences(folder: Path, files: Mapping[str, str]) -> tuple[str, ...]:
    """What is not as it was registered, one line for each file.

    A file that came later counts: ``transformers`` would read it.
    """
    if not folder.is_dir():
        return (f"the folder {folder} is missing",)
    found = []
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{name} is missing")
            continue
        now = sha256_file(path)
        if now != digest:
            found.append(f"{name} has changed (sha256 {digest[:12]}… registered, {now[:12]}… now)")
    found += [f"{name} was added" for name in sorted(_readable(folder) - set(files))]
    return tuple(found)


def read_card(path: Path) -> dict[str, Any]:
    """The metadata of a model card: the YAML between the first two lines of ``---``.

    A card that cannot be read says nothing; it decides nothing but names.

    Source: https://huggingface.co/docs/hub/model-cards, "Model card metadata".
    """
    if not path.is_file() or path.stat().st_size > _MAX_CARD:
        return {}
    text = path.read_text(encoding="utf-8", errors="replace")
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    if match is None:
        return {}
    try:
        return parse_yaml(match[1], where=str(path))
    except DomainformerError:
        return {}


def _readable(folder: Path) -> set[str]:
    """What transformers may read when it opens the folder: no pickles, no code, nothing hidden."""
    places = (folder, *(folder / name for name in _SUBFOLDERS))
    paths = [path for place in places if place.is_dir() for path in place.iterdir()]
    return {
        path.relative_to(folder).as_posix()
        for path in paths
        if path.is_file()
        and path.suffix != ".py"
        and not is_pickle(path.name)
        and not path.name.startswith(".")
    }


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RegistryError(
            f"{path.name} cannot be read",
            where=str(path),
            why=str(error),
            next_step="restore the folder from a copy",
        ) from error
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int) and str(value) else None
