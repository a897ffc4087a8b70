"""Tabular features: a frame with one row per example becomes two arrays, the same way every time.

::

    frame  example  income  region        numbers  float64 [n, numbers]     NaN where missing
           7        31.5    "north"       codes    int64 [n, categories]    0 missing, 1 unknown,
           9        null    "moon"                                          2… the known ones

What a column is (a number or a category) and which categories are known is learned from training
rows alone and kept as plain data, so that a model reads a new frame as it read the first.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import DataError, nearest

MISSING, UNKNOWN, FIRST_KNOWN = 0, 1, 2


@dataclass(frozen=True)
class TabularArrays:
    """The features of some examples.

    Args:
        numbers: float64 [n, numbers]; NaN where missing, ±inf as it was.
        codes: int64 [n, categories]; 0 missing, 1 unknown, 2 and above the known categories.
    """

    numbers: npt.NDArray[np.float64]
    codes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(frozen=True)
class TabularSchema:
    """Which columns are features, and which categories each knows.

    Numbers and booleans are numbers; text, Categorical and Enum columns are categories. Whole
    numbers that name something (a branch, a postcode) should be cast to text first.

    Args:
        numbers: Columns of numbers.
        categories: The known values of each categorical column, sorted.

    Example:
        >>> frame = pl.DataFrame({"income": [31.5, None, 12.0], "region": ["n", "n", "s"]})
        >>> schema = TabularSchema.fit(frame, min_count=2)
        >>> schema
        TabularSchema(numbers=('income',), categories={'region': ('n',)})
        >>> schema.encode(pl.DataFrame({"region": ["n", "moon", None], "income": [1, 2, 3]})).codes
        array([[2],
               [1],
               [0]])
    """

    numbers: tuple[str, ...]
    categories: dict[str, tuple[str, ...]]

    @classmethod
    def fit(
        cls,
        frame: pl.DataFrame,
        *,
        exclude: Collection[str] = (),
        min_count: int = 5,
        most: int = 1000,
    ) -> Self:
        """Learn columns and categories from training rows.

        Args:
            frame: One row per example.
            exclude: Columns that are no features: the key, the labels.
            min_count: Rows that a category needs to be known; rarer ones are read as unknown,
                so that the vector of "unknown" is trained on what is rare.
            most: Known categories of a column; the commonest are kept.

        Raises:
            DataError: A column is neither numbers nor categories.
        """
        numbers, categories = [], {}
        for name in frame.columns:
            if name in exclude:
                continue
            kind = frame.schema[name]
            if _is_number(kind):
                numbers.append(name)
            elif _is_category(kind):
                counts = frame[name].cast(pl.String).drop_nulls().value_counts()
                counts = counts.filter(pl.col("count") >= min_count)
                kept = counts.sort("count", name, descending=[True, False]).head(most)
                categories[name] = tuple(sorted(kept[name].to_list()))
            else:
                raise DataError(
                    f"the column {name!r} of type {kind} is neither a number nor a category",
                    where="the tabular features",
                    next_step="cast it (times to numbers such as days before the cut, names to "
                    "String), or drop it",
                )
        return cls(tuple(numbers), categories)

    @property
    def columns(self) -> tuple[str, ...]:
        """All features, numbers first."""
        return (*self.numbers, *self.categories)

    @property
    def sizes(self) -> list[int]:
        """Codes of each categorical column, missing and unknown included."""
        return [FIRST_KNOWN + len(known) for known in self.categories.values()]

    def encode(self, frame: pl.DataFrame) -> TabularArrays:
        """The features of a frame; other columns are not looked at, nor is the columns' order.

        Null and NaN are missing. Infinite numbers stay: the model's scaler reads them as the
        most extreme value of training on their side. A category that training did not know is
        "unknown".

        Raises:
            DataError: A column is missing, or is text where training had numbers.
        """
        absent = [name for name in self.columns if name not in frame.columns]
        if absent:
            raise DataError(
                f"the tabular features lack {len(absent)} of {len(self.columns)} columns: "
                + ", ".join(map(repr, absent[:8]))
                + (", …" if len(absent) > 8 else ""),
                where="the frame of examples",
                why="the model was trained on them",
                next_step=nearest(absent[0], frame.columns)
                or "give the columns of training; null where a value is missing",
            )
        numbers = np.full((frame.height, len(self.numbers)), np.nan)
        for place, name in enumerate(self.numbers):
            numbers[:, place] = _number_column(frame[name])
        codes = np.zeros((frame.height, len(self.categories)), np.int64)
        for place, (name, known) in enumerate(self.categories.items()):
            codes[:, place] = _category_column(frame[name], known)
        return TabularArrays(numbers, codes)

    def to_json(self) -> dict[str, Any]:
        """The schema as plain data."""
        return {
            "numbers": list(self.numbers),
            "categories": {name: list(known) for name, known in self.categories.items()},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The schema that :meth:`to_json` told of."""
        categories = {name: tuple(known) for name, known in values["categories"].items()}
        return cls(tuple(values["numbers"]), categories)


def _is_number(kind: pl.DataType) -> bool:
    return kind.is_numeric() or kind == pl.Boolean or kind == pl.Null


def _is_category(kind: pl.DataType) -> bool:
    return kind == pl.String or kind == pl.Categorical or kind == pl.Enum


def _number_column(column: pl.Series) -> npt.NDArray[np.float64]:
    if not _is_number(column.dtype):
        raise DataError(
            f"the column {column.name!r} is {column.dtype}, and was a number in training",
            where="the frame of examples",
            next_step="cast it to a number; null where a value is missing",
        )
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _category_column(column: pl.Series, known: tuple[str, ...]) -> npt.NDArray[np.int64]:
    names = pl.Series(known, dtype=pl.String)
    codes = pl.Series(np.arange(len(known)) + FIRST_KNOWN, dtype=pl.Int64)
    texts = column.cast(pl.String)
    found = texts.replace_strict(names, codes, default=UNKNOWN, return_dtype=pl.Int64)
    return pl.select(pl.when(texts.is_null()).then(MISSING).otherwise(found)).to_series().to_numpy()
