"""A sample of distinct texts with exact counts, chosen by their hashes."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
import polars as pl

from domainformer.tokenizers.statistics.base import Limits, Sketch, SketchState
from domainformer.tokenizers.statistics.hashing import stable_hash
from domainformer.tokenizers.statistics.tally import COUNT, VALUE, Tally

LONGEST_SAMPLED = 4_096
"""Characters of a text that a sample keeps."""

# Room for the texts of a sample: this many bytes for each on average, and for a few long ones.
_BYTES_PER_TEXT = 256
_LEAST_ROOM = 1 << 20


class TextSketch(Sketch):
    """The distinct texts with the smallest hashes, and how often each occurs (bottom-k).

    A hash knows nothing of how often, where or when a text occurs, so the sample is a random one
    of the distinct texts. A text that belongs to the final sample belongs to the sample of every
    part of the data that holds it, and is never dropped: its count is exact after one pass.

    At most ``limits.bpe_sample`` texts are kept, and no more than fit into 256 bytes each on
    average. Of a text beyond 4,096 characters, these alone are kept.

    Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches" (PODC), section 2.

    Args:
        limits: `Limits` of the fit.

    Example:
        >>> sketch = TextSketch(Limits())
        >>> sketch.add(pl.DataFrame({"value": ["b", "a"], "count": [2, 1]}))
        >>> sketch.counts()
        {'a': 1, 'b': 2}
    """

    kind: ClassVar[str] = "texts"

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        # The smallest hash that was left out; None while every text is kept.
        self._bar: int | None = None
        self._tally = Tally("text")

    @property
    def complete(self) -> bool:
        """Whether every text is in the sample."""
        self._settled()
        return self._bar is None

    def add(self, counted: pl.DataFrame) -> None:
        """Add distinct texts (column ``value``) with their counts (column ``count``)."""
        counted = counted.select(VALUE, pl.col(COUNT).cast(pl.Int64))
        if (counted[VALUE].str.len_bytes() > LONGEST_SAMPLED).any():
            counted = counted.with_columns(pl.col(VALUE).str.head(LONGEST_SAMPLED))
            counted = counted.group_by(VALUE).agg(pl.col(COUNT).sum())
        if self._bar is not None:
            below = stable_hash(counted[VALUE]) < np.uint64(self._bar)
            counted = counted.filter(pl.Series(below))
        if self._tally.add(counted):
            self._settled()

    def merge(self, other: Self) -> None:
        """Add all that ``other`` has seen."""
        self._tally.add(other._settled().unordered)
        self._lower_bar(other._bar)
        self._settled()

    def counts(self) -> dict[str, int]:
        """The texts of the sample with their counts, in the order of the texts."""
        tally = self._settled()
        return dict(zip(tally.values.to_list(), tally.counts.tolist(), strict=True))

    def _settled(self) -> Tally:
        """The sample, cut before the first hash whose texts do not fit any more."""
        values = self._tally.unordered[VALUE]
        sizes = values.str.len_bytes().to_numpy().astype(np.int64)
        room = max(_LEAST_ROOM, self.limits.bpe_sample * _BYTES_PER_TEXT)
        if len(values) > self.limits.bpe_sample or int(sizes.sum()) > room:
            hashes = stable_hash(values)
            order = np.argsort(hashes, kind="stable")
            fits = np.cumsum(sizes[order]) <= room
            fits[self.limits.bpe_sample :] = False
            self._lower_bar(int(hashes[order[int(np.argmin(fits))]]))
        return self._tally

    def _lower_bar(self, bar: int | None) -> None:
        """Leave out the texts whose hash is not below ``bar``."""
        if bar is None or (self._bar is not None and bar > self._bar):
            bar = self._bar
        self._bar = bar
        if bar is not None:
            self._tally.keep(stable_hash(self._tally.unordered[VALUE]) < np.uint64(bar))

    def state(self) -> SketchState:
        """Texts, counts and the smallest hash that was left out."""
        tally = self._settled()
        bar = None if self._bar is None else f"{self._bar:016x}"
        return SketchState({"bar": bar}, tally.arrays())

    @classmethod
    def from_state(cls, state: SketchState, limits: Limits) -> Self:
        """A sketch from what `state` gave."""
        sketch = cls(limits)
        bar = state.meta["bar"]
        sketch._bar = None if bar is None else int(bar, 16)
        sketch._tally = Tally.of_arrays("text", state.arrays)
        return sketch
