"""The smallest and the largest of some whole numbers."""

from __future__ import annotations

from typing import ClassVar, Self

from domainformer.tokenizers.statistics.base import Limits, Sketch, SketchState


class ExtremesSketch(Sketch):
    """The smallest and largest whole number seen; None before any.

    Example:
        >>> years = ExtremesSketch()
        >>> years.add(2021, 2023)
        >>> years.add(2019, 2019)
        >>> years.low, years.high
        (2019, 2023)
    """

    kind: ClassVar[str] = "extremes"

    def __init__(self, low: int | None = None, high: int | None = None) -> None:
        self.low, self.high = low, high

    def add(self, low: int | None, high: int | None) -> None:
        """Include the ends of a range; None stands for no values."""
        self.low = min((end for end in (self.low, low) if end is not None), default=None)
        self.high = max((end for end in (self.high, high) if end is not None), default=None)

    def merge(self, other: Self) -> None:
        """Include the range of ``other``."""
        self.add(other.low, other.high)

    def state(self) -> SketchState:
        """Both ends."""
        return SketchState({"low": self.low, "high": self.high}, {})

    @classmethod
    def from_state(cls, state: SketchState, limits: Limits) -> Self:
        """A sketch from what `state` gave."""
        low, high = state.meta["low"], state.meta["high"]
        return cls(None if low is None else int(low), None if high is None else int(high))
