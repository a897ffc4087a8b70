"""The rhythm of visits: what a silence as long as this one has meant for this entity so far.

::

    v─v──v─────────v─v──v · · · · · · · · │ cut ├──── horizon ────┤
            └─ gap ─┘   └── recency ──────┘      does it come back?

A gap is a silence that ended. Of the gaps that were longer than the present silence, some ended
within the horizon after that moment (``returned``), others did not (``stayed``): the entity's own
answer to what is asked. Beside it stand how much of its past would have been called dormant, how
active it was up to its last visit (not up to the cut: the silence itself would hide it), in how
many periods it was active at all, and what it did at the same season in years before.

All lengths follow the horizon, and the numbers are shares, rates and counts within fixed spans, so
that they mean the same at a later cut, when every record is longer. The expressions read one row
per visit (``row``, ``age``) in order of time.
"""

from __future__ import annotations

import polars as pl

from domainformer.evaluation.example_aggregates import AGE

YEAR = 365.25
_PERIODS = (3, 6, 12, 24)
_LAST_GAPS = (5, 10, 20)


def rhythm_aggregates(horizon: float, *, year: float | None = None) -> list[pl.Expr]:
    """Columns ``rhythm.<name>`` of one example's visits.

    Args:
        horizon: Length of the window that is asked for, in the unit of the ages.
        year: Length of a year in that unit; None leaves the seasons out.

    Example:
        >>> visits = pl.DataFrame({"row": [0] * 4, "age": [300.0, 180.0, 60.0, 40.0]})
        >>> found = visits.group_by("row").agg(rhythm_aggregates(90.0))
        >>> found["rhythm.returned"].item(), found["rhythm.stayed"].item()
        (2, 0)
    """
    expressions = _silences(horizon) | _gaps() | _activity(horizon) | _periods(horizon)
    if year is not None:
        expressions |= _seasons(horizon, year)
    return [one.alias(f"rhythm.{name}") for name, one in expressions.items()]


def _silences(horizon: float) -> dict[str, pl.Expr]:
    age = pl.col(AGE)
    gap, recency, known = -age.diff(), age.min(), age.max() + 1.0
    longer, ended = gap > recency, gap <= recency + horizon
    # What of a gap goes beyond the horizon: cuts there would have seen an empty window.
    empty = (gap - horizon).clip(lower_bound=0.0)
    return {
        "returned": (longer & ended).sum(),
        "stayed": (longer & ~ended).sum(),
        # Laplace's rule: one success and one failure are imagined.
        "return_share": ((longer & ended).sum() + 1.0) / (longer.sum() + 2.0),
        "long_gaps": (gap > horizon).sum(),
        "long_gaps.share": gap.filter(gap > horizon).sum() / known,
        "long_gaps.since": age.filter(gap > horizon).min(),
        "empty.share": empty.sum() / known,
        "empty.recent": empty.filter(age <= 4 * horizon).sum(),
        "longest_gap.2_horizons": gap.filter(age <= 2 * horizon).max(),
        "longest_gap.4_horizons": gap.filter(age <= 4 * horizon).max(),
    }


def _gaps() -> dict[str, pl.Expr]:
    age = pl.col(AGE)
    gap, recency = -age.diff(), age.min()
    logs = (gap + 1.0).log()
    found = {
        "gap.q75": gap.quantile(0.75),
        "gap.q95": gap.quantile(0.95),
        "gap.log_mean": logs.mean(),
        "gap.log_std": logs.std(),
        "recency.log_deviations": ((recency + 1.0).log() - logs.mean()) / (logs.std() + 0.3),
    }
    for last in _LAST_GAPS:
        found[f"gap.mean_of_last_{last}"] = gap.tail(last).mean()
        found[f"recency.in_last_{last}_gaps"] = recency / (gap.tail(last).mean() + 1.0)
        found[f"recency.in_longest_of_{last}"] = recency / (gap.tail(last).max() + 1.0)
    return found


def _activity(horizon: float) -> dict[str, pl.Expr]:
    """Faded counts at the cut and at the last visit, and the visits that this silence lacks."""
    age = pl.col(AGE)
    recency = age.min()
    found: dict[str, pl.Expr] = {}
    for part, name in ((1 / 12, "1/12"), (1 / 3, "1/3"), (1, "1"), (4, "4")):
        fading = part * horizon
        found[f"activity.{name}"] = (-age / fading).exp().sum()
        found[f"activity_before.{name}"] = (-(age - recency) / fading).exp().sum()
    for part, name in ((1 / 3, "1/3"), (1, "1"), (2, "2")):
        span = part * horizon
        visits = (age - recency <= span).sum()
        found[f"visits_before.{name}"] = visits
        found[f"missed.{name}"] = recency * visits / span
    return found


def _periods(horizon: float) -> dict[str, pl.Expr]:
    age = pl.col(AGE)
    period, whole = (3 * age / horizon).floor(), (age / horizon).floor()
    found = {f"periods.last_{n}": period.filter(period < n).n_unique() for n in _PERIODS}
    found["periods.share"] = period.n_unique() / (period.max() + 1.0)
    recent = period.filter(period < 12).n_unique()
    found["periods.share_of_last_12"] = recent / pl.min_horizontal(period.max() + 1.0, 12.0)
    found["horizons.last_8"] = whole.filter(whole < 8).n_unique()
    found["horizons.share"] = whole.n_unique() / (whole.max() + 1.0)
    return found


def _seasons(horizon: float, year: float) -> dict[str, pl.Expr]:
    """Visits in the horizon after the cuts one and two years ago, and set against those before."""
    age = pl.col(AGE)
    found: dict[str, pl.Expr] = {}
    for years in (1, 2):
        then = years * year
        after = ((age <= then) & (age > then - horizon)).sum()
        before = ((age > then) & (age <= then + horizon)).sum()
        known = age.max() > then
        found[f"season.{years}"] = pl.when(known).then(after)
        found[f"season.{years}.ratio"] = pl.when(known).then((after + 1.0) / (before + 1.0))
    return found
