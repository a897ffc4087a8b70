"""From features to codes with nothing but numpy: what a fit leaves behind.

::

    features ─▶ encoder (a few linear layers with ReLU; none for k-means) ─▶ r₀
    level l:    code_l = nearest row of codebook l to r_l        r_{l+1} = r_l − that row

Both ways of fitting (`kmeans`, `rqvae`) end in a `Quantizer`, and every entity, old or new, gets
its codes from it, so that equal features always give equal codes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Int32s = npt.NDArray[np.int32]

# Rows whose distances to a codebook are held at once: 4096 × 256 doubles are 8 MiB.
_BLOCK = 4096


@dataclass(frozen=True)
class Quantizer:
    """An encoder and a codebook per level.

    Args:
        layers: Weights ``[in, out]`` and biases ``[out]``; ReLU between them, none after the last.
        codebooks: ``[levels, codes, latent]``.
    """

    layers: tuple[tuple[Floats, Floats], ...]
    codebooks: Floats

    @property
    def levels(self) -> int:
        """Number of codes that an entity gets."""
        return len(self.codebooks)

    @property
    def n_codes(self) -> int:
        """Values of each code."""
        return self.codebooks.shape[1]

    def latent(self, features: Floats) -> Floats:
        """What the first level quantizes, ``[n, latent]``."""
        hidden = np.asarray(features, np.float64)
        for index, (weight, bias) in enumerate(self.layers):
            hidden = (np.maximum(hidden, 0.0) if index else hidden) @ weight + bias
        return hidden

    def codes(self, features: Floats) -> Int32s:
        """Codes of each row, int32 ``[n, levels]``.

        Example:
            >>> books = np.array([[[0.0], [10.0]], [[-1.0], [1.0]]])
            >>> Quantizer((), books).codes(np.array([[0.9], [9.2]])).tolist()
            [[0, 1], [1, 0]]
        """
        residual = self.latent(features)
        codes = np.empty((len(residual), self.levels), np.int32)
        for level, book in enumerate(self.codebooks):
            codes[:, level] = nearest_rows(residual, book)
            residual = residual - book[codes[:, level]]
        return codes

    def last_level_order(self, features: Floats) -> Int32s:
        """Codes of the last level from the nearest on, ``[n, codes]``: where to turn when full."""
        residual = self.latent(features)
        for book in self.codebooks[:-1]:
            residual = residual - book[nearest_rows(residual, book)]
        distances = squared_distances(residual, self.codebooks[-1])
        return np.argsort(distances, axis=1, kind="stable").astype(np.int32)

    def quantized(self, codes: Int32s) -> Floats:
        """The sum of the codes' rows, ``[n, latent]``: what the codes say of the latent."""
        rows = [book[codes[:, level]] for level, book in enumerate(self.codebooks)]
        return np.sum(rows, axis=0)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All weights by name, to be saved."""
        named: dict[str, npt.NDArray[Any]] = {"codebooks": self.codebooks}
        for index, (weight, bias) in enumerate(self.layers):
            named |= {f"layer{index}.weight": weight, f"layer{index}.bias": bias}
        return named

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The quantizer whose `arrays` these are."""
        count = sum(name.endswith(".weight") for name in arrays)
        layers = tuple(
            (arrays[f"layer{index}.weight"], arrays[f"layer{index}.bias"]) for index in range(count)
        )
        return cls(layers, arrays["codebooks"])


def squared_distances(rows: Floats, book: Floats) -> Floats:
    """Squared distance of every row to every row of a codebook, ``[n, codes]``, up to rounding."""
    return (rows**2).sum(axis=1)[:, None] - 2.0 * rows @ book.T + (book**2).sum(axis=1)


def nearest_rows(rows: Floats, book: Floats) -> Int32s:
    """Index of the nearest row of a codebook, the first where several are, int32 ``[n]``."""
    half = (book**2).sum(axis=1) / 2.0
    nearest = np.empty(len(rows), np.int32)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        nearest[start : start + _BLOCK] = (block @ book.T - half).argmax(axis=1)
    return nearest


def usage(codes: Int32s, n_codes: int) -> list[float]:
    """Share of each level's codes that some entity has.

    Example:
        >>> usage(np.array([[0, 1], [1, 1]], np.int32), 2)
        [1.0, 0.5]
    """
    columns: Sequence[Int32s] = list(codes.T)
    return [len(np.unique(column)) / n_codes for column in columns]


def collision_rate(codes: Int32s) -> float:
    """Share of entities whose codes another one had before: 1 − distinct codes / entities.

    Example:
        >>> collision_rate(np.array([[0, 1], [0, 1], [0, 1], [1, 1]], np.int32))
        0.5
    """
    return 1.0 - len(np.unique(codes, axis=0)) / len(codes) if len(codes) else 0.0
