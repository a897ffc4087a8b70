"""Feature columns as one matrix of numbers, as trees read them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import DataError


@dataclass(frozen=True)
class Encoder:
    """Feature columns as one float matrix; categories by rank of name, unseen ones missing.

    Example:
        >>> encoder = Encoder.fit(pl.DataFrame({"a": [1, 2], "b": ["x", None]}))
        >>> encoder.transform(pl.DataFrame({"b": ["z"], "a": [5], "c": [0]})).tolist()
        [[5.0, nan]]
    """

    names: list[str]
    categories: dict[str, list[str]]

    @classmethod
    def fit(cls, features: pl.DataFrame) -> Encoder:
        """Remember the columns and their categories; the key ``example`` is no feature."""
        names, categories = [], {}
        for name, dtype in features.schema.items():
            if name == "example":
                continue
            if dtype in (pl.String, pl.Categorical, pl.Enum):
                known = features[name].cast(pl.String).drop_nulls().unique().sort()
                categories[name] = known.to_list()
            elif not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
                raise DataError(
                    f"the feature {name!r} is neither a number nor a category",
                    why=f"it is {dtype}",
                    next_step="cast it, or leave it out",
                )
            names.append(name)
        if not names:
            raise DataError("there are no feature columns")
        return cls(names, categories)

    @property
    def categorical(self) -> list[int]:
        """Positions of categorical columns."""
        return [place for place, name in enumerate(self.names) if name in self.categories]

    def transform(self, features: pl.DataFrame) -> npt.NDArray[np.float32]:
        """float32 ``[rows, columns]``; null and infinite are NaN, which trees send their own way.

        Raises:
            DataError: A column that was there when fitting is missing.
        """
        matrix = np.empty((features.height, len(self.names)), np.float32, order="F")
        for place, name in enumerate(self.names):
            if name not in features.columns:
                raise DataError(f"the feature {name!r} is missing")
            column = features[name]
            if name in self.categories:
                known = self.categories[name]
                column = column.cast(pl.String)
                if known:
                    column = column.replace_strict(known, range(len(known)), default=None)
                else:
                    column = pl.Series(name, [None] * features.height, pl.Float32)
            values = column.cast(pl.Float32).to_numpy()
            matrix[:, place] = np.where(np.isfinite(values), values, np.nan)
        return matrix
