"""Numbers as people read them: shares, sizes, durations, times, intervals."""

from __future__ import annotations

import datetime as dt
from typing import Any

_UNITS = ((86_400 * 365.25, "y"), (86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_EPOCH = dt.datetime(1970, 1, 1)


def count(value: float | None) -> str:
    """A whole number with separators.

    Example:
        >>> count(1234567), count(None)
        ('1,234,567', '–')
    """
    return "–" if value is None else f"{value:,.0f}"


def compact(value: float | None) -> str:
    """A large number in three figures.

    Example:
        >>> compact(950), compact(1_234_567), compact(19.2e6)
        ('950', '1.23 M', '19.2 M')
    """
    if value is None:
        return "–"
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.3g} {unit}"
    return f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share as a percentage; what exists never reads as 0.

    Example:
        >>> share(0.1234), share(0.00001), share(0.0), share(1.0), share(None)
        ('12.3 %', '< 0.1 %', '0', '100 %', '–')
    """
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if value < 0.001:
        return "< 0.1 %"
    return "100 %" if value == 1 else f"{100 * value:.1f} %"


def duration(seconds: float | None) -> str:
    """Seconds in the largest fitting unit.

    Example:
        >>> duration(45.3), duration(5400), duration(172800), duration(None)
        ('45.3 s', '1.5 h', '2 d', '–')
    """
    if seconds is None:
        return "–"
    for size, unit in _UNITS:
        if abs(seconds) >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def moment(value: int, kind: str) -> str:
    """An event time of a store: µs since 1970 for dates and times, a raw number for integers.

    Example:
        >>> moment(86_400_000_000, "date"), moment(90_000_000, "datetime"), moment(7, "integer")
        ('1970-01-02', '1970-01-01 00:01', '7')
    """
    if kind == "integer":
        return f"{value:,}"
    try:
        at = _EPOCH + dt.timedelta(microseconds=value)
    except OverflowError:
        return f"{value:,} µs"
    return at.date().isoformat() if kind == "date" else at.isoformat(" ", "minutes")


def signed(interval: dict[str, Any], digits: int = 3) -> str:
    """A difference with its interval.

    Example:
        >>> signed({"value": 0.1, "low": -0.02, "high": 0.2})
        '+0.100 [−0.020, +0.200]'
    """
    value, low, high = (f"{interval[key]:+.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]".replace("-", "−")


def bracketed(interval: dict[str, Any], digits: int = 3) -> str:
    """A figure with its interval.

    Example:
        >>> bracketed({"value": 0.8123, "low": 0.79, "high": 0.83})
        '0.812 [0.790, 0.830]'
    """
    value, low, high = (f"{interval[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]".replace("-", "−")
