"""What every sketch can do, and the limits that bound its memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import ConfigError, TokenizerError

Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """How much a fit remembers; statistics with different limits cannot be merged.

    Args:
        most_numbers: Distinct magnitudes or gaps that are counted exactly, per field.
        most_distinct: Distinct categories or whole numbers that are counted exactly, per field
            (and 64 bytes of text for each, on average).
        bpe_sample: Distinct texts that the BPE model is trained on.

    Raises:
        ConfigError: A limit is below 1.
    """

    most_numbers: int = 1 << 16
    most_distinct: int = 1 << 20
    bpe_sample: int = 200_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if type(value) is not int or value < 1:
                raise ConfigError(
                    f"{name} must be a whole number of at least 1",
                    why=f"given: {value!r}",
                    next_step="leave it out for the default",
                )


class SketchState(NamedTuple):
    """A sketch as plain data: equal sketches have equal states.

    Attributes:
        meta: JSON data.
        arrays: Named arrays of numbers or bytes.
    """

    meta: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]


class Sketch(ABC):
    """A bounded summary of some values that does not depend on their order or grouping.

    ``merge`` is commutative and associative, and adding values is merging a sketch of them: so any
    partition of the data, in any order, gives the same `state`.
    """

    kind: ClassVar[str]
    """The name of this class in saved bytes."""

    @property
    def needs_recount(self) -> bool:
        """Whether the data has to be read a second time before a fit (`CountSketch`)."""
        return False

    def recounting(self) -> Sketch:
        """A collector for the second pass, where one is needed."""
        raise TokenizerError(
            "there is nothing to count again", why="the first pass has counted everything"
        )

    def adopt(self, recount: Any) -> None:
        """Take the result of a second pass."""
        raise TokenizerError(
            "there was nothing to count again", why="the first pass has counted everything"
        )

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add all that ``other`` has seen; ``other`` stays as it is."""

    @abstractmethod
    def state(self) -> SketchState:
        """All that was seen, as plain data."""

    @classmethod
    @abstractmethod
    def from_state(cls, state: SketchState, limits: Limits) -> Self:
        """A sketch from what `state` gave."""


class NoSketch(Sketch):
    """Remembers nothing: for fields that are known without data, such as a sign."""

    kind: ClassVar[str] = "none"

    def merge(self, other: Self) -> None:
        """Nothing to add."""

    def state(self) -> SketchState:
        """Nothing."""
        return SketchState({}, {})

    @classmethod
    def from_state(cls, state: SketchState, limits: Limits) -> Self:
        """A sketch of nothing."""
        return cls()


def pack_texts(texts: pl.Series) -> dict[str, npt.NDArray[Any]]:
    """Strings as two arrays: the length of each in UTF-8 bytes, and all bytes in a row.

    Example:
        >>> packed = pack_texts(pl.Series(["a", "ne"]))
        >>> packed["lengths"].tolist(), packed["bytes"].tobytes()
        ([1, 2], b'ane')
    """
    lengths = texts.str.len_bytes().to_numpy().astype(np.int64)
    joined = "".join(texts.to_list()).encode()
    return {"lengths": lengths, "bytes": np.frombuffer(joined, dtype=np.uint8)}


def unpack_texts(arrays: dict[str, npt.NDArray[Any]]) -> pl.Series:
    """The strings that `pack_texts` was given.

    Raises:
        ValueError: The arrays do not fit each other, or are no UTF-8.
    """
    lengths, joined = arrays["lengths"].tolist(), arrays["bytes"].tobytes()
    if sum(lengths) != len(joined) or min(lengths, default=0) < 0:
        raise ValueError("the lengths of the texts do not add up")
    texts, start = [], 0
    for length in lengths:
        texts.append(joined[start : start + length].decode())
        start += length
    return pl.Series(texts, dtype=pl.String)
