"""``torch.export``: the graph as PyTorch runs it, without the Python that made it (.pt2)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from domainformer.errors import ExportError
from domainformer.export.onnx import quiet
from domainformer.export.parity import as_tuple
from domainformer.export.subject import Subject
from domainformer.models.universal.probing import told

PROGRAM_FILE = "model.pt2"


def write_program(
    subject: Subject, examples: Mapping[str, torch.Tensor], path: Path, dynamic: bool
) -> None:
    """Write ``model.pt2``.

    Args:
        subject: What is exported.
        examples: A tensor for each input.
        path: The file.
        dynamic: Whether the named dimensions are free.

    Raises:
        ExportError: The model branches on values of tensors.
    """
    free = tuple(
        {
            place: torch.export.Dim.DYNAMIC
            for place, dim in enumerate(spec.dims)
            if isinstance(dim, str)
        }
        for spec in subject.inputs
    )
    try:
        with quiet():
            program = torch.export.export(
                subject.module,
                tuple(examples.values()),
                dynamic_shapes=(free,) if dynamic else None,
                strict=False,
            )
            torch.export.save(program, path)
    except Exception as error:
        raise ExportError(
            f"{subject.architecture} cannot be written by torch.export",
            why=told(error),
            next_step="branches on the values of tensors stand in the way: write them with "
            "torch.where, or behind `if not torch.compiler.is_compiling()`",
        ) from error


class ProgramFile:
    """A ``.pt2`` file that PyTorch runs.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        with quiet():
            self.module = torch.export.load(path).module()

    def __call__(self, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Outputs in order."""
        with torch.no_grad():
            return list(as_tuple(self.module(*inputs.values())))
