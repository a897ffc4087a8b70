"""``export_model``: a model and its preprocessing into one folder, in several formats.

::

    exported/
      model.onnx  model.int8.onnx  model.pt2  model.torchscript.pt   what was asked for
      model.onnx.parity.json, …                                      how near each is to PyTorch
      tokenizer.json, schema.yaml, …                                 raw data to inputs
      export.json                                                    inputs, outputs, versions
      manifest.json                                                  checksums, written last
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from domainformer.artifacts import staged_directory, write_json
from domainformer.errors import ExportError, nearest
from domainformer.export.folder import of_folder
from domainformer.export.inputs import Sizes, draw_all
from domainformer.export.onnx import ONNX_FILE, write_int8, write_onnx
from domainformer.export.parity import TOLERANCE, Parity, compare_with_torch
from domainformer.export.preprocessing import carry
from domainformer.export.program import write_program
from domainformer.export.result import (
    EXPORT_FILE,
    FILES,
    FORMAT_VERSION,
    ExportedFile,
    ExportReport,
    open_file,
    parity_path,
)
from domainformer.export.subject import Subject, What, example_sizes, of_model
from domainformer.export.torchscript import write_torchscript
from domainformer.models.universal.probing import at_rest
from domainformer.version import __version__


def export_model(
    model: str | Path | nn.Module,
    output: str | Path,
    *,
    formats: Sequence[str] = ("onnx",),
    what: What = "logits",
    inputs: Any = None,
    dynamic: bool = True,
    shapes: Sequence[Sizes] | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    overwrite: bool = False,
) -> ExportReport:
    """Export a model, and run every file beside PyTorch before it is given out.

    ::

        export ─▶ run on 5 shapes beside PyTorch ─▶ within 1e-4: kept, with the difference beside it
                                                 └▶ else: an error, and nothing is written

    An int8 file is not held to the tolerance: its difference and its share of equal answers are
    reported. Where TorchScript cannot be had beside another format, the report says why; any
    other format that cannot be had is an error. A model in memory is afterwards as before.

    Args:
        model: A model folder or run folder, or a model in memory.
        output: Folder to write; appears whole or not at all.
        formats: Of ``onnx``, ``onnx-int8``, ``pt2``, ``torchscript``.
        what: ``logits``, or ``embedding`` (the hidden state at each row's last real token).
        inputs: For a module of your own: examples or specifications by the names of the arguments
            of its ``forward``.
        dynamic: Free batch and length; otherwise those of the examples are fixed.
        shapes: Sizes to compare on, such as ``{"batch": 2, "length": 7}``; five by default. Files
            with fixed dimensions are compared on their own.
        tolerance: Largest absolute difference that a float format may have.
        seed: Of the inputs that are drawn for the comparison.
        overwrite: Replace an existing folder.

    Raises:
        ExportError: The preprocessing is missing, the model cannot be exported, or a file
            answers something else than PyTorch.
        MissingExtraError: The extra ``onnx`` is not installed.
        ArtifactError: The folder exists, or cannot be written.

    Example:
        >>> import tempfile
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=9, num_hidden_layers=1,
        ...     hidden_size=8, num_attention_heads=2, intermediate_size=8)
        >>> folder = Path(tempfile.mkdtemp()) / "exported"
        >>> report = export_model(DomainTransformerForCausalLM(config), folder, formats=["pt2"])
        >>> [(one.format, one.parity.within(1e-4)) for one in report.files]
        [('pt2', True)]
    """
    wanted = _checked(formats)
    if shapes and not dynamic:
        raise ExportError(
            "fixed dimensions have no shapes to choose from",
            next_step="leave out shapes, or export with dynamic=True",
        )

    def export(subject: Subject) -> ExportReport:
        work = _Work(subject, wanted, dynamic, shapes, tolerance, seed)
        return _export(work, Path(output), what, overwrite=overwrite)

    if isinstance(model, (str, Path)):
        return export(of_folder(model, what=what))
    model = _on_processor(model)
    with at_rest(model):
        return export(of_model(model, what=what, inputs=inputs))


def export_onnx(
    model: str | Path | nn.Module, output: str | Path, *, int8: bool = False, **options: Any
) -> ExportReport:
    """As :func:`export_model`, to ONNX; with ``int8`` also its quantised form.

    Args:
        model: As there.
        output: As there.
        int8: Whether to write ``model.int8.onnx``, too.
        **options: As there.
    """
    return export_model(
        model, output, formats=("onnx", "onnx-int8") if int8 else ("onnx",), **options
    )


def _checked(formats: Sequence[str]) -> list[str]:
    wanted = [formats] if isinstance(formats, str) else list(dict.fromkeys(formats))
    for name in wanted:
        if name not in FILES:
            raise ExportError(f"there is no format {name!r}", next_step=nearest(name, FILES))
    if not wanted:
        raise ExportError("no format was asked for", next_step=f"one of: {', '.join(FILES)}")
    # The quantiser reads the float file.
    return sorted(wanted, key=list(FILES).index)


def _on_processor(model: nn.Module) -> nn.Module:
    """The model in float32 on the processor: a copy, where it is not so already."""
    weights = list(model.parameters())
    there = all(
        w.device.type == "cpu" and w.dtype in (torch.float32, torch.float64) for w in weights
    )
    return model if there else copy.deepcopy(model).to("cpu", torch.float32)


@dataclass(frozen=True)
class _Work:
    """What is to be written, and how it is compared; see :func:`export_model`."""

    subject: Subject
    formats: list[str]
    dynamic: bool
    shapes: Sequence[Sizes] | None
    tolerance: float
    seed: int

    @property
    def sizes(self) -> dict[str, int]:
        """Of the example."""
        return example_sizes(self.subject)

    @property
    def example(self) -> dict[str, torch.Tensor]:
        """A tensor for each input."""
        generator = torch.Generator().manual_seed(self.seed)
        return draw_all(self.subject.inputs, self.sizes, generator)

    def told_inputs(self) -> list[dict[str, object]]:
        """Of each input its name, type and dimensions, fixed ones as numbers."""
        told = [spec.to_json() for spec in self.subject.inputs]
        if not self.dynamic:
            for facts, spec in zip(told, self.subject.inputs, strict=True):
                facts["dims"] = list(spec.shape(self.sizes))
        return told


def _export(work: _Work, target: Path, what: str, *, overwrite: bool) -> ExportReport:
    subject = work.subject
    with staged_directory(target, overwrite=overwrite, meta={"kind": "export"}) as staging:
        files = [_write_one(work, name, staging) for name in work.formats]
        folder = subject.preprocessing
        names = () if folder is None else tuple(carry(folder, staging))
        facts = {
            "format": FORMAT_VERSION,
            "domainformer": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "architecture": subject.architecture,
            "what": what,
            "inputs": work.told_inputs(),
            "outputs": list(subject.outputs),
            "longest": subject.longest,
            "files": [
                {"format": one.format, "path": one.path and one.path.name, "remark": one.remark}
                for one in files
            ],
            "preprocessing": list(names),
        }
        write_json(staging / EXPORT_FILE, facts)
    moved = tuple(replace(one, path=one.path and target / one.path.name) for one in files)
    return ExportReport(target, subject.architecture, moved, names, work.tolerance)


def _write_one(work: _Work, name: str, staging: Path) -> ExportedFile:
    path = staging / FILES[name]
    try:
        remark = _written(work, name, path)
        shapes = work.shapes if work.dynamic else [work.sizes]
        parity = compare_with_torch(work.subject, open_file(path, name), shapes, seed=work.seed)
        _check(work.subject, name, parity, work.tolerance)
    except ExportError as error:
        if work.formats == [name] or name != "torchscript":
            raise
        path.unlink(missing_ok=True)
        return ExportedFile(name, None, 0, None, f"{error.what}: {error.why}")
    facts = {"tolerance": None if name == "onnx-int8" else work.tolerance, **parity.to_json()}
    write_json(parity_path(path), facts)
    size = sum(one.stat().st_size for one in (path, _beside(path)) if one.is_file())
    return ExportedFile(name, path, size, parity, remark)


def _written(work: _Work, name: str, path: Path) -> str | None:
    """Write one file; a remark on it, if there is one."""
    if name != "onnx-int8":
        writer = {"onnx": write_onnx, "pt2": write_program, "torchscript": write_torchscript}[name]
        return writer(work.subject, work.example, path, work.dynamic)
    source, remark = path.with_name(ONNX_FILE), None
    if "onnx" not in work.formats:
        remark = write_onnx(work.subject, work.example, source, work.dynamic)
    write_int8(source, path)
    if "onnx" not in work.formats:
        source.unlink()
        _beside(source).unlink(missing_ok=True)
    return remark


def _beside(path: Path) -> Path:
    """Where ONNX keeps the weights of a large file."""
    return path.with_name(path.name + ".data")


def _check(subject: Subject, name: str, parity: Parity, tolerance: float) -> None:
    """Refuse a file that answers something else than PyTorch."""
    # Rounded weights are not held to the tolerance, but to numbers where PyTorch has numbers.
    if not parity.within(sys.float_info.max if name == "onnx-int8" else tolerance):
        raise ExportError(
            f"the {name} file of {subject.architecture} does not do what PyTorch does",
            why=parity.failure
            or f"it differs by {parity.difference:.2g}, more than {tolerance:.0e}",
            next_step="a size or value of the example became a constant, most likely; "
            "nothing was written",
        )


FORMATS = tuple(FILES)
"""All formats, in the order in which they are written."""
