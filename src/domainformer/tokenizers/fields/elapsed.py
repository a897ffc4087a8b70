"""How long it has been since the entity's previous event."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import polars as pl

from domainformer.errors import TokenizerError
from domainformer.schema.fields import (
    elapsed_bin_token,
    elapsed_first_token,
    elapsed_missing_token,
)
from domainformer.tokenizers.base import Float64Array, SlotRange
from domainformer.tokenizers.fields.columns import as_float64
from domainformer.tokenizers.fields.shapes import BinTokenizer, bin_medians, restored_floats
from domainformer.tokenizers.statistics import Limits, QuantileSketch, Weighted, bucket_floor

if TYPE_CHECKING:
    from domainformer.schema.fields import FieldSpec

TimeKind = Literal["date", "datetime", "integer"]

# The shortest gap above zero: a day, a microsecond (what event tables keep), a unit.
_RESOLUTION: dict[str, float] = {"date": 86_400.0, "datetime": 1e-6, "integer": 1.0}
# Bins are spread over this central part of the gaps: a single freak gap takes none of them.
_CENTRE = (0.01, 0.99)
_LOWEST = -float(np.finfo(np.float64).max)
FIRST = 1


class ElapsedTimeTokenizer(BinTokenizer):
    """The time since the previous event, in bins of equal ratio.

    ::

        FIRST               B00     B01      B02      …      last
        no previous event   tie     (0, e₁)  [e₁, e₂)        [eₖ, ∞)

    Edges lie at equal ratios between the 1 % and 99 % quantiles of the positive gaps of the
    training data. They keep the resolution of the time: for dates they are whole days and for
    integer times whole units, so there are fewer than ``elapsed_bins`` bins where the gaps are
    few; no bin divides a day or a unit.

    The column is `EventTable.elapsed`: seconds, or units for integer times. **Null is FIRST** (no
    previous event) and **NaN is missing** (this time or the previous one is not known). A gap
    below zero, which a sorted table cannot have, counts as a tie. Durations are read as seconds.

    Args:
        spec: A field of type TEMPORAL with ``elapsed_bins`` ≥ 2.
        time_kind: ``EventTable.time_kind``: ``"date"``, ``"datetime"`` or ``"integer"``.

    Example:
        >>> from domainformer.schema import FieldSpec
        >>> spec = FieldSpec("time", "temporal", elapsed_bins=4)
        >>> elapsed = ElapsedTimeTokenizer(spec, time_kind="date")
        >>> elapsed = elapsed.fit(pl.Series([None, 0, 86400, 3 * 86400, 30 * 86400]))
        >>> [elapsed.vocab[i] for i in elapsed.encode(pl.Series([None, 0, 86400, 10**9]))[:, 0]]
        ['[TIME_ELAPSED=FIRST]', '[TIME_ELAPSED=B00]', '[TIME_ELAPSED=B01]', '[TIME_ELAPSED=B02]']
    """

    kind: ClassVar[str] = "elapsed"

    def __init__(self, spec: FieldSpec, *, time_kind: TimeKind = "datetime") -> None:
        super().__init__(spec)
        if spec.elapsed_bins < 2 or time_kind not in _RESOLUTION:
            raise TokenizerError(
                f"field {spec.name!r} cannot have elapsed times",
                why=f"elapsed_bins is {spec.elapsed_bins} and its times are {time_kind!r}",
                next_step="give elapsed_bins ≥ 2 and times that are dates, datetimes or integers",
            )
        self.time_kind = time_kind

    @property
    def slots(self) -> tuple[SlotRange, ...]:
        """One slot, called ``"elapsed"``."""
        return (SlotRange("elapsed", 0, len(self.vocab)),)

    def values(self, column: pl.Series) -> Float64Array:
        """Gaps as float64: −∞ for a first event, NaN where missing."""
        if isinstance(column.dtype, pl.Duration):
            column = column.dt.total_microseconds() / 1e6
        gaps = as_float64(column, field=self.spec.name)
        if column.null_count():
            gaps = np.where(column.is_null().to_numpy(), -np.inf, gaps)
        return gaps

    def new_statistics(self, limits: Limits) -> QuantileSketch:
        """A sketch of the positive gaps."""
        return QuantileSketch(limits)

    def observe(self, sketch: QuantileSketch, column: pl.Series) -> None:
        """Add the gaps of a column of whole histories."""
        sketch.add(self.values(column))

    def fit_statistics(self, sketch: QuantileSketch) -> Self:
        """Place the edges by the positive gaps of the training data."""
        resolution = _RESOLUTION[self.time_kind]
        lowest = float(bucket_floor(np.array([resolution]))[0]) if sketch.collapsed else resolution
        positive = sketch.counted().at_least(lowest)
        # The bucket of the shortest gap begins below it.
        positive = positive._replace(values=np.maximum(positive.values, resolution))
        inner = self._inner_edges(positive, resolution)
        edges = np.concatenate([[_LOWEST, resolution], inner])
        typical = bin_medians(positive, edges)[2:]
        # A bin that no training gap fell in is as long as its lower end.
        typical = np.where(np.isnan(typical), edges[1:], typical)
        return self._built(edges, np.concatenate([[np.nan, np.nan, 0.0], typical]))

    def _inner_edges(self, positive: Weighted, resolution: float) -> Float64Array:
        count = self.spec.elapsed_bins - 2
        if not positive.total or not count:
            return np.empty(0)
        ranks = [int(share * (positive.total - 1)) for share in _CENTRE]
        low, high = positive.at(np.array(ranks))
        # Between the ends lie count − 1 equal ratios; a single edge stands in their middle.
        ends = (low, high) if count > 1 else (np.sqrt(low * high),) * 2
        edges = np.geomspace(*ends, count)
        if self.time_kind != "datetime":
            edges = np.ceil(edges / resolution - 1e-9) * resolution
        # An edge at the shortest gap would leave the first bin empty.
        edges = np.unique(edges)
        return edges[edges > positive.values[0]]

    def _built(self, edges: Float64Array, representatives: Float64Array) -> Self:
        name = self.spec.name
        bins = [elapsed_bin_token(name, index) for index in range(len(edges))]
        vocab = [elapsed_missing_token(name), elapsed_first_token(name), *bins]
        self._learn(vocab, edges, representatives)
        return self

    def encode_one(self, value: Any) -> tuple[int, ...]:
        """Local id of one gap: None is FIRST, NaN is missing; a timedelta is read as seconds."""
        self._require_fitted()
        if value is None:
            return (FIRST,)
        if isinstance(value, dt.timedelta):
            value = value.total_seconds()
        return super().encode_one(value)

    def decode(self, ids: Any) -> pl.Series:
        """A typical gap per bin, null for FIRST and NaN for missing, as `encode` reads them."""
        chosen = self._checked(ids)[:, 0]
        gaps = pl.Series(self.spec.name, self.representatives[chosen], dtype=pl.Float64)
        return gaps.set(pl.Series(chosen == FIRST), None)

    def describe(self, local_id: int) -> dict[str, Any]:
        """Token, kind (missing, first, zero, bin), interval and representative."""
        description = super().describe(local_id)
        if local_id == FIRST:
            return {"token": description["token"], "kind": "first"}
        if local_id == FIRST + 1:
            description |= {"kind": "zero", "low": 0.0, "high": 0.0, "interval": "[0, 0]"}
        return description

    def state(self) -> dict[str, Any]:
        """Edges, representatives and the kind of time."""
        return super().state() | {"time_kind": self.time_kind}

    @classmethod
    def from_state(cls, spec: FieldSpec, state: dict[str, Any]) -> Self:
        """A fitted tokenizer from what `state` gave."""
        tokenizer = cls(spec, time_kind=state["time_kind"])
        edges = np.asarray(state["edges"], dtype=np.float64)
        return tokenizer._built(edges, restored_floats(state["representatives"]))
