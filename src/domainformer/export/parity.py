"""Every exported file is run beside PyTorch, on several shapes, before anybody may have it.

An exporter that took a size of its example for a constant writes a file that works on that size
alone; one that lost a branch answers something else. Neither says so. Both are seen here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from domainformer.export.inputs import Sizes, draw_all
from domainformer.export.subject import Subject

Runner = Callable[[Mapping[str, torch.Tensor]], Sequence[torch.Tensor]]
TOLERANCE = 1e-4
_SHAPES = ((1, 1), (1, 5), (2, 7), (3, 16), (5, 33))


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from PyTorch.

    Args:
        shapes: The sizes that were run, with the largest absolute difference of any output.
        difference: The largest of all.
        relative: The same, as a share of the largest absolute output of PyTorch.
        agreement: Share of rows in which the largest output is the same one (the answer of a
            classifier, the next token of a language model), or a single output has the same sign.
        failure: What the file answered where it could not be run; None: it could.
    """

    shapes: list[dict[str, Any]]
    difference: float
    relative: float
    agreement: float
    failure: str | None = None

    def within(self, tolerance: float) -> bool:
        """Whether it ran on all shapes and stayed as near as was asked."""
        return self.failure is None and self.difference <= tolerance

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def default_shapes(subject: Subject) -> list[dict[str, int]]:
    """Five sizes of batch and length, cut to what the model may see."""
    bound = subject.longest or max(length for _, length in _SHAPES)
    return [
        {
            "batch": batch,
            "length": min(length, bound),
            # Another length than the first sequence's, so that the two cannot be mixed up.
            "decoder_length": min(1 + length // 2, bound),
        }
        for batch, length in _SHAPES
    ]


def compare_with_torch(
    subject: Subject, run: Runner, shapes: Sequence[Sizes] | None = None, *, seed: int = 0
) -> Parity:
    """Run an exported file and its module on the same inputs.

    Args:
        subject: The module.
        run: The file: tensors by name to outputs in order.
        shapes: Sizes of the named dimensions; five by default.
        seed: Of the inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    rows: list[dict[str, Any]] = []
    worst = relative = 0.0
    same = answers = 0
    for sizes in shapes or default_shapes(subject):
        inputs = draw_all(subject.inputs, sizes, generator)
        with torch.no_grad():
            expected = as_tuple(subject.module(*inputs.values()))
        free = {dim for spec in subject.inputs for dim in spec.dims if isinstance(dim, str)}
        named = {dim: sizes[dim] for dim in sizes if dim in free}
        try:
            found = run(inputs)
        except Exception as error:  # noqa: BLE001 - a foreign runtime raises what it likes
            why = f"{named}: {type(error).__name__}: {_first_line(error)}"
            return Parity(rows, float("inf"), float("inf"), 0.0, why)
        difference = 0.0
        for one, other in zip(expected, found, strict=True):
            if one.shape != other.shape:
                why = f"{named}: shape {list(other.shape)} in place of {list(one.shape)}"
                return Parity(rows, float("inf"), float("inf"), 0.0, why)
            difference = max(difference, _difference(one, other))
            scale = float(one.abs().max()) if one.numel() else 1.0
            relative = max(relative, difference / max(scale, 1e-12))
            same += int((_answers(one) == _answers(other)).sum())
            answers += _answers(one).numel()
        rows.append({**named, "difference": difference})
        worst = max(worst, difference)
    return Parity(rows, worst, relative, same / max(1, answers))


def as_tuple(output: Any) -> tuple[torch.Tensor, ...]:
    """One tensor, or several, as several."""
    return (output,) if isinstance(output, torch.Tensor) else tuple(output)


def _answers(output: torch.Tensor) -> torch.Tensor:
    """The decision of each row: the largest output, or of a single one its sign."""
    if not output.ndim or output.shape[-1] == 1:
        return output > 0
    return output.argmax(-1)


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest absolute difference; infinite where only one side is not a number."""
    left, right = one.double().numpy(), other.double().numpy()
    if not np.array_equal(np.isnan(left), np.isnan(right)):
        return float("inf")
    known = np.isfinite(left) & np.isfinite(right)
    if not np.array_equal(left[~known], right[~known], equal_nan=True):
        return float("inf")
    return float(np.abs(left - right)[known].max(initial=0.0))


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no message"
