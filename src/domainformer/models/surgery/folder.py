"""Surgery on a model folder: read, change, write another folder that knows where it comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig

from domainformer.artifacts import sha256_file
from domainformer.errors import SurgeryError
from domainformer.models.families.base import BaseAdapter, read_lineage, read_tokenizer
from domainformer.models.families.loading import read_pretrained
from domainformer.models.surgery.embeddings import Initialisation, resize_embeddings
from domainformer.models.surgery.heads import TASKS, replace_head
from domainformer.models.surgery.layers import drop_layers, duplicate_layers
from domainformer.models.surgery.lora import load_lora, merge_lora
from domainformer.models.surgery.stacks import stacks_of
from domainformer.weights import check_weights, read_model_config

_BUNDLE = "domainformer.json"
# What a changed model still needs of its parent's record.
_INHERITED = ("context", "needs_rules", "rule_code")


@dataclass(frozen=True)
class Operations:
    """What shall be done to a model, in this order.

    Args:
        merge_lora: Folder of low-rank additions to merge.
        resize: Rows of the embedding afterwards.
        init: How new rows begin.
        sources: Old ids for ``copy`` (one for each new row) or ``subwords`` (a list for each).
        drop_layers: Places to take out.
        duplicate_layers: Places to double; those of the model after dropping.
        path: Of the list of layers, where there are several.
        replace_head: Task of the new head.
        labels: Of the new head: names, or how many.
    """

    merge_lora: str | None = None
    resize: int | None = None
    init: Initialisation = "mean"
    sources: tuple[Any, ...] | None = None
    drop_layers: tuple[int, ...] = ()
    duplicate_layers: tuple[int, ...] = ()
    path: str | None = None
    replace_head: str | None = None
    labels: int | tuple[str, ...] | None = None

    def chosen(self) -> dict[str, Any]:
        """What differs from doing nothing, as plain data."""
        nothing = asdict(Operations())
        return {name: value for name, value in asdict(self).items() if value != nothing[name]}


@dataclass(frozen=True)
class FolderSurgery:
    """What was done.

    Args:
        folder: The model that was read.
        output: The folder that was written.
        architecture: Class of the model, before and after.
        parameters: Their number, before and after.
        layers: Length of each list of layers, before and after.
        operations: What was asked for.
    """

    folder: str
    output: str
    architecture: tuple[str, str]
    parameters: tuple[int, int]
    layers: tuple[dict[str, int], dict[str, int]]
    operations: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def render(self) -> dict[str, str]:
        """One line for each thing that changed, and where it was written."""
        pairs: dict[str, tuple[Any, Any]] = {
            "architecture": self.architecture,
            "parameters": (f"{self.parameters[0]:,}", f"{self.parameters[1]:,}"),
            "layers": tuple(_counted(one) for one in self.layers),  # type: ignore[dict-item]
        }
        lines = {
            name: f"{was} → {now}" if was != now else str(was) for name, (was, now) in pairs.items()
        }
        return {**lines, "model": self.output}


def operate_on_folder(
    folder: str | Path,
    output: str | Path,
    operations: Operations,
    *,
    overwrite: bool = False,
) -> FolderSurgery:
    """Change a saved model and write it as a new folder, whole or not at all.

    Its ``lineage.json`` names the operations, the folder and the checksums of the weights that it
    was made from; tokenizer, license and card come along.

    Args:
        folder: Of any Hugging Face model with a class of the Auto mappings, or a run folder.
        output: The folder to write.
        operations: What to do.
        overwrite: Replace an existing folder.

    Raises:
        SurgeryError: Nothing was asked for, it cannot be done, or the folder needs other tools.
        RegistryError: The folder holds no model that can be read.
        ArtifactError: The output exists already, or cannot be written.
    """
    home = Path(folder) / "model" if (Path(folder) / "model").is_dir() else Path(folder)
    chosen = operations.chosen()
    if not chosen:
        raise SurgeryError(
            "there is nothing to do", next_step="name an operation, such as --drop-layers 2,3"
        )
    if (home / _BUNDLE).is_file():
        raise SurgeryError(
            "this is a bundle of an event model",
            where=str(home),
            why="its schema, tokenizer and record belong to the model",
            next_step="in Python: load_bundle, surgery.…(bundle.model, …), save_bundle",
        )
    files = check_weights(home)
    model = read_any(home)
    before = _facts(model)
    changed = _operate(model, operations)
    facts = read_lineage(home)
    past = dict(facts.get("record") or {})
    made = {"folder": str(home), "weights": {name: sha256_file(home / name) for name in files}}
    adapter = BaseAdapter(
        changed,
        read_tokenizer(home),
        folder=home,
        parent=facts.get("parent"),
        record={name: past[name] for name in _INHERITED if name in past},
    )
    record = {"surgery": [*past.get("surgery", []), {"from": made, "operations": chosen}]}
    adapter.save_checkpoint(output, record=record, overwrite=overwrite)
    after = _facts(changed)
    return FolderSurgery(
        folder=str(home),
        output=str(output),
        architecture=(before[0], after[0]),
        parameters=(before[1], after[1]),
        layers=(before[2], after[2]),
        operations=chosen,
    )


def read_any(folder: Path) -> Any:
    """The model of a folder with the class that its ``config.json`` names; no code of it is run.

    Raises:
        SurgeryError: Its class is in none of the Auto mappings.
        RegistryError: The folder holds no model that can be read.
    """
    values = read_model_config(folder)
    named = str((values.get("architectures") or [""])[0])
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError):
        config = None
    for auto in (*TASKS.values(), "AutoModel"):
        mapping = getattr(transformers, auto)._model_mapping
        kinds = mapping[type(config)] if config is not None and type(config) in mapping else ()
        for kind in kinds if isinstance(kinds, tuple) else (kinds,):
            if kind.__name__ == named:
                return read_pretrained(kind, folder, dtype=None).eval()
    raise SurgeryError(
        f"models of class {named or values.get('model_type')!r} are not read from a folder",
        where=str(folder),
        why="transformers has no such class, and code in a folder is not run",
        next_step="build the model in Python, and use domainformer.surgery on it",
    )


def _operate(model: Any, wanted: Operations) -> Any:
    if wanted.merge_lora is not None:
        merge_lora(load_lora(model, wanted.merge_lora))
    if wanted.resize is not None:
        resize_embeddings(model, wanted.resize, init=wanted.init, sources=wanted.sources)
    elif wanted.init != "mean" or wanted.sources is not None:
        raise SurgeryError("init and sources are of resize", next_step="add --resize ROWS")
    if wanted.drop_layers:
        drop_layers(model, wanted.drop_layers, path=wanted.path)
    if wanted.duplicate_layers:
        duplicate_layers(model, wanted.duplicate_layers, path=wanted.path)
    if wanted.replace_head is None:
        if wanted.labels is not None:
            raise SurgeryError("labels are of a new head", next_step="add --replace-head TASK")
        return model
    return replace_head(model, wanted.labels, task=wanted.replace_head)


def _facts(model: Any) -> tuple[str, int, dict[str, int]]:
    layers: dict[str, int] = {stack.path: len(stack) for stack in stacks_of(model)}
    return type(model).__name__, int(model.num_parameters()), layers


def _counted(layers: dict[str, int]) -> str:
    return ", ".join(f"{count} in {path}" for path, count in layers.items())


def parsed_places(text: str) -> tuple[int, ...]:
    """Places of layers, as they are typed.

    Raises:
        SurgeryError: They are no numbers.

    Example:
        >>> parsed_places("0,2, -1"), parsed_places("3-5")
        ((0, 2, -1), (3, 4, 5))
    """
    places: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            if first and dash:
                places += range(int(first), int(last) + 1)
            else:
                places.append(int(part))
    except ValueError:
        raise SurgeryError(
            f"{text!r} names no layers", next_step="give places, as in 2,3 or 4-7 or -1"
        ) from None
    return tuple(places)


def parsed_labels(text: str) -> int | tuple[str, ...]:
    """Labels, as they are typed: a number of them, or their names.

    Example:
        >>> parsed_labels("3"), parsed_labels("no,yes")
        (3, ('no', 'yes'))
    """
    names = [name.strip() for name in text.split(",")]
    return int(text) if text.strip().isdigit() else tuple(names)
