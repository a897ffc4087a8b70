"""Entities as standardised vectors, from whatever a table says of them.

::

    items ─▶ text block ──────╮
          ─▶ sets block ──────┤ each centred, scaled to   × weight
          ─▶ numbers block ───┼ unit variance ──────────▶ side by side ─▶ [n, D], variance 1
          ─▶ embeddings block ┤
    histories ─▶ PPMI + SVD ──╯

Standardising is not a nicety: vectors of length 1 that all point roughly one way make every
entity fall on one code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import DataError, InputError, nearest
from domainformer.tokenizers.semantic.blocks import (
    BagBlock,
    FeatureBlock,
    NumberBlock,
    VectorBlock,
    restored_block,
)
from domainformer.tokenizers.semantic.sentences import SentenceBlock
from domainformer.tokenizers.semantic.sparse import Floats

HISTORIES = "histories"
KINDS = ("text", "sets", "numbers", "embeddings", HISTORIES)

# Strings of so many words on average are sentences; of fewer, labels.
_WORDS_OF_TEXT = 2.0


@dataclass(frozen=True)
class EntityFeaturePlan:
    """Which columns of an items table are read, and how.

    Args:
        text: Columns of strings: words.
        sets: Columns of lists, labels or booleans: members.
        numbers: Numeric columns.
        embeddings: Columns of vectors.
        text_model: Folder of a sentence-embedding model that reads the text columns instead of
            TF-IDF; new entities need it, too.
        weights: Weight of a kind (text, sets, numbers, embeddings, histories); 1 unless given.
        dimensions: Most dimensions of a block of text, sets or histories.

    Raises:
        InputError: A weight is negative or of an unknown kind, or there are no dimensions.
    """

    text: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    text_model: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    dimensions: int = 64

    def __post_init__(self) -> None:
        for kind, weight in self.weights.items():
            if kind not in KINDS:
                raise InputError(f"there is no feature {kind!r}", next_step=nearest(kind, KINDS))
            if not 0 <= weight < float("inf"):
                raise InputError(f"the weight of {kind} must be 0 or more, not {weight}")
        if self.dimensions < 1:
            raise InputError(f"dimensions must be 1 or more, not {self.dimensions}")

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are read."""
        return (*self.text, *self.sets, *self.numbers, *self.embeddings)

    def inferred(self, frame: pl.DataFrame) -> EntityFeaturePlan:
        """The plan for all columns of a table, by their types; a plan with columns stays.

        Strings of two words or more on average are text and others labels; lists of fractions are
        embeddings and other lists sets.

        Example:
            >>> items = pl.DataFrame({"title": ["red silk scarf", "blue mug"], "price": [9.0, 4.5],
            ...                       "tags": [["wear"], []], "v": [[0.1], [0.2]]})
            >>> plan = EntityFeaturePlan().inferred(items)
            >>> plan.text, plan.sets, plan.numbers, plan.embeddings
            (('title',), ('tags',), ('price',), ('v',))
        """
        if self.columns:
            return self
        found: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for name, dtype in frame.schema.items():
            if isinstance(dtype, (pl.List, pl.Array)):
                found["embeddings" if dtype.inner.is_float() else "sets"].append(name)
            elif dtype.is_numeric():
                found["numbers"].append(name)
            elif dtype == pl.String:
                words = frame[name].str.count_matches(r"\w+").mean()
                is_text = isinstance(words, float) and words >= _WORDS_OF_TEXT
                found["text" if is_text else "sets"].append(name)
            elif dtype in (pl.Categorical, pl.Enum, pl.Boolean):
                found["sets"].append(name)
        return replace(
            self,
            text=tuple(found["text"]),
            sets=tuple(found["sets"]),
            numbers=tuple(found["numbers"]),
            embeddings=tuple(found["embeddings"]),
        )


@dataclass(frozen=True)
class _Scale:
    """How one block's vectors become its part of the features: ``(x − mean) · factor``."""

    kind: str
    mean: Floats
    factor: Floats

    @classmethod
    def of(cls, kind: str, vectors: Floats, *, columnwise: bool, weight: float) -> _Scale:
        mean = vectors.mean(axis=0)
        variance = ((vectors - mean) ** 2).mean(axis=0)
        if not columnwise:
            variance = np.full_like(variance, variance.mean() if len(variance) else 0.0)
        # What does not vary says nothing; scaling it up would blow rounding errors up.
        varies = variance > 1e-12 * (1.0 + mean**2)
        factor = np.where(varies, weight / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
        return cls(kind, mean, factor)

    def __call__(self, vectors: Floats) -> Floats:
        return (vectors - self.mean) * self.factor


class EntityFeatures:
    """The fitted features of entities: reads the columns of new ones, too.

    Args:
        blocks: What reads the columns.
        scales: One per block, and the last for histories where there were any.

    Example:
        >>> items = pl.DataFrame({"price": [1.0, 3.0, 9.0], "tags": [["a"], ["a", "b"], ["b"]]})
        >>> features, vectors = EntityFeatures.fit(items, EntityFeaturePlan().inferred(items))
        >>> vectors.shape, float((vectors**2).mean().round(6))
        ((3, 3), 1.0)
        >>> bool(np.allclose(features.read(items), vectors))
        True
    """

    def __init__(self, blocks: list[FeatureBlock], scales: list[_Scale]) -> None:
        self.blocks, self.scales = blocks, scales

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that new entities need."""
        return tuple(name for block in self.blocks for name in block.columns)

    @property
    def kinds(self) -> dict[str, int]:
        """Dimensions of each kind of feature."""
        sizes: dict[str, int] = {}
        for scale in self.scales:
            sizes[scale.kind] = sizes.get(scale.kind, 0) + len(scale.mean)
        return sizes

    @classmethod
    def fit(
        cls,
        frame: pl.DataFrame,
        plan: EntityFeaturePlan,
        histories: Floats | None = None,
        *,
        seed: int = 0,
    ) -> tuple[EntityFeatures, Floats]:
        """Fit on entities, and give their features.

        Args:
            frame: A row per entity.
            plan: Which columns are read.
            histories: Co-occurrence vectors, ``[n, k]``.
            seed: Of the SVDs.

        Returns:
            The fitted features, and float64 ``[n, D]`` of mean variance 1.

        Raises:
            DataError: A column is missing, or nothing tells entities apart.
        """
        blocks = _fitted_blocks(frame, plan, seed)
        parts = [(b.kind, b.columnwise, b.read(frame)) for b in blocks]
        if histories is not None:
            parts.append((HISTORIES, False, histories))
        scales = []
        for kind, columnwise, vectors in parts:
            # Kinds count by their weight, however many dimensions and columns they have.
            size = sum(v.shape[1] for k, _, v in parts if k == kind)
            weight = plan.weights.get(kind, 1.0) / np.sqrt(max(size, 1))
            scales.append(_Scale.of(kind, vectors, columnwise=columnwise, weight=weight))
        joined = [scale(v) for scale, (_, _, v) in zip(scales, parts, strict=True)]
        features = np.concatenate([np.empty((frame.height, 0)), *joined], axis=1)
        spread = float(np.sqrt((features**2).mean())) if features.size else 0.0
        if not spread:
            raise DataError(
                "the entities have no features that tell them apart",
                why=f"columns read: {', '.join(plan.columns) or 'none'}",
                next_step="give an items table with text, sets or numbers, or histories",
            )
        scales = [replace(scale, factor=scale.factor / spread) for scale in scales]
        return cls(blocks, scales), features / spread

    def read(self, frame: pl.DataFrame) -> Floats:
        """Features of entities, ``[n, D]``; as if they had no history, where histories count.

        Raises:
            DataError: A column is missing.
        """
        _check_columns(frame, self.columns)
        vectors = [block.read(frame) for block in self.blocks]
        if len(self.scales) > len(vectors):
            vectors.append(np.zeros((frame.height, len(self.scales[-1].mean))))
        joined = [scale(v) for scale, v in zip(self.scales, vectors, strict=True)]
        return np.concatenate(joined, axis=1)

    def state(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {
            "blocks": [block.state() for block in self.blocks],
            "scales": [scale.kind for scale in self.scales],
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Arrays by name."""
        named: dict[str, npt.NDArray[Any]] = {}
        for index, block in enumerate(self.blocks):
            named |= {f"block{index}.{name}": array for name, array in block.arrays().items()}
        for index, scale in enumerate(self.scales):
            named |= {f"scale{index}.mean": scale.mean, f"scale{index}.factor": scale.factor}
        return named

    @classmethod
    def restored(cls, state: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """The features that gave this state and these arrays."""
        blocks = [
            restored_block(block, _under(arrays, f"block{index}."))
            for index, block in enumerate(state["blocks"])
        ]
        scales = [
            _Scale(kind, arrays[f"scale{index}.mean"], arrays[f"scale{index}.factor"])
            for index, kind in enumerate(state["scales"])
        ]
        return cls(blocks, scales)


def _under(arrays: Mapping[str, npt.NDArray[Any]], prefix: str) -> dict[str, npt.NDArray[Any]]:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _check_columns(frame: pl.DataFrame, columns: tuple[str, ...]) -> None:
    for name in columns:
        if name not in frame.columns:
            raise DataError(
                f"the items have no column {name!r}", next_step=nearest(name, frame.columns)
            )


def _fitted_blocks(frame: pl.DataFrame, plan: EntityFeaturePlan, seed: int) -> list[FeatureBlock]:
    _check_columns(frame, plan.columns)
    for kind, names in (("text", plan.text), ("numbers", plan.numbers)):
        for name in names:
            dtype = frame.schema[name]
            if not (dtype == pl.String if kind == "text" else dtype.is_numeric()):
                raise DataError(
                    f"the column {name!r} is {dtype}, and {kind} is expected",
                    next_step="cast it, or read it as sets",
                )
    blocks: list[FeatureBlock] = []
    for name in plan.text:
        if plan.text_model is not None:
            blocks.append(SentenceBlock(name, str(plan.text_model)))
        else:
            blocks.append(BagBlock(name, "text").fit(frame, plan.dimensions, seed))
    blocks += [BagBlock(name, "sets").fit(frame, plan.dimensions, seed) for name in plan.sets]
    if plan.numbers:
        blocks.append(NumberBlock(plan.numbers).fit(frame))
    blocks += [VectorBlock(name).fit(frame) for name in plan.embeddings]
    return blocks
