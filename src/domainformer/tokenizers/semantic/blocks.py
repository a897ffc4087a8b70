"""What one kind of column says of entities, as vectors: words and sets, numbers, embeddings.

::

    text, sets    bag of tokens ─▶ TF-IDF, unit rows ─▶ truncated SVD      (latent semantics)
    numbers       sign(x)·log(1 + |x|)                                     (heavy tails)
    embeddings    as they are

Each block is fitted on the entities of the fit and then reads any others. A value that is null, or
a word that the fit did not see, adds nothing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import DataError
from domainformer.tokenizers.fields.columns import canonical_text
from domainformer.tokenizers.semantic.sentences import SentenceBlock
from domainformer.tokenizers.semantic.sparse import Floats, SparseRows, truncated_svd

Arrays = Mapping[str, npt.NDArray[Any]]

_WORD = re.compile(r"\w+")
# A token that a single entity has says nothing of what it shares with others.
_FEWEST_OWNERS = 2
_MOST_TOKENS = 1 << 16


class FeatureBlock(Protocol):
    """The vectors of one column (or of the number columns together)."""

    columnwise: ClassVar[bool]
    """Whether each dimension is scaled alone (an SVD's are scaled together)."""

    @property
    def kind(self) -> str:
        """The block's name in weights and files."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""

    def read(self, frame: pl.DataFrame) -> Floats:
        """A row per entity, ``[n, d]``."""

    def state(self) -> dict[str, Any]:
        """Plain data of what was fitted."""

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays of what was fitted."""


class BagBlock:
    """Words of a text or members of a set: TF-IDF and truncated SVD.

    ::

        weight(token, entity) = (1 + log tf) · (log((1 + n) / (1 + df)) + 1), rows of length 1

    The weights are those of scikit-learn's ``TfidfVectorizer(sublinear_tf=True)``.

    Args:
        column: The column: strings, or lists for sets (a single value is a set of one).
        kind: ``"text"`` or ``"sets"``.
    """

    columnwise: ClassVar[bool] = False

    def __init__(self, column: str, kind: str) -> None:
        self.column, self.kind = column, kind
        self.vocabulary: dict[str, int] = {}
        self.idf: Floats = np.empty(0)
        self.components: Floats = np.empty((0, 0))

    @property
    def columns(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    def fit(self, frame: pl.DataFrame, dimensions: int, seed: int) -> Self:
        """Learn the vocabulary, its rarities and the SVD."""
        bags = [Counter(self._tokens(value)) for value in frame[self.column].to_list()]
        owners = Counter(token for bag in bags for token in bag)
        ranked = sorted(owners.items(), key=lambda item: (-item[1], item[0]))
        kept = [(t, n) for t, n in ranked if n >= _FEWEST_OWNERS][:_MOST_TOKENS]
        self.vocabulary = {token: index for index, (token, _) in enumerate(sorted(kept))}
        df = np.array([owners[token] for token in self.vocabulary], np.float64)
        self.idf = np.log((1 + len(bags)) / (1 + df)) + 1
        self.components, _ = truncated_svd(self._weighted(bags), dimensions, seed=seed)
        return self

    def read(self, frame: pl.DataFrame) -> Floats:
        """Coordinates in the SVD, ``[n, k]``; zeros where no token is known."""
        bags = [Counter(self._tokens(value)) for value in frame[self.column].to_list()]
        return self._weighted(bags).times(self.components)

    def _tokens(self, value: Any) -> list[str]:
        if value is None:
            return []
        if self.kind == "text":
            return _WORD.findall(str(value).casefold())
        members = value if isinstance(value, (list, tuple, set)) else [value]
        return [text for text in map(canonical_text, members) if text is not None]

    def _weighted(self, bags: Sequence[Counter[str]]) -> SparseRows:
        rows, columns, counts = [], [], []
        for row, bag in enumerate(bags):
            for token, count in bag.items():
                column = self.vocabulary.get(token)
                if column is not None:
                    rows.append(row)
                    columns.append(column)
                    counts.append(count)
        where = np.array(columns, np.int64)
        values = (1 + np.log(np.array(counts, np.float64))) * self.idf[where]
        norms = np.sqrt(np.bincount(np.array(rows, np.int64), values**2, len(bags)))
        values = values / norms[rows] if len(values) else values
        return SparseRows.of(rows, columns, values, (len(bags), len(self.vocabulary)))

    def state(self) -> dict[str, Any]:
        """Column and vocabulary."""
        return {"kind": self.kind, "column": self.column, "vocabulary": list(self.vocabulary)}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Rarities and the SVD."""
        return {"idf": self.idf, "components": self.components}

    @classmethod
    def restored(cls, state: Mapping[str, Any], arrays: Arrays) -> Self:
        """The block that gave this state and these arrays."""
        block = cls(state["column"], state["kind"])
        block.vocabulary = {token: index for index, token in enumerate(state["vocabulary"])}
        block.idf, block.components = arrays["idf"], arrays["components"]
        return block


class NumberBlock:
    """Numeric columns, each on a logarithmic scale; null and what is not finite become the mean.

    Args:
        columns: Names of numeric columns.
        means: Mean of each on that scale, learned by `fit`.
    """

    kind: str = "numbers"
    columnwise: ClassVar[bool] = True

    def __init__(self, columns: Sequence[str], means: npt.ArrayLike = ()) -> None:
        self.columns = tuple(columns)
        self.means: Floats = np.asarray(means, np.float64)

    def fit(self, frame: pl.DataFrame) -> Self:
        """Learn the means."""
        scaled = self._scaled(frame)
        known = ~np.isnan(scaled)
        total = np.where(known, scaled, 0.0).sum(axis=0)
        self.means = total / np.maximum(known.sum(axis=0), 1)
        return self

    def read(self, frame: pl.DataFrame) -> Floats:
        """``[n, columns]``."""
        scaled = self._scaled(frame)
        return np.where(np.isnan(scaled), self.means, scaled)

    def _scaled(self, frame: pl.DataFrame) -> Floats:
        numbers = frame.select(pl.col(self.columns).cast(pl.Float64).fill_null(float("nan")))
        x = numbers.to_numpy().astype(np.float64)
        x = np.where(np.isfinite(x), x, np.nan)
        return np.sign(x) * np.log1p(np.abs(x))

    def state(self) -> dict[str, Any]:
        """The columns."""
        return {"kind": self.kind, "columns": list(self.columns)}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The means."""
        return {"means": self.means}


class VectorBlock:
    """A column of vectors that came from elsewhere, such as a sentence-embedding model.

    Args:
        column: A column of lists or arrays of numbers, all of one length.
        size: That length, learned by `fit`.
    """

    kind: str = "embeddings"
    columnwise: ClassVar[bool] = True

    def __init__(self, column: str, size: int = 0) -> None:
        self.column, self.size = column, size

    @property
    def columns(self) -> tuple[str, ...]:
        """The one column."""
        return (self.column,)

    def fit(self, frame: pl.DataFrame) -> Self:
        """Learn the length."""
        self.size = len(next((v for v in _vectors(frame[self.column]) if v is not None), ()))
        return self

    def read(self, frame: pl.DataFrame) -> Floats:
        """``[n, size]``; zeros for null.

        Raises:
            DataError: A vector has another length, or holds what is no finite number.
        """
        vectors = np.zeros((frame.height, self.size))
        for row, value in enumerate(_vectors(frame[self.column])):
            if value is None:
                continue
            if len(value) != self.size or not np.isfinite(np.array(value, np.float64)).all():
                raise DataError(
                    f"a vector of {len(value)} numbers does not fit",
                    where=f"column {self.column!r}, row {row}",
                    why=f"{self.size} finite numbers are expected",
                )
            vectors[row] = value
        return vectors

    def state(self) -> dict[str, Any]:
        """Column and length."""
        return {"kind": self.kind, "column": self.column, "size": self.size}

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """None: the vectors come with the entities."""
        return {}


def _vectors(column: pl.Series) -> Iterable[list[float] | None]:
    return column.cast(pl.List(pl.Float64)).to_list()


def restored_block(state: Mapping[str, Any], arrays: Arrays) -> FeatureBlock:
    """The block that gave this state and these arrays."""
    if state["kind"] == NumberBlock.kind:
        return NumberBlock(state["columns"], arrays["means"])
    if state["kind"] == VectorBlock.kind:
        return VectorBlock(state["column"], int(state["size"]))
    if state["kind"] == "sentences":
        return SentenceBlock(state["column"], state["model"])
    return BagBlock.restored(state, arrays)
