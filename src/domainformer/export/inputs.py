"""What a model reads: the name, type and dimensions of each tensor, and how to draw one.

::

    InputSpec("input_ids", "int64", ("batch", "length"), high=50)
                                     └── named dimensions are free in the exported file
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from domainformer.errors import ExportError

Kind = Literal["ids", "mask", "numbers", "codes"]
Sizes = Mapping[str, int]

_TYPES = {
    torch.int64: "int64",
    torch.int32: "int32",
    torch.float32: "float32",
    torch.float64: "float64",
    torch.bool: "bool",
}
TORCH_TYPES = {name: kind for kind, name in _TYPES.items()}


@dataclass(frozen=True)
class InputSpec:
    """One tensor that a model reads.

    Args:
        name: As the model's ``forward`` calls it.
        dtype: ``int64``, ``int32``, ``float32``, ``float64`` or ``bool``.
        dims: Each a name (free in the exported file) or a fixed size.
        kind: ``ids`` are drawn below ``high``; a ``mask`` is 1 at first and 0 at the end of some
            rows, ``numbers`` are normal, ``codes`` are drawn below the size of their column.
        high: Number of ids.
        sizes: Number of codes of each column.
        missing: Whether numbers may be NaN.
        low: The smallest id that is drawn.

    Example:
        >>> spec = InputSpec("input_ids", "int64", ("batch", "length"), high=9)
        >>> spec.draw({"batch": 2, "length": 5}, torch.Generator().manual_seed(0)).shape
        torch.Size([2, 5])
    """

    name: str
    dtype: str
    dims: tuple[str | int, ...]
    kind: Kind = "ids"
    high: int = 2
    low: int = 0
    sizes: tuple[int, ...] = ()
    missing: bool = False

    def shape(self, sizes: Sizes) -> tuple[int, ...]:
        """The shape for given sizes of the named dimensions."""
        return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in self.dims)

    def draw(self, sizes: Sizes, generator: torch.Generator) -> torch.Tensor:
        """A tensor such as the model may be given.

        Args:
            sizes: Of the named dimensions.
            generator: Decides the values.
        """
        shape, dtype = self.shape(sizes), TORCH_TYPES[self.dtype]
        if self.kind == "ids":
            return torch.randint(self.low, self.high, shape, generator=generator).to(dtype)
        if self.kind == "codes":
            bounds = torch.tensor(self.sizes)
            return (torch.rand(shape, generator=generator) * bounds).long().to(dtype)
        if self.kind == "mask":
            # The last rows are the shorter ones; every row keeps its first token.
            rows, length = shape
            lengths = length - torch.arange(rows) * max(1, length // 3)
            return (torch.arange(length) < lengths.clamp(min=1)[:, None]).to(dtype)
        drawn = torch.randn(shape, generator=generator, dtype=dtype)
        if self.missing:
            drawn[torch.rand(shape, generator=generator) < 0.2] = torch.nan
        return drawn

    def to_json(self) -> dict[str, object]:
        """Plain data: name, type and dimensions."""
        return {"name": self.name, "dtype": self.dtype, "dims": list(self.dims)}


def spec_of(name: str, tensor: torch.Tensor) -> InputSpec:
    """The specification of an example: its first dimension is free, and the second of ids.

    Args:
        name: As ``forward`` calls it.
        tensor: An example: int64 ids [B, L], or floats [B, …].

    Raises:
        ExportError: The tensor is of a type that other runtimes do not have.

    Example:
        >>> spec_of("pixels", torch.zeros(2, 3, 8, 8)).dims
        ('batch', 3, 8, 8)
        >>> spec_of("input_ids", torch.tensor([[1, 4], [2, 3]])).dims
        ('batch', 'length')
    """
    if tensor.dtype not in _TYPES:
        raise ExportError(
            f"the input {name} is of type {tensor.dtype}",
            next_step=f"use one of: {', '.join(TORCH_TYPES)}",
        )
    if not tensor.numel() or not tensor.ndim:
        raise ExportError(
            f"the input {name} is {'empty' if tensor.ndim else 'a single number'}",
            next_step="give an example of a whole batch, its first dimension the rows",
        )
    dtype, whole = _TYPES[tensor.dtype], not tensor.dtype.is_floating_point
    if whole and tensor.ndim == 2:
        if "mask" in name:
            return InputSpec(name, dtype, ("batch", "length"), "mask")
        high = max(2, int(tensor.max()) + 1)
        return InputSpec(name, dtype, ("batch", "length"), "ids", high=high)
    dims: tuple[str | int, ...] = ("batch", *tensor.shape[1:])
    if whole:
        return InputSpec(name, dtype, dims, "ids", high=max(2, int(tensor.max()) + 1))
    return InputSpec(name, dtype, dims, "numbers")


def free_dims(specs: Sequence[InputSpec]) -> list[str]:
    """The named dimensions of all inputs, each once, in their order."""
    return list(dict.fromkeys(dim for one in specs for dim in one.dims if isinstance(dim, str)))


def draw_all(
    specs: Sequence[InputSpec], sizes: Sizes, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """One tensor for each specification, by name."""
    return {spec.name: spec.draw(sizes, generator) for spec in specs}
