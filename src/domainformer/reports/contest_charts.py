"""The pictures of a contest, each with the sentence that says how to read it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from domainformer.reports import charts
from domainformer.reports.contest_verdict import Found, metric_name, outcome
from domainformer.reports.markup import Markup

HOW_FIGURES = "Points are means over folds and seeds, lines reach one standard error to each side."
HOW_DIFFERENCES = (
    "Contestant minus best baseline on the same examples, with 95 % intervals: a line that does "
    "not touch zero is a difference that chance hardly explains."
)
HOW_CALIBRATION = (
    "Test examples in tenths by predicted probability. On the dashed line, what was said came true "
    "as often as it was said; below it, the model promises too much."
)
HOW_LIFT = (
    "Test examples in tenths, the highest ranked first: how many times more positives than on "
    "average each holds. The steeper, the better a small campaign works."
)
HOW_FOUND = "Share of all positives that is found when so many tenths are looked at."
_DIAGONAL = "exact"
_COLOURS = [*charts.COLOURS, "#0891b2", "#db2777", "#65a30d", "#7c3aed", "#b45309"]
Curve = Sequence[Mapping[str, float]]


def figures(found: Found) -> Markup:
    """Primary figure of every contestant with its standard error."""
    rows = [(name, found.figures[name][found.primary]) for name in found.ranked]
    return charts.intervals(
        {
            "name": [name for name, _ in rows],
            "mean": [one["mean"] for _, one in rows],
            "low": [one["mean"] - (one["error"] or 0.0) for _, one in rows],
            "high": [one["mean"] + (one["error"] or 0.0) for _, one in rows],
        },
        x="mean",
        low="low",
        high="high",
        y="name",
        title=metric_name(found.primary),
    )


def differences(found: Found) -> Markup:
    """Primary difference of every contestant from the best baseline."""
    rows = [
        (name, found.differences[name][found.primary])
        for name in found.ranked
        if name in found.differences and found.primary in found.differences[name]
    ]
    return charts.intervals(
        {
            "name": [name for name, _ in rows],
            **{key: [one[key] for _, one in rows] for key in ("value", "low", "high")},
            "verdict": [outcome(found, name, found.primary) for name, _ in rows],
        },
        x="value",
        low="low",
        high="high",
        y="name",
        verdict="verdict",
        title=f"{metric_name(found.primary)} minus that of {found.best_baseline}",
    )


def calibration(curves: Mapping[str, Curve]) -> Markup:
    """Observed share against predicted probability, one line per contestant."""
    highest = max(
        max(point["predicted"], point["observed"]) for curve in curves.values() for point in curve
    )
    return _curves(curves, "predicted", "observed", "Calibration", diagonal=highest)


def lift(curves: Mapping[str, Curve]) -> Markup:
    """Lift of each tenth."""
    return _curves(curves, "tenth", "lift", "Lift by decile")


def found(curves: Mapping[str, Curve]) -> Markup:
    """Cumulative share of positives."""
    return _curves(curves, "tenth", "found", "Positives found")


def _curves(
    curves: Mapping[str, Curve], x: str, y: str, title: str, *, diagonal: float | None = None
) -> Markup:
    alt = charts._altair()
    names = list(curves)
    data: dict[str, list[Any]] = {
        "model": [name for name, curve in curves.items() for _ in curve],
        x: [point[x] for curve in curves.values() for point in curve],
        y: [point[y] for curve in curves.values() for point in curve],
    }
    scale = alt.Scale(zero=True)
    drawn = (
        alt.Chart(charts._table(data))
        .mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=16))
        .encode(
            x=alt.X(f"{x}:Q", title=x, scale=scale, axis=alt.Axis(tickCount=5)),
            y=alt.Y(f"{y}:Q", title=y, scale=scale, axis=alt.Axis(tickCount=5)),
            color=charts._legend("model", names, _COLOURS),
        )
    )
    if diagonal is not None:
        ends = charts._table({x: [0.0, diagonal], y: [0.0, diagonal]})
        line = alt.Chart(ends).mark_line(color=charts.PALE, strokeDash=[4, 3])
        drawn = alt.layer(line.encode(x=f"{x}:Q", y=f"{y}:Q"), drawn)
    return charts._svg(drawn, title, 200)
