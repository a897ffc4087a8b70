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
        lags: So many last values of each numeric column become columns.
        top: Frequent values of a category, and codes, that get columns of their own.
        without_static: Static columns to leave out (names); all others are taken.

    Raises:
        ConfigError: Code without value, a window that is not positive.
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
    lags: int = 0
    top: int = 20
    without_static: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        if (self.code is None) != (self.value is None):
            raise ConfigError("a code column needs a value column, and the other way round")
        if any(window <= 0 for window in self.windows):
            raise ConfigError(f"windows must be above 0, and are {list(self.windows)}")
