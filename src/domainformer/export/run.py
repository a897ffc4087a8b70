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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

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
    reported. Where a *second* format cannot be had (TorchScript, mostly), the report says why;
    where the only one cannot, it is an error.

    Args:
        model: A model folder or run folder, or a model in memory.
        output: Folder to write; appears whole or not at all.
        formats: Of ``onnx``, ``onnx-int8``, ``pt2``, ``torchscript``.
        what: ``logits``, or ``embedding`` (the hidden state at each row's last real token).
        inputs: For a module of your own: examples or specifications by the names of the arguments
            of its ``forward``.
        dynamic: Free batch and length; otherwise those of the examples are fixed.
        shapes: Sizes to compare on, such as ``{"batch": 2, "length": 7}``; five by default.
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
    if isinstance(model, (str, Path)):
        subject = of_folder(model, what=what)
    else:
        subject = of_model(_on_processor(model), what=what, inputs=inputs)
    target = Path(output)
    with staged_directory(target, overwrite=overwrite, meta={"kind": "export"}) as staging:
        files = _write_all(subject, staging, wanted, dynamic, shapes, tolerance, seed)
        names = (
            () if subject.preprocessing is None else tuple(carry(subject.preprocessing, staging))
        )
        facts = {
            "format": FORMAT_VERSION,
            "domainformer": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "architecture": subject.architecture,
            "what": what,
            "inputs": [spec.to_json() for spec in subject.inputs],
            "outputs": list(subject.outputs),
            "longest": subject.longest,
            "files": [
                {"format": one.format, "path": one.path and one.path.name, "remark": one.remark}
                for one in files
            ],
            "preprocessing": list(names),
        }
        write_json(staging / EXPORT_FILE, facts)
    moved = tuple(
        ExportedFile(
            one.format, one.path and target / one.path.name, one.bytes, one.parity, one.remark
        )
        for one in files
    )
    return ExportReport(target, subject.architecture, moved, names, tolerance)


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


def _write_all(
    subject: Subject,
    staging: Path,
    wanted: list[str],
    dynamic: bool,
    shapes: Sequence[Sizes] | None,
    tolerance: float,
    seed: int,
) -> list[ExportedFile]:
    sizes = example_sizes(subject)
    examples = draw_all(subject.inputs, sizes, torch.Generator().manual_seed(seed))
    compared = shapes if dynamic else [sizes]
    training = subject.module.training
    subject.module.eval()
    try:
        return [
            _write_one(subject, name, staging, examples, dynamic, compared, tolerance, seed, wanted)
            for name in wanted
        ]
    finally:
        subject.module.train(training)


def _write_one(
    subject: Subject,
    name: str,
    staging: Path,
    examples: Mapping[str, torch.Tensor],
    dynamic: bool,
    shapes: Sequence[Sizes] | None,
    tolerance: float,
    seed: int,
    wanted: list[str],
) -> ExportedFile:
    path = staging / FILES[name]
    remark = None
    try:
        if name == "onnx-int8":
            _write_int8(subject, staging, examples, dynamic, keep="onnx" in wanted)
        else:
            writer = {"onnx": write_onnx, "pt2": write_program, "torchscript": write_torchscript}
            remark = writer[name](subject, examples, path, dynamic)
        parity = compare_with_torch(subject, open_file(path, name), shapes, seed=seed)
        _check(subject, name, parity, tolerance)
    except ExportError as error:
        if len(wanted) == 1 or name != "torchscript":
            raise
        path.unlink(missing_ok=True)
        return ExportedFile(name, None, 0, None, f"{error.what}: {error.why}")
    facts = {"tolerance": None if name == "onnx-int8" else tolerance, **parity.to_json()}
    write_json(parity_path(path), facts)
    size = sum(
        one.stat().st_size for one in (path, path.with_name(path.name + ".data")) if one.is_file()
    )
    return ExportedFile(name, path, size, parity, remark)


def _write_int8(
    subject: Subject,
    staging: Path,
    examples: Mapping[str, torch.Tensor],
    dynamic: bool,
    *,
    keep: bool,
) -> None:
    source = staging / ONNX_FILE
    if not keep:
        write_onnx(subject, examples, source, dynamic)
    write_int8(source, staging / FILES["onnx-int8"])
    if not keep:
        for path in (source, source.with_name(source.name + ".data")):
            path.unlink(missing_ok=True)


def _check(subject: Subject, name: str, parity: Parity, tolerance: float) -> None:
    """Refuse a file that answers something else than PyTorch."""
    if name == "onnx-int8" and parity.failure is None:
        return
    if not parity.within(tolerance):
        raise ExportError(
            f"the {name} file of {subject.architecture} does not do what PyTorch does",
            why=parity.failure
            or f"it differs by {parity.difference:.2e}, more than {tolerance:.0e}",
            next_step="a size or value of the example became a constant, most likely; "
            "nothing was written",
        )


FORMATS = tuple(FILES)
WHATS: tuple[str, ...] = get_args(What)
