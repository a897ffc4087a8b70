"""TorchScript, for runtimes that still read it: a trace, so what branches on values is refused.

PyTorch keeps TorchScript without developing it. A trace writes down what happened on one example;
where a size of the example became a constant, the file works on that size alone. This shows on
the shapes of the parity check, and the file is then not given out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from domainformer.errors import ExportError
from domainformer.export.onnx import quiet
from domainformer.export.parity import as_tuple
from domainformer.export.subject import Subject
from domainformer.models.universal.probing import told

SCRIPT_FILE = "model.torchscript.pt"


def write_torchscript(
    subject: Subject, examples: Mapping[str, torch.Tensor], path: Path, dynamic: bool
) -> None:
    """Trace the module and write it.

    Args:
        subject: What is exported.
        examples: A tensor for each input.
        path: The file.
        dynamic: A trace has no fixed dimensions of its own: both are written alike.

    Raises:
        ExportError: The module cannot be traced.
    """
    del dynamic
    try:
        with quiet(), torch.no_grad():
            traced = torch.jit.trace(subject.module, tuple(examples.values()), check_trace=False)
            torch.jit.save(traced, str(path))
    except Exception as error:
        raise ExportError(
            f"{subject.architecture} cannot be written as TorchScript",
            why=told(error),
            next_step="use pt2 or onnx: TorchScript is no longer developed",
        ) from error


class ScriptFile:
    """A TorchScript file that PyTorch runs.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        with quiet():
            self.module = torch.jit.load(str(path)).eval()

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Outputs in order."""
        with quiet(), torch.no_grad():
            return list(as_tuple(self.module(*inputs.values())))
