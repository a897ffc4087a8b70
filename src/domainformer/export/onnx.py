"""ONNX, through ``torch.onnx.export(dynamo=True)``, and its int8 form.

Source: https://onnx.ai; https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html,
"Dynamic quantization": weights become int8 once, activations at run time, so nothing has to be
calibrated.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from domainformer.errors import ExportError, MissingExtraError
from domainformer.export.subject import Subject
from domainformer.models.universal.probing import told

ONNX_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
_OPSET = 18


def write_onnx(
    subject: Subject, examples: Mapping[str, torch.Tensor], path: Path, dynamic: bool
) -> str | None:
    """Write ``model.onnx``; weights beyond 1 GiB go into ``model.onnx.data`` beside it.

    Args:
        subject: What is exported.
        examples: A tensor for each input.
        path: The file.
        dynamic: Whether the named dimensions are free.

    Returns:
        A remark for the report, if there is one.

    Raises:
        ExportError: The exporter cannot translate the model.
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    _require("onnxscript")
    try:
        _export(subject, examples, path, dynamic)
        return None
    except Exception as error:
        # The fused kernel may hide from the exporter that two lengths are the same one (T5).
        model = subject.model
        if not (isinstance(model, PreTrainedModel) and _fused(model)):
            raise _failed(subject, error) from error
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        _export(subject, examples, path, dynamic)
    except Exception as error:
        raise _failed(subject, error) from error
    finally:
        model.set_attn_implementation(before)
    return f"attention written out: the exporter could not translate {before}"


def _export(
    subject: Subject, examples: Mapping[str, torch.Tensor], path: Path, dynamic: bool
) -> None:
    from domainformer.export.operators import translations

    shapes = tuple(
        {place: dim for place, dim in enumerate(spec.dims) if isinstance(dim, str)}
        for spec in subject.inputs
    )
    with quiet():
        torch.onnx.export(
            subject.module,
            tuple(examples.values()),
            str(path),
            input_names=[spec.name for spec in subject.inputs],
            output_names=list(subject.outputs),
            # The module takes its tensors as *tensors: one nested tuple of dimensions.
            dynamic_shapes=(shapes,) if dynamic else None,
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
            external_data=_bytes(subject.module) > 1 << 30,
            custom_translation_table=translations(),
        )


def write_int8(source: Path, path: Path) -> None:
    """Dynamic int8 quantisation of an ONNX file.

    Args:
        source: The float file.
        path: The file to write.

    Raises:
        ExportError: The quantiser cannot read the model.
        MissingExtraError: The extra ``onnx`` is not installed.
    """
    _require("onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    try:
        with quiet():
            quantize_dynamic(
                without_inner_shapes(source),
                path,
                # One scale for each output channel: a scale for a whole matrix is decided by its
                # largest weight. Seven bits, as sums of two products overflow on processors
                # without VNNI.
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                extra_options={"DefaultTensorType": 1},
            )
    except Exception as error:
        raise ExportError(
            "the model cannot be quantised",
            where=source.name,
            why=told(error),
            next_step="export without onnx-int8",
        ) from error


def without_inner_shapes(source: Path) -> Any:
    """The model of an ONNX file, for the quantiser.

    It turns the weights of linear layers round, and then meets the shapes that the exporter noted
    for them before: it infers its own.
    """
    import onnx

    model = onnx.load(source)
    del model.graph.value_info[:]
    return model


class OnnxFile:
    """An ONNX file that is run by onnxruntime on one thread or several.

    Args:
        path: The file.
        threads: Of one operator; None: as many as there are cores.
    """

    def __init__(self, path: Path, *, threads: int | None = None) -> None:
        _require("onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ExportError(
                f"{path.name} cannot be opened",
                where=str(path),
                why=told(error),
                next_step="export the model again",
            ) from error
        self.names = [one.name for one in self.session.get_inputs()]

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Outputs in order; an input that the graph does not use may be given all the same."""
        feed = {name: np.ascontiguousarray(inputs[name].numpy()) for name in self.names}
        return [torch.from_numpy(np.asarray(value)) for value in self.session.run(None, feed)]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Exporters print their progress and warn of packages that they could use: neither is ours."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "root", "")]
    levels = [logger.level for logger in loggers]
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _fused(model: PreTrainedModel) -> bool:
    return model.config._attn_implementation != "eager"


def _bytes(module: torch.nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in module.parameters())


def _failed(subject: Subject, error: Exception) -> ExportError:
    causes: list[Exception] = [error]
    while isinstance(causes[-1].__cause__, Exception):
        causes.append(causes[-1].__cause__)
    return ExportError(
        f"{subject.architecture} cannot be written as ONNX",
        why=told(causes[-1]),
        next_step="branches on the values of tensors, and operators that ONNX lacks, stand in "
        "the way; the format pt2 keeps more of PyTorch",
    )


def _require(package: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError:
        raise MissingExtraError(package, extra="onnx", purpose="the ONNX format") from None
