"""Numbers: their sign, the bin of their magnitude, and whole numbers that are kept as they are.

An amount becomes two tokens, so that size and direction are learned apart::

    -12.50  ─▶  [AMOUNT=NEG]  (SignTokenizer)
            └▶  [AMOUNT=B07]  (MagnitudeBucketTokenizer: B07 = [11.2, 14.9))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import polars as pl

from domainformer.schema.fields import (
    bin_token,
    discrete_token,
    missing_token,
    sign_tokens,
    unknown_token,
)
from domainformer.tokenizers.base import MISSING, Float64Array, Int64Array
from domainformer.tokenizers.fields.columns import as_whole_numbers, wrong_value
from domainformer.tokenizers.fields.counting import count_integers
from domainformer.tokenizers.fields.shapes import (
    SMALLEST,
    BinTokenizer,
    Codes,
    LookupTokenizer,
    bin_medians,
    interval,
    restored_floats,
    room_for,
)
from domainformer.tokenizers.statistics import (
    CountSketch,
    Limits,
    QuantileSketch,
    RecountSketch,
    Weighted,
)

if TYPE_CHECKING:
    from domainformer.schema.fields import FieldSpec

UNKNOWN = 1
"""Local id of a value outside the vocabulary."""

# Fitted whole numbers that span no more than this are looked up in a dense table.
_DENSE_SPAN = 1 << 16


class SignTokenizer(BinTokenizer):
    """Whether a number is negative: ``[NAME=NEG]`` below zero, ``[NAME=POS]`` from zero on.

    Infinities have a sign; NaN and null are missing. Nothing is learned from the data.

    Args:
        spec: A field of type SIGN.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> sign = SignTokenizer(FieldSpec("amount", "sign")).fit(pl.Series([1.0]))
        >>> [sign.vocab[i] for i in sign.encode(pl.Series([-3.5, 0.0, None]))[:, 0]]
        ['[AMOUNT=NEG]', '[AMOUNT=POS]', '[AMOUNT_MISSING]']
    """

    kind: ClassVar[str] = "sign"

    def observe(self, sketch: Any, column: pl.Series) -> None:
        """Check that the column is numeric; there is nothing to remember."""
        self.values(column.head(0))

    def fit_statistics(self, sketch: Any) -> Self:
        """The vocabulary, which is always the same."""
        return self._fixed()

    def _fixed(self) -> Self:
        vocab = [missing_token(self.spec.name), *sign_tokens(self.spec.name)]
        self._learn(vocab, [0.0], [np.nan, -1.0, 1.0])
        return self

    @classmethod
    def from_state(cls, spec: FieldSpec, state: dict[str, Any]) -> Self:
        """The tokenizer of a spec; the state holds nothing else."""
        return cls(spec)._fixed()


class MagnitudeBucketTokenizer(BinTokenizer):
    """The size of a number, as one of ``n_bins`` bins of |x|.

    ::

        B00       B01        B02       …       last
        |x| = 0   (0, e₁)    [e₁, e₂)          [eₖ, ∞)

    ``B00`` holds zero alone. The others divide the positive magnitudes of the training data:

    - ``binning="quantile"``: equally many values per bin. Values that fill several quantiles
      (a price of 0.99) give one edge, so a fit may have fewer bins than ``n_bins``; every bin
      holds at least one training value.
    - ``"log"``: edges at equal ratios between the smallest and largest magnitude.
    - ``"fixed"``: the edges of the spec, whatever the data.

    NaN and null are missing. ±inf falls in the last bin and is left out of the fit. Magnitudes
    below or above all training values fall in the first or last positive bin. Without any
    positive training value there are two bins: zero, and everything else.

    A bin decodes to the median of its training values (without any: to the geometric mean of its
    ends).

    Args:
        spec: A field of type NUMERICAL_CONTINUOUS.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> spec = FieldSpec("amount", "numerical_continuous", n_bins=4)
        >>> bins = MagnitudeBucketTokenizer(spec).fit(pl.Series([0, -1, 2, 5, 9, -20, 100]))
        >>> [bins.vocab[i] for i in bins.encode(pl.Series([0.0, 4, -7, 1e9]))[:, 0]]
        ['[AMOUNT=B00]', '[AMOUNT=B01]', '[AMOUNT=B02]', '[AMOUNT=B03]']
        >>> bins.describe(3)["interval"], bins.describe(3)["representative"]
        ('[5, 20)', 5.0)
    """

    kind: ClassVar[str] = "magnitude"
    absolute: ClassVar[bool] = True

    def new_statistics(self, limits: Limits) -> QuantileSketch:
        """A sketch of the positive magnitudes."""
        return QuantileSketch(limits)

    def observe(self, sketch: QuantileSketch, column: pl.Series) -> None:
        """Add the magnitudes of a column."""
        sketch.add(self.values(column))

    def fit_statistics(self, sketch: QuantileSketch) -> Self:
        """Place the edges by the magnitudes of the training data."""
        positive = sketch.counted().at_least(SMALLEST)
        edges = np.concatenate([[SMALLEST], self._inner_edges(positive)])
        typical = bin_medians(positive, edges)[1:]
        return self._built(edges, np.concatenate([[np.nan, 0.0], _filled(typical, edges)]))

    def _inner_edges(self, positive: Weighted) -> Float64Array:
        """The edges above zero that divide positive magnitudes into n_bins − 1 bins."""
        if self.spec.edges is not None:
            return np.asarray(self.spec.edges, dtype=np.float64)
        bins = self.spec.n_bins - 1
        if not positive.total:
            return np.empty(0)
        low, high = positive.values[0], positive.values[-1]
        if self.spec.binning == "log":
            # Near the largest float the last power overflows, which is replaced by `high` anyway.
            with np.errstate(over="ignore"):
                edges = np.geomspace(low, high, bins + 1)[1:-1]
        else:
            edges = positive.at(np.arange(1, bins) * positive.total // bins)
        # An edge at the smallest value would leave the first positive bin empty.
        edges = np.unique(edges)
        return edges[edges > low]

    def _built(self, edges: Float64Array, representatives: Float64Array) -> Self:
        name = self.spec.name
        vocab = [missing_token(name), *(bin_token(name, i) for i in range(len(edges) + 1))]
        self._learn(vocab, edges, representatives)
        return self

    def describe(self, local_id: int) -> dict[str, Any]:
        """Token, kind (missing, zero, bin), interval of |x| and representative."""
        description = super().describe(local_id)
        if local_id == 1:
            description |= {"kind": "zero", "low": 0.0, "high": 0.0, "interval": "[0, 0]"}
        elif local_id == 2:
            shown = interval(0.0, description["high"])
            description |= shown | {"interval": "(" + shown["interval"][1:]}
        return description

    @classmethod
    def from_state(cls, spec: FieldSpec, state: dict[str, Any]) -> Self:
        """A fitted tokenizer from what `state` gave."""
        typical = restored_floats(state["representatives"])
        return cls(spec)._built(np.asarray(state["edges"], dtype=np.float64), typical)


def _filled(typical: Float64Array, edges: Float64Array) -> Float64Array:
    """A representative for bins that no training value fell in, from their ends."""
    lower, upper = edges, np.append(edges[1:], np.nan)
    middle = np.sqrt(lower) * np.sqrt(upper)  # the product of the ends could overflow
    middle[0] = upper[0] / 2  # the geometric mean with zero would be zero
    if len(edges) > 1:
        middle[-1] = lower[-1]
    return np.where(np.isnan(typical), middle, typical)


class DiscreteTokenizer(LookupTokenizer):
    """A whole number that is kept as it is: ``[NAME=3]``, ``[NAME=-1]``.

    The vocabulary holds the most frequent values (at most ``vocab_size``, each seen at least
    ``min_frequency`` times; ties go to the smaller value), in increasing order. Any other number,
    a fraction, an infinity or an integer beyond 64 bits is ``[NAME_UNK]``; null and NaN are
    missing. Floats and decimals without a fraction count as whole (a column of integers with
    nulls is often read as floats).

    Args:
        spec: A field of type NUMERICAL_DISCRETE.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> quantity = DiscreteTokenizer(FieldSpec("quantity", "numerical_discrete"))
        >>> quantity = quantity.fit(pl.Series([3, 1, 1, -1]))
        >>> quantity.vocab[2:]
        ['[QUANTITY=-1]', '[QUANTITY=1]', '[QUANTITY=3]']
        >>> quantity.encode(pl.Series([1.0, 2.0, None])).tolist()
        [[3], [1], [0]]
    """

    kind: ClassVar[str] = "discrete"
    kept: Int64Array
    fitted_values: Int64Array
    added: list[int]

    def new_statistics(self, limits: Limits) -> CountSketch:
        """A sketch of how often each whole number occurs."""
        return CountSketch("integer", limits, least=self.spec.min_frequency)

    def observe(self, sketch: CountSketch | RecountSketch, column: pl.Series) -> None:
        """Count the whole numbers of a column."""
        sketch.add(count_integers(column, field=self.spec.name))

    def fit_statistics(self, sketch: CountSketch) -> Self:
        """Keep the most frequent whole numbers."""
        values, counts = sketch.frequent().at_least(self.spec.min_frequency)
        best = np.argsort(-counts, kind="stable")[: self.spec.vocab_size]
        return self._built(np.sort(values.to_numpy()[best]))

    def extended(
        self, column: pl.Series, *, min_frequency: int | None = None, most: int | None = None
    ) -> Self:
        """A tokenizer with the frequent new numbers of a column behind all others.

        Example:
            >>> from domainformer.schema import FieldSpec
            >>> quantity = DiscreteTokenizer(FieldSpec("quantity", "numerical_discrete"))
            >>> quantity.fit(pl.Series([5, 9])).extended(pl.Series([7, 9])).vocab[2:]
            ['[QUANTITY=5]', '[QUANTITY=9]', '[QUANTITY=7]']
        """
        self._require_fitted()
        numbers, missing, odd = as_whole_numbers(column, field=self.spec.name)
        values, counts = np.unique(numbers[~(missing | odd)], return_counts=True)
        least = self.spec.min_frequency if min_frequency is None else min_frequency
        new = (counts >= least) & ~np.isin(values, self.kept)
        values, counts = values[new], counts[new]
        room = room_for(self.spec.vocab_size, len(self.kept), most)
        best = np.sort(values[np.lexsort((values, -counts))[:room]])
        if not len(best):
            return self
        return type(self)(self.spec)._built(self.fitted_values, [*self.added, *best.tolist()])

    def _built(self, fitted: Int64Array, added: Sequence[int] = ()) -> Self:
        name = self.spec.name
        self.fitted_values, self.added = fitted, list(added)
        values = [*fitted.tolist(), *added]
        self._vocab = [missing_token(name), unknown_token(name)]
        self._vocab += [discrete_token(name, value) for value in values]
        self._index = {value: UNKNOWN + 1 + i for i, value in enumerate(values)}
        # Columns are looked up in increasing order, wherever the ids of the numbers lie.
        ordered = np.asarray(values, dtype=np.int64)
        order = np.argsort(ordered, kind="stable")
        self.kept, self._local = ordered[order], order.astype(np.int32) + UNKNOWN + 1
        self._values = ordered
        return self

    def codes(self, column: pl.Series) -> Codes:
        """Codes into a dense table of numbers where they lie close, else the ids themselves."""
        self._require_fitted()
        numbers, missing, odd = as_whole_numbers(column, field=self.spec.name)
        low, high = (int(self.kept[0]), int(self.kept[-1])) if len(self.kept) else (0, 0)
        # The span is taken in Python integers, which cannot overflow.
        if high - low <= _DENSE_SPAN and abs(low) < 2**62:
            # Code 0: missing; 1 and the last: below and above the table; 2 + i: low + i.
            codes = (np.clip(numbers, low - 1, high + 1) - (low - 2)).astype(np.int32)
            table = np.full((high - low + 4, 1), UNKNOWN, dtype=np.int32)
            table[0] = MISSING
            table[self.kept - (low - 2), 0] = self._local
        else:
            at = np.searchsorted(self.kept, numbers).clip(max=len(self.kept) - 1)
            found = self.kept[at] == numbers
            codes = np.where(found, at + UNKNOWN + 1, UNKNOWN).astype(np.int32)
            table = np.concatenate([[MISSING, UNKNOWN], self._local]).astype(np.int32)[:, None]
        codes[odd] = UNKNOWN
        codes[missing] = MISSING
        return Codes(codes, table)

    def encode_one(self, value: Any) -> tuple[int, ...]:
        """Local id of one number."""
        self._require_fitted()
        if value is None or value != value:
            return (MISSING,)
        if isinstance(value, (str, bytes)):
            raise wrong_value(value, field=self.spec.name, wanted="a whole number")
        # 3, 3.0, True + 2 and Decimal(3) are equal and hash alike: one look-up serves them all.
        return (self._index.get(value, UNKNOWN),)

    def decode(self, ids: Any) -> pl.Series:
        """The number of each id; null for missing and unknown."""
        chosen = self._checked(ids)[:, 0]
        lookup = pl.Series(self.spec.name, [None, None, *self._values.tolist()], dtype=pl.Int64)
        return lookup.gather(pl.Series(chosen))

    def describe(self, local_id: int) -> dict[str, Any]:
        """Token, kind (missing, unknown, value) and the number."""
        token = self._token(local_id)
        if local_id <= UNKNOWN:
            return {"token": token, "kind": "unknown" if local_id else "missing"}
        value = int(self._values[local_id - UNKNOWN - 1])
        return {"token": token, "kind": "value", "value": value}

    def state(self) -> dict[str, Any]:
        """The numbers of the vocabulary, and those that extensions added."""
        self._require_fitted()
        added = {"added": list(self.added)} if self.added else {}
        return {"kind": self.kind, "values": self.fitted_values.tolist(), **added}

    @classmethod
    def from_state(cls, spec: FieldSpec, state: dict[str, Any]) -> Self:
        """A fitted tokenizer from what `state` gave."""
        added = [int(value) for value in state.get("added", ())]
        return cls(spec)._built(np.asarray(state["values"], dtype=np.int64), added)
