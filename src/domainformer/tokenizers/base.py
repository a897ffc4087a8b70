"""What every field tokenizer can do, and the two shapes that almost all of them have.

A field tokenizer maps one *column* to small integers, its local ids; `DomainTokenizer` adds the
offset that makes them ids of the one shared vocabulary::

    FieldTokenizer           fit, encode, decode, describe, encode_one, state / from_state
    │                        new_statistics, observe, fit_statistics: the parts of fit
    ├── BinTokenizer         id = 1 + number of edges ≤ x     sign, magnitude, elapsed time
    ├── LookupTokenizer      id = table[code of the value]    discrete, category, entity, calendar
    └── TextTokenizer        a ragged list of ids per value   (fields/text.py)

The two shapes (fields/shapes.py) expose what a fused kernel needs (``values`` and ``edges``;
``codes`` with their ``table``), so that a fast path can run over all fields at once and still give
the same ids.

Local id 0 is the field's own missing token (of the first part, for a field of several parts).
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl

from domainformer.errors import TokenizerError
from domainformer.tokenizers.statistics import Limits, NoSketch, Sketch

if TYPE_CHECKING:
    from domainformer.schema.fields import FieldSpec

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
Float64Array = npt.NDArray[np.float64]

MISSING = 0
"""Local id of a missing value, in every field."""


class SlotRange(NamedTuple):
    """The local ids that may stand at one position of a field: ``range(start, stop)``.

    ``part`` names the position where a field has several (``"month"``, ``"elapsed"``), else "".
    """

    part: str
    start: int
    stop: int


class Ragged(NamedTuple):
    """Rows of different lengths, one after the other.

    ``values[offsets[i]:offsets[i + 1]]`` is row ``i``; ``offsets`` has one entry more than rows.
    """

    values: Int32Array
    offsets: Int64Array

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        """Ragged arrays of Python rows.

        Example:
            >>> Ragged.of([[1, 2], [], [3]]).offsets
            array([0, 2, 2, 3])
        """
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        flat = (value for row in rows for value in row)
        return cls(np.fromiter(flat, dtype=np.int32, count=int(offsets[-1])), offsets)

    def take(self, index: npt.NDArray[np.integer[Any]]) -> Ragged:
        """The rows at ``index``, in that order, without a loop over rows.

        Example:
            >>> Ragged.of([[1, 2], [], [3]]).take(np.array([2, 0])).values
            array([3, 1, 2], dtype=int32)
        """
        lengths = np.diff(self.offsets)[index]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        # Each output cell reads its row's start plus its own position within the row.
        shift = np.repeat(self.offsets[:-1][index] - offsets[:-1], lengths)
        shift += np.arange(offsets[-1])
        return Ragged(self.values[shift], offsets)

    def rows(self) -> list[list[int]]:
        """The rows as Python lists (for tests and small data)."""
        flat, ends = self.values.tolist(), self.offsets.tolist()
        return [flat[start:stop] for start, stop in itertools.pairwise(ends)]


class FieldTokenizer(ABC):
    """Maps one column of a table to local ids, ``width`` of them per event.

    Attributes:
        spec: The field, as the schema describes it.
        vocab: Local id → token string; set by `fit`.
        width: Ids per event; None where it differs from event to event (text).

    Raises:
        TokenizerError: By every method but `fit` and `from_state`, before the tokenizer is fitted.
    """

    kind: ClassVar[str]
    """The name of this class in saved files."""

    width: int | None = 1

    def __init__(self, spec: FieldSpec) -> None:
        self.spec = spec
        self._vocab: list[str] | None = None

    @property
    def vocab(self) -> list[str]:
        """Local id → token string; index 0 is the missing token."""
        self._require_fitted()
        assert self._vocab is not None
        return self._vocab

    @property
    def fitted(self) -> bool:
        """Whether `fit` or `from_state` has run."""
        return self._vocab is not None

    @property
    def slots(self) -> tuple[SlotRange, ...]:
        """The ids that may stand at each of the field's positions; one slot unless said."""
        return (SlotRange("", 0, len(self.vocab)),)

    def fit(self, column: pl.Series) -> Self:
        """Learn the vocabulary from a column of training data, and return self.

        The one way to fit, in one go: what `observe` adds to `new_statistics`, in as many parts and
        on as many machines as one likes, is what `fit_statistics` learns from.
        """
        sketch = self.new_statistics(Limits())
        self.observe(sketch, column)
        if sketch.needs_recount:
            second = sketch.recounting()
            self.observe(second, column)
            sketch.adopt(second)
        return self.fit_statistics(sketch)

    def new_statistics(self, limits: Limits) -> Sketch:
        """An empty sketch of what the fit has to know; by default of nothing."""
        return NoSketch()

    def observe(self, sketch: Any, column: pl.Series) -> None:
        """Add a column of training data to a sketch that `new_statistics` or its second pass gave.

        Raises:
            TokenizerError: The field cannot read the column.
        """
        del sketch, column  # by default there is nothing to know

    def fit_statistics(self, sketch: Any) -> Self:
        """Learn the vocabulary from a sketch of all training data, and return self.

        Raises:
            TokenizerError: This kind of field is not fitted on its column alone.
        """
        raise TokenizerError(
            f"field {self.spec.name!r} cannot be fitted from statistics of its column",
            next_step="fit its tokenizer apart, and pass it on as semantic_ids={name: tokenizer}",
        )

    @abstractmethod
    def encode(self, column: pl.Series) -> Any:
        """Local ids of a column: int32 ``[n, width]``, or `Ragged` where ``width`` is None."""

    @abstractmethod
    def encode_one(self, value: Any) -> tuple[int, ...]:
        """Local ids of one Python value, equal to `encode` of a column that holds it."""

    @abstractmethod
    def decode(self, ids: Any) -> pl.Series:
        """A representative value for each row of local ids; null where there is none."""

    @abstractmethod
    def describe(self, local_id: int) -> dict[str, Any]:
        """What a local id stands for, as plain data: always ``token`` and ``kind``."""

    def extended(
        self, column: pl.Series, *, min_frequency: int | None = None, most: int | None = None
    ) -> Self:
        """A tokenizer that also has ids for new values, behind all old ones (see `extend`).

        This one is left as it is, and every old local id keeps its meaning. Kinds of fields whose
        ids cover every value already (bins, calendar parts) have nothing to add and give
        themselves; so does a field that finds nothing new.

        Args:
            column: New training data.
            min_frequency: A value has to occur so often; the spec's by default.
            most: Add at most so many; by default as many as the spec's ``vocab_size`` leaves.
        """
        return self

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What `fit` learned, as JSON data that `from_state` reads back."""

    @classmethod
    @abstractmethod
    def from_state(cls, spec: FieldSpec, state: dict[str, Any]) -> Self:
        """A fitted tokenizer from its spec and what `state` gave."""

    def _require_fitted(self) -> None:
        if self._vocab is None:
            raise TokenizerError(
                f"the tokenizer of field {self.spec.name!r} is not fitted",
                next_step="call fit(column) first, or load a saved tokenizer",
            )

    def _token(self, local_id: int) -> str:
        """The token of an id, or an error that says which ids exist."""
        if not 0 <= local_id < len(self.vocab):
            raise TokenizerError(
                f"field {self.spec.name!r} has no local id {local_id}",
                why=f"its vocabulary has {len(self.vocab)} tokens",
                next_step="ids of the shared vocabulary start at the field's slot: subtract it",
            )
        return self.vocab[local_id]

    def _checked(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Ids to decode as ``[n, width]``, every one within its slot."""
        self._require_fitted()
        array = np.asarray(ids, dtype=np.int64)
        width = self.width or 1
        if array.ndim == 1 and width == 1:
            array = array[:, None]
        if array.ndim != 2 or array.shape[1] != width:
            raise TokenizerError(
                f"cannot decode an array of shape {array.shape}",
                where=f"field {self.spec.name!r}",
                next_step=f"pass ids of shape [n, {width}]",
            )
        for position, slot in enumerate(self.slots):
            wrong = np.flatnonzero(
                (array[:, position] < slot.start) | (array[:, position] >= slot.stop)
            )
            if wrong.size:
                raise TokenizerError(
                    f"local id {array[wrong[0], position]} does not belong there",
                    where=f"field {self.spec.name!r}, row {wrong[0]}, position {position}",
                    why=f"this position takes {slot.start} to {slot.stop - 1}",
                )
        return array
