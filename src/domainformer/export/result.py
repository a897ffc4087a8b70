"""What an export gave: its files, how near each is to PyTorch, and how to run one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table

from domainformer.artifacts import read_facts, verify_directory
from domainformer.errors import ExportError, nearest
from domainformer.export.onnx import INT8_FILE, ONNX_FILE, OnnxFile
from domainformer.export.parity import Parity, Runner
from domainformer.export.program import PROGRAM_FILE, ProgramFile
from domainformer.export.torchscript import SCRIPT_FILE, ScriptFile
from domainformer.models.universal.probing import told

EXPORT_FILE = "export.json"
FORMAT_VERSION = 1
FILES = {
    "onnx": ONNX_FILE,
    "onnx-int8": INT8_FILE,
    "pt2": PROGRAM_FILE,
    "torchscript": SCRIPT_FILE,
}


@dataclass(frozen=True)
class ExportedFile:
    """One file of an export.

    Args:
        format: ``onnx``, ``onnx-int8``, ``pt2`` or ``torchscript``.
        path: The file; None: it could not be written.
        bytes: Its size, external weights included.
        parity: How near it is to PyTorch.
        remark: What is worth knowing, or why there is no file.
    """

    format: str
    path: Path | None
    bytes: int
    parity: Parity | None
    remark: str | None = None


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Args:
        folder: Where.
        architecture: The class of the model.
        files: Each format that was asked for.
        preprocessing: Names of the files that turn raw data into inputs.
        tolerance: Largest difference that a float format may have.
    """

    folder: Path
    architecture: str
    files: tuple[ExportedFile, ...]
    preprocessing: tuple[str, ...]
    tolerance: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "folder": str(self.folder),
            "architecture": self.architecture,
            "tolerance": self.tolerance,
            "preprocessing": list(self.preprocessing),
            "files": [
                {
                    "format": one.format,
                    "path": None if one.path is None else str(one.path),
                    "bytes": one.bytes,
                    "parity": None if one.parity is None else one.parity.to_json(),
                    "remark": one.remark,
                }
                for one in self.files
            ],
        }

    def render(self) -> Table:
        """A table for people."""
        table = Table(title=f"{self.architecture} in {self.folder}")
        for name in ("format", "file", "MB", "largest difference", "same answer", "remark"):
            table.add_column(name, justify="right" if name == "MB" else "left", overflow="fold")
        for one in self.files:
            parity = one.parity
            table.add_row(
                one.format,
                "" if one.path is None else one.path.name,
                "" if one.path is None else f"{one.bytes / 1e6:.2f}",
                "" if parity is None else f"{parity.difference:.1e} ({len(parity.shapes)} shapes)",
                "" if parity is None else f"{parity.agreement:.2%}",
                one.remark or "",
            )
        return table


class ExportedModel:
    """An exported model that is run without the code that made it.

    Args:
        folder: As :func:`~domainformer.export.export_model` wrote it.
        form: Which of its formats; None: the first.
        threads: Of ONNX operators.

    Raises:
        ArtifactError: The folder is no export, or damaged.
        ExportError: It has no file of that format.
    """

    def __init__(
        self, folder: str | Path, form: str | None = None, *, threads: int | None = None
    ) -> None:
        self.folder = Path(folder)
        self.facts = read_facts(
            self.folder,
            EXPORT_FILE,
            kind="export",
            version=FORMAT_VERSION,
            remedy="give a folder that `domainformer export` wrote",
        )
        verify_directory(self.folder)
        there = [entry["format"] for entry in self.facts["files"] if entry["path"]]
        self.format = form or there[0]
        if self.format not in there:
            raise ExportError(
                f"the export has no {self.format}",
                where=str(self.folder),
                next_step=nearest(self.format, there),
            )
        self.inputs: list[dict[str, Any]] = self.facts["inputs"]
        self.outputs: list[str] = self.facts["outputs"]
        self._run = open_file(self.folder / FILES[self.format], self.format, threads=threads)

    def __call__(self, **inputs: npt.ArrayLike) -> dict[str, npt.NDArray[Any]]:
        """Run it.

        Args:
            inputs: Arrays by the names of ``inputs``, of the types that stand there.

        Returns:
            Arrays by the names of ``outputs``.

        Raises:
            ExportError: An input is missing, unknown, has other dimensions or longer rows than the
                model may see; or the file cannot be run on them.
        """
        names = [spec["name"] for spec in self.inputs]
        wrong = sorted(set(inputs) ^ set(names))
        if wrong:
            raise ExportError(
                f"the model reads {', '.join(names)}", why=f"missing or unknown: {wrong}"
            )
        tensors = {spec["name"]: _tensor(inputs[spec["name"]], spec) for spec in self.inputs}
        self._check_length(tensors)
        try:
            values = self._run(tensors)
        except Exception as error:
            raise ExportError(
                f"the {self.format} file cannot be run on these inputs",
                where=", ".join(f"{name} {list(one.shape)}" for name, one in tensors.items()),
                why=told(error),
                next_step="dimensions of the same name must have the same size, ids lie within "
                "the vocabulary: `inputs` says what is read",
            ) from error
        return {name: value.numpy() for name, value in zip(self.outputs, values, strict=True)}

    def _check_length(self, tensors: Mapping[str, torch.Tensor]) -> None:
        longest = self.facts["longest"]
        for spec in self.inputs:
            sizes = dict(zip(spec["dims"], tensors[spec["name"]].shape, strict=True))
            if longest is not None and sizes.get("length", 0) > longest:
                raise ExportError(
                    f"rows of {sizes['length']} tokens are too long",
                    where=spec["name"],
                    why=f"the model sees {longest} at most",
                    next_step="give it the newest of them",
                )


def open_file(path: Path, form: str, *, threads: int | None = None) -> Runner:
    """What runs a file of a format."""
    if form.startswith("onnx"):
        return OnnxFile(path, threads=threads)
    return ProgramFile(path) if form == "pt2" else ScriptFile(path)


def _tensor(value: npt.ArrayLike, spec: Mapping[str, Any]) -> torch.Tensor:
    try:
        array = np.ascontiguousarray(np.asarray(value, dtype=spec["dtype"]))
    except (TypeError, ValueError) as error:
        raise ExportError(
            f"the input {spec['name']} is no array of {spec['dtype']}", why=told(error)
        ) from error
    dims = spec["dims"]
    fits = array.ndim == len(dims) and all(
        isinstance(dim, str) or dim == size for dim, size in zip(dims, array.shape, strict=True)
    )
    if not fits:
        raise ExportError(
            f"the input {spec['name']} has the wrong shape",
            why=f"it has {list(array.shape)}, the model reads {dims}",
        )
    return torch.from_numpy(array)


def read_parity(path: Path) -> dict[str, Any]:
    """The difference that was measured for an exported file, which lies beside it."""
    facts: dict[str, Any] = json.loads(parity_path(path).read_text(encoding="utf-8"))
    return facts


def parity_path(path: Path) -> Path:
    """Where the measured difference of a file stands."""
    return path.with_name(path.name + ".parity.json")
