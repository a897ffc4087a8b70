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

from domainformer.errors import ExportError
from domainformer.export.inputs import Sizes, draw_all, free_dims
from domainformer.export.subject import Subject
from domainformer.models.universal.probing import told

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
    """Five sizes of the free dimensions, cut to what the model may see.

    Every dimension beside batch and length has a size of its own, so that none is mixed up with
    another unseen.
    """
    bound = subject.longest or max(length for _, length in _SHAPES)
    others = [name for name in free_dims(subject.inputs) if name not in ("batch", "length")]
    return [
        {"batch": batch, "length": min(length, bound)}
        | {name: min(1 + length // (2 + place), bound) for place, name in enumerate(others)}
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

    Raises:
        ExportError: PyTorch itself cannot run one of the sizes, or a size is not given.
    """
    generator = torch.Generator().manual_seed(seed)
    rows: list[dict[str, Any]] = []
    worst = relative = 0.0
    same = answers = 0
    for sizes in shapes or default_shapes(subject):
        named = _named(subject, sizes)
        inputs = draw_all(subject.inputs, sizes, generator)
        expected = _expected(subject, inputs, named)
        try:
            found = run(inputs)
        except Exception as error:  # noqa: BLE001 - a foreign runtime raises what it likes
            return _failed(rows, f"{named}: {told(error)}")
        difference = 0.0
        for one, other in zip(expected, found, strict=True):
            if one.shape != other.shape:
                why = f"{named}: shape {list(other.shape)} in place of {list(one.shape)}"
                return _failed(rows, why)
            apart = _difference(one, other)
            difference = max(difference, apart)
            relative = max(relative, apart / max(_scale(one), 1e-12))
            same += int((_answers(one) == _answers(other)).sum())
            answers += _answers(one).numel()
        rows.append({**named, "difference": difference})
        worst = max(worst, difference)
    return Parity(rows, worst, relative, same / max(1, answers))


def as_tuple(output: Any) -> tuple[torch.Tensor, ...]:
    """One tensor, or several, as several."""
    return (output,) if isinstance(output, torch.Tensor) else tuple(output)


def _named(subject: Subject, sizes: Sizes) -> dict[str, int]:
    free = free_dims(subject.inputs)
    lacking = [name for name in free if name not in sizes]
    if lacking:
        raise ExportError(
            f"a shape to compare on has no {lacking[0]}",
            where=f"shapes, {dict(sizes)}",
            next_step=f"give the size of each of: {', '.join(free)}",
        )
    return {name: sizes[name] for name in free}


def _expected(
    subject: Subject, inputs: Mapping[str, torch.Tensor], named: dict[str, int]
) -> tuple[torch.Tensor, ...]:
    try:
        with torch.no_grad():
            return as_tuple(subject.module(*inputs.values()))
    except Exception as error:
        raise ExportError(
            f"{subject.architecture} cannot be run in PyTorch, so no file can be compared with it",
            where=f"a shape to compare on, {named}",
            why=told(error),
            next_step="give sizes that it can read: shapes=[{'batch': 2, …}, …]",
        ) from error


def _failed(rows: list[dict[str, Any]], why: str) -> Parity:
    return Parity(rows, float("inf"), float("inf"), 0.0, why)


def _answers(output: torch.Tensor) -> torch.Tensor:
    """The decision of each row: the largest output, or of a single one its sign."""
    if output.ndim < 2 or output.shape[-1] == 1:
        return output > 0
    return output.double().argmax(-1)


def _scale(output: torch.Tensor) -> float:
    known = output.double().abs()
    return float(known[known.isfinite()].max()) if known.isfinite().any() else 1.0


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest absolute difference; infinite where only one side is not a number."""
    left, right = one.double().numpy(), other.double().numpy()
    if not np.array_equal(np.isnan(left), np.isnan(right)):
        return float("inf")
    known = np.isfinite(left) & np.isfinite(right)
    if not np.array_equal(left[~known], right[~known], equal_nan=True):
        return float("inf")
    return float(np.abs(left - right)[known].max(initial=0.0))
