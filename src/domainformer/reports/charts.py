"""Charts as SVG text: drawn by Altair, rendered without a browser, embedded in the page.

Each function takes plain columns and gives one ``<svg>`` string. No JavaScript is needed to look
at them, so that the report opens anywhere, offline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from domainformer.errors import MissingExtraError

Columns = Mapping[str, Sequence[Any]]

INK, PALE, GRID = "#1f2933", "#9aa5b1", "#e4e7eb"
COLOURS = ["#2563eb", "#f59e0b", "#10b981", "#ef4444", "#8b5cf6", "#64748b"]
_FONT = "system-ui, 'Segoe UI', Helvetica, Arial, sans-serif"


def bars(
    data: Columns, *, x: str, y: str, title: str = "", width: int = 420, height: int | None = None
) -> str:
    """Horizontal bars: ``y`` names the bars in the order given, ``x`` is their length."""
    alt = _altair()
    chart = (
        alt.Chart(_table(data))
        .mark_bar(color=COLOURS[0], cornerRadiusEnd=2)
        .encode(
            x=alt.X(f"{x}:Q", title=x),
            y=alt.Y(f"{y}:N", sort=None, title=None, axis=alt.Axis(labelLimit=240)),
        )
    )
    return _svg(chart, title, width, height or max(60, 18 * len(data[y])))


def columns(data: Columns, *, x: str, y: str, title: str = "", width: int = 420) -> str:
    """Vertical columns over an ordered axis, such as bins or lengths."""
    alt = _altair()
    chart = (
        alt.Chart(_table(data))
        .mark_bar(color=COLOURS[0])
        .encode(
            x=alt.X(f"{x}:O", sort=None, title=x, axis=alt.Axis(labelAngle=-40, labelOverlap=True)),
            y=alt.Y(f"{y}:Q", title=y),
        )
    )
    return _svg(chart, title, width, 180)


def lines(data: Columns, *, x: str, y: str, series: str, title: str = "", width: int = 420) -> str:
    """One line per series over a quantitative axis."""
    alt = _altair()
    chart = (
        alt.Chart(_table(data))
        .mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=14))
        .encode(
            x=alt.X(f"{x}:Q", title=x),
            y=alt.Y(f"{y}:Q", title=y, scale=alt.Scale(zero=False)),
            color=alt.Color(f"{series}:N", title=None, sort=None, scale=alt.Scale(range=COLOURS)),
        )
    )
    return _svg(chart, title, width, 200)


def grouped_bars(
    data: Columns, *, x: str, y: str, series: str, title: str = "", width: int = 420
) -> str:
    """Bars side by side: one group per ``y``, one bar per series, such as model and baselines."""
    alt = _altair()
    groups = len(dict.fromkeys(data[y]))
    members = list(dict.fromkeys(data[series]))
    chart = (
        alt.Chart(_table(data))
        .mark_bar()
        .encode(
            x=alt.X(f"{x}:Q", title=x),
            y=alt.Y(f"{y}:N", sort=None, title=None, axis=alt.Axis(labelLimit=240)),
            yOffset=alt.YOffset(f"{series}:N", sort=members),
            color=alt.Color(
                f"{series}:N", title=None, sort=members, scale=alt.Scale(range=COLOURS)
            ),
        )
    )
    return _svg(chart, title, width, max(80, groups * (11 * len(members) + 10)))


def intervals(
    data: Columns, *, x: str, low: str, high: str, y: str, title: str = "", width: int = 420
) -> str:
    """Points with their interval: ``x`` between ``low`` and ``high`` for each ``y``."""
    alt = _altair()
    base = alt.Chart(_table(data)).encode(
        y=alt.Y(f"{y}:N", sort=None, title=None, axis=alt.Axis(labelLimit=240))
    )
    span = base.mark_rule(strokeWidth=2, color=PALE).encode(
        x=alt.X(f"{low}:Q", title=x, scale=alt.Scale(zero=False)), x2=f"{high}:Q"
    )
    point = base.mark_circle(size=70, opacity=1, color=COLOURS[0]).encode(x=f"{x}:Q")
    return _svg(span + point, title, width, max(60, 34 * len(data[y])))


def scatter(
    data: Columns, *, x: str, y: str, colour: str | None = None, title: str = "", width: int = 420
) -> str:
    """Points in a plane, coloured by a category or by a number where one is given."""
    alt = _altair()
    encodings: dict[str, Any] = {
        "x": alt.X(f"{x}:Q", axis=alt.Axis(labels=False, ticks=False), title=x),
        "y": alt.Y(f"{y}:Q", axis=alt.Axis(labels=False, ticks=False), title=y),
    }
    if colour is not None:
        numeric = all(isinstance(v, int | float) for v in data[colour])
        many = len(set(data[colour])) > len(COLOURS)
        scale = alt.Scale(scheme="viridis") if numeric and many else alt.Scale(range=COLOURS)
        kind = "Q" if numeric and many else "N"
        encodings["color"] = alt.Color(f"{colour}:{kind}", title=colour, scale=scale)
    chart = alt.Chart(_table(data)).mark_circle(size=16, opacity=0.6).encode(**encodings)
    return _svg(chart, title, width, 300)


def _altair() -> Any:
    try:
        import altair
    except ImportError:
        raise MissingExtraError("altair", extra="report", purpose="the report") from None
    return altair


def _table(data: Columns) -> Any:
    names = list(data)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*data.values(), strict=True)]
    return _altair().Data(values=rows)


def _svg(chart: Any, title: str, width: int, height: int) -> str:
    try:
        import vl_convert
    except ImportError:
        raise MissingExtraError("vl-convert-python", extra="report", purpose="the report") from None
    chart = (
        chart.properties(width=width, height=height, title=title)
        .configure(font=_FONT, background="transparent")
        .configure_title(anchor="start", fontSize=13, fontWeight=600, color=INK)
        .configure_axis(
            gridColor=GRID, domainColor=GRID, tickColor=GRID, labelColor=INK, titleColor=PALE
        )
        .configure_view(strokeWidth=0)
    )
    text: str = vl_convert.vegalite_to_svg(chart.to_json())
    # Fixed sizes would overflow narrow screens: the viewBox keeps the proportions.
    return re.sub(
        r'(<svg[^>]*?) width="([\d.]+)" height="[\d.]+"', r'\1 style="max-width:\2px"', text
    )
