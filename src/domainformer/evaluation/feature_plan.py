"""Which columns of a task become which aggregates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from domainformer.errors import ConfigError


@dataclass(frozen=True)
class FeaturePlan:
    """Which columns of a task's table become which aggregates.

    Args:
        numeric: Columns with numbers.
        labels: Columns with categories.
        ratios: Pairs (numerator, denominator) of numeric columns; the denominator may be a static
            column. Each becomes a numeric column ``a/b`` of its own.
        products: Pairs of numeric columns; each becomes a numeric column ``a*b`` (a line's price).
        paid: Pairs (numerator, denominator) of numeric columns, the denominator of the event
            before: what was paid on the last bill. Each becomes a numeric column ``a/previous b``.
        visits: Numeric columns (products and ratios too) that are also summed per visit, the events
            of one time: a basket's value becomes the numeric column ``visit a``.
        code: Column that tells what a row measures; with ``value`` it gets statistics per code.
        value: Column with the measured number.
        same_codes: Code → the code that it is counted as, too (two ways to measure one thing).
        code_ratios: Pairs of codes whose last, mean, lowest and highest values are set in ratio.
        windows: Lengths before the cut: days where the table has dates, else its own units.
        horizon: Length of the window after the cut that the label looks at: adds what silences of
            this length have meant for the entity so far
            (:mod:`~domainformer.evaluation.rhythm_aggregates`).
        totals: False leaves out what describes the whole record (number of events, tenure, sums,
            variety, first and usual values): records are longer at a later cut than at any that
            was learned from, and such columns then mean something else.
        lags: So many last values of each numeric column become columns.
        top: Frequent values of a category, and codes, that get columns of their own.
        without_static: Static columns to leave out (names); all others are taken.

    Raises:
        ConfigError: Code without value, a window or a horizon that is not positive.
    """

    numeric: Sequence[str] = ()
    labels: Sequence[str] = ()
    ratios: Sequence[tuple[str, str]] = ()
    products: Sequence[tuple[str, str]] = ()
    paid: Sequence[tuple[str, str]] = ()
    visits: Sequence[str] = ()
    code: str | None = None
    value: str | None = None
    same_codes: Mapping[str, str] = field(default_factory=dict)
    code_ratios: Sequence[tuple[str, str]] = ()
    windows: Sequence[float] = ()
    horizon: float | None = None
    totals: bool = True
    lags: int = 0
    top: int = 20
    without_static: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        if (self.code is None) != (self.value is None):
            raise ConfigError("a code column needs a value column, and the other way round")
        if any(window <= 0 for window in self.windows):
            raise ConfigError(f"windows must be above 0, and are {list(self.windows)}")
        if self.horizon is not None and self.horizon <= 0:
            raise ConfigError(f"the horizon must be above 0, and is {self.horizon}")
