"""What gives codes to entities that the fit did not see: features and quantizer, in numpy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.tokenizers.semantic.features import EntityFeatures
from domainformer.tokenizers.semantic.quantizer import Int32s, Quantizer

_QUANTIZER = "quantizer."
_FEATURES = "features."


@dataclass(frozen=True)
class SemanticModel:
    """From the columns of entities to their codes.

    Args:
        features: Reads columns.
        quantizer: Turns features into codes.
    """

    features: EntityFeatures
    quantizer: Quantizer

    def codes(self, frame: pl.DataFrame) -> tuple[Int32s, Int32s]:
        """Codes of each row, ``[n, levels]``, and its last codes from the nearest on.

        Raises:
            DataError: A feature column is missing.
        """
        vectors = self.features.read(frame)
        return self.quantizer.codes(vectors), self.quantizer.last_level_order(vectors)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays by name, contiguous."""
        parts = ((_FEATURES, self.features.arrays()), (_QUANTIZER, self.quantizer.arrays()))
        return {
            prefix + name: np.ascontiguousarray(array)
            for prefix, arrays in parts
            for name, array in arrays.items()
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The model whose features gave this state, and whose `arrays` these are."""

        def under(prefix: str) -> dict[str, npt.NDArray[Any]]:
            return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}

        features = EntityFeatures.restored(state, under(_FEATURES))
        return cls(features, Quantizer.from_arrays(under(_QUANTIZER)))
