"""What every sketch can do, and the limits that bound its memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

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
    # The oldest Arrow layout is offsets into one run of bytes.
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    _, offset_buffer, data = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[array.offset :][: len(array) + 1]
    if data is None or not len(offsets):
        return {"lengths": np.zeros(len(array), np.int64), "bytes": np.empty(0, np.uint8)}
    joined = np.frombuffer(data, np.uint8)[int(offsets[0]) : int(offsets[-1])]
    return {"lengths": np.diff(offsets), "bytes": joined}


def unpack_texts(arrays: dict[str, npt.NDArray[Any]]) -> pl.Series:
    """The strings that `pack_texts` was given.

    Raises:
        ValueError: The arrays do not fit each other, or are no UTF-8.
    """
    lengths, joined = arrays["lengths"], np.ascontiguousarray(arrays["bytes"])
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    if offsets[-1] != len(joined) or (len(lengths) and lengths.min() < 0):
        raise ValueError("the lengths of the texts do not add up")
    array = pa.LargeStringArray.from_buffers(
        len(lengths), pa.py_buffer(offsets), pa.py_buffer(joined)
    )
    array.validate(full=True)  # an ArrowInvalid, which is a ValueError, where it is no UTF-8
    return pl.Series(array, dtype=pl.String)
