"""Charts as SVG text: drawn by Altair, rendered without a browser, embedded in the page.

Each function takes plain columns and gives one ``<svg>`` string. No JavaScript is needed to look
at them, so that the report opens anywhere, offline. Texts become SVG text, so they can be searched
and escape themselves.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from domainformer.errors import MissingExtraError
from domainformer.reports.markup import Markup, trusted

Columns = Mapping[str, Sequence[Any]]

INK, QUIET, PALE, GRID = "#1f2933", "#616e7c", "#9aa5b1", "#e4e7eb"
COLOURS = ["#2563eb", "#f59e0b", "#10b981", "#8b5cf6", "#ef4444", "#64748b"]
VERDICTS = {"ahead": "#15803d", "even": "#64748b", "behind": "#b91c1c"}
# The renderer measures labels in Liberation Sans, whose widths are those of Arial and Helvetica.
_FONT = "Arial, 'Liberation Sans', Helvetica, sans-serif"
_WIDTH = 300  # of a whole chart: what a card of the page has room for
_WIDE = 920  # of a chart that has a row of the page to itself
_LABELS = 130  # widest label beside an axis, in pixels
_SOME_POINTS = 40


def shares(
    data: Columns, *, label: str, train: str, test: str | None = None, title: str = ""
) -> Markup:
    """Bars for the training events with a mark where the test events stand, one row per label."""
    alt = _altair()
    y = alt.Y(f"{label}:N", sort=None, title=None, axis=alt.Axis(labelLimit=_LABELS))
    bar = alt.Chart().mark_bar(color=COLOURS[0], height={"band": 0.72})
    layers = [bar.encode(x=alt.X(f"{train}:Q", title=None, axis=_percent_axis()), y=y)]
    if test is not None:
        tick = alt.Chart().mark_tick(color=COLOURS[1], thickness=2.5, height={"band": 0.9})
        layers.append(tick.encode(x=f"{test}:Q", y=y))
    return _svg(alt.layer(*layers, data=_table(data)), title, 15 * len(data[label]) + 4)


def share_columns(
    data: Columns, *, label: str, train: str, test: str | None = None, title: str = ""
) -> Markup:
    """The same as :func:`shares` standing upright, for short labels in a natural order."""
    alt = _altair()
    axis = alt.Axis(labelAngle=0, labelOverlap=True, labelLimit=60)
    x = alt.X(f"{label}:N", sort=None, title=None, axis=axis)
    bar = alt.Chart().mark_bar(color=COLOURS[0], width={"band": 0.78})
    layers = [bar.encode(y=alt.Y(f"{train}:Q", title=None, axis=_percent_axis()), x=x)]
    if test is not None:
        tick = alt.Chart().mark_tick(
            color=COLOURS[1], thickness=2.5, width={"band": 0.9}, orient="horizontal"
        )
        layers.append(tick.encode(y=f"{test}:Q", x=x))
    return _svg(alt.layer(*layers, data=_table(data)), title, 150)


def columns(data: Columns, *, x: str, y: str, title: str = "") -> Markup:
    """Vertical columns over an ordered axis, such as lengths."""
    alt = _altair()
    axis = alt.Axis(labelAngle=-40, labelOverlap=True)
    chart = (
        alt.Chart(_table(data))
        .mark_bar(color=COLOURS[0])
        .encode(
            x=alt.X(f"{x}:N", sort=None, title=x, axis=axis),
            y=alt.Y(f"{y}:Q", title=None, axis=alt.Axis(tickCount=4, format="~s")),
        )
    )
    return _svg(chart, title, 150)


def lines(
    data: Columns,
    *,
    x: str,
    y: str,
    series: str | None = None,
    title: str = "",
    wide: bool = False,
) -> Markup:
    """A line, or one line per series, over a quantitative axis."""
    alt = _altair()
    names = list(dict.fromkeys(data[series])) if series else []
    point = alt.OverlayMarkDef(size=16) if len(data[x]) <= _SOME_POINTS * max(1, len(names)) else {}
    encodings = {
        "x": alt.X(f"{x}:Q", title=x, axis=alt.Axis(tickCount=5, format="~s")),
        "y": alt.Y(f"{y}:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)),
    }
    if series:
        encodings["color"] = _legend(series, names, COLOURS)
    chart = alt.Chart(_table(data)).mark_line(
        strokeWidth=1.8, point=point or False, color=COLOURS[0]
    )
    size = {"height": 260, "width": _WIDE} if wide else {"height": 170}
    return _svg(chart.encode(**encodings), title, **size)


def bands(
    data: Columns, *, x: str, y: str, low: str, high: str, series: str, title: str = ""
) -> Markup:
    """A line per series with the band between ``low`` and ``high`` around it, over a wide axis."""
    alt = _altair()
    names = list(dict.fromkeys(data[series]))
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(names))]
    across = alt.X(f"{x}:Q", title=x, axis=alt.Axis(tickCount=8, format="~s"))
    scale = alt.Scale(zero=False)
    colour = _legend(series, names, colours)
    area = alt.Chart().mark_area(opacity=0.18, aria=False)
    point = alt.OverlayMarkDef(size=16) if len(data[x]) <= _SOME_POINTS * max(1, len(names)) else {}
    line = alt.Chart().mark_line(strokeWidth=1.8, point=point or False)
    axis = alt.Axis(tickCount=6)
    layers = [
        area.encode(
            x=across, y=alt.Y(f"{low}:Q", title=None, scale=scale), y2=f"{high}:Q", color=colour
        ),
        line.encode(x=across, y=alt.Y(f"{y}:Q", title=None, scale=scale, axis=axis), color=colour),
    ]
    return _svg(alt.layer(*layers, data=_table(data)), title, 260, width=_WIDE)


def grouped_bars(data: Columns, *, x: str, y: str, series: str, title: str = "") -> Markup:
    """Bars side by side: one group per ``y``, one bar per series, such as model and baselines."""
    alt = _altair()
    groups = len(dict.fromkeys(data[y]))
    members = list(dict.fromkeys(data[series]))
    chart = (
        alt.Chart(_table(data))
        .mark_bar()
        .encode(
            x=alt.X(f"{x}:Q", title=None, axis=_percent_axis()),
            y=alt.Y(
                f"{y}:N",
                sort=None,
                title=None,
                axis=alt.Axis(labelLimit=_LABELS),
                scale=alt.Scale(paddingInner=0.28),
            ),
            yOffset=alt.YOffset(f"{series}:N", sort=members),
            color=_legend(series, members, [COLOURS[0], "#cbd2d9", "#9aa5b1", "#616e7c"]),
        )
    )
    return _svg(chart, title, groups * (8 * len(members) + 8))


def intervals(
    data: Columns,
    *,
    x: str,
    low: str,
    high: str,
    y: str,
    verdict: str | None = None,
    title: str = "",
    wide: bool = False,
) -> Markup:
    """Points with their interval: ``x`` between ``low`` and ``high`` for each ``y``.

    With a verdict per row (``ahead``, ``even``, ``behind``) the points carry its colour, and a line
    marks zero: then ``x`` is a difference. A wide chart has a row of the page to itself.
    """
    alt = _altair()
    labels = alt.Axis(labelLimit=_LABELS * (1 + wide))
    rows = alt.Y(f"{y}:N", sort=None, title=None, axis=labels)
    scale = alt.Scale(zero=verdict is not None, nice=True)
    axis = alt.Axis(tickCount=5)
    span = alt.Chart().mark_rule(strokeWidth=2.5, opacity=0.45)
    point = alt.Chart().mark_circle(size=70, opacity=1)
    layers = [
        span.encode(
            x=alt.X(f"{low}:Q", title=None, scale=scale, axis=axis), x2=f"{high}:Q", y=rows
        ),
        point.encode(x=f"{x}:Q", y=rows),
    ]
    if verdict is None:
        layers = [layer.encode(color=alt.value(COLOURS[0])) for layer in layers]
    else:
        colour = _legend(verdict, list(VERDICTS), list(VERDICTS.values()))
        zero = alt.Chart().mark_rule(color=INK, strokeDash=[3, 3]).encode(x=alt.datum(0))
        layers = [zero, *(layer.encode(color=colour) for layer in layers)]
    chart = alt.layer(*layers, data=_table(data))
    width = _WIDE if wide else _WIDTH
    return _svg(chart, title, max(40, 22 * len(data[y])), width=width)


def importances(data: Columns, *, x: str, low: str, high: str, y: str, title: str = "") -> Markup:
    """Bars from zero, each with its interval: how much each ``y`` matters."""
    alt = _altair()
    rows = alt.Y(f"{y}:N", sort=None, title=None, axis=alt.Axis(labelLimit=_LABELS))
    bar = alt.Chart().mark_bar(color=COLOURS[0], opacity=0.75, height={"band": 0.72})
    span = alt.Chart().mark_rule(color=INK, strokeWidth=1.5)
    layers = [
        bar.encode(x=alt.X(f"{x}:Q", title=None, axis=alt.Axis(tickCount=5)), y=rows),
        span.encode(x=f"{low}:Q", x2=f"{high}:Q", y=rows),
    ]
    return _svg(alt.layer(*layers, data=_table(data)), title, max(40, 20 * len(data[y])))


def scatter(
    data: Columns, *, x: str, y: str, colour: str | None = None, legend: str = ""
) -> Markup:
    """Points in a plane, coloured by names or by numbers where a colour is given."""
    alt = _altair()
    bare = alt.Axis(labels=False, ticks=False, grid=False)
    encodings: dict[str, Any] = {
        "x": alt.X(f"{x}:Q", axis=bare, title="first component"),
        "y": alt.Y(f"{y}:Q", axis=bare, title="second component"),
    }
    if colour is not None:
        if all(isinstance(value, int | float) for value in data[colour]):
            scale = alt.Scale(scheme="viridis")
            beside = alt.Legend(gradientLength=120)
            encodings["color"] = alt.Color(f"{colour}:Q", title=legend, scale=scale, legend=beside)
        else:
            names = sorted(dict.fromkeys(map(str, data[colour])))
            encodings["color"] = _legend(colour, names, COLOURS, title=legend)
    chart = (
        alt.Chart(_table(data)).mark_circle(size=18, opacity=0.6, aria=False).encode(**encodings)
    )
    return _svg(chart, "", 360, width=560)


def _percent_axis() -> Any:
    return _altair().Axis(format="~%", tickCount=4)


def _legend(field: str, names: list[str], colours: list[str], title: str | None = None) -> Any:
    alt = _altair()
    scale = alt.Scale(domain=names, range=colours[: len(names)])
    beside = 3 if len(names) <= 3 else 2
    legend = alt.Legend(orient="top", direction="horizontal", columns=beside, symbolOpacity=1)
    return alt.Color(f"{field}:N", title=title, sort=names, scale=scale, legend=legend)


def _altair() -> Any:
    try:
        import altair
    except ImportError:
        raise MissingExtraError("altair", extra="report", purpose="the report") from None
    return altair


def _table(data: Columns) -> Any:
    names = list(data)
    rows = [
        {name: _plain(value) for name, value in zip(names, row, strict=True)}
        for row in zip(*data.values(), strict=True)
    ]
    return _altair().Data(values=rows)


def _plain(value: Any) -> Any:
    # JSON knows neither NaN nor infinity; the chart leaves nulls out.
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _svg(chart: Any, title: str, height: int, *, width: int = _WIDTH) -> Markup:
    try:
        import vl_convert
    except ImportError:
        raise MissingExtraError("vl-convert-python", extra="report", purpose="the report") from None
    # Fitted as a whole, all charts of a page keep one scale, however long their labels are.
    fit = {"type": "fit-x", "contains": "padding"}
    sizes: dict[str, Any] = {"width": width, "height": height, "autosize": fit}
    chart = (
        chart.properties(**sizes, **({"title": title} if title else {}))
        .configure(font=_FONT, background="transparent", padding=4)
        .configure_title(anchor="start", frame="bounds", fontSize=13, fontWeight=600, color=INK)
        .configure_axis(
            gridColor=GRID,
            domainColor=PALE,
            tickColor=PALE,
            labelColor=INK,
            titleColor=QUIET,
            titleFontWeight="normal",
            labelFontSize=11,
        )
        .configure_legend(labelColor=INK, titleColor=QUIET, titleFontWeight="normal", padding=0)
        .configure_view(strokeWidth=0)
    )
    specification = json.dumps(chart.to_dict())
    source: str = vl_convert.vegalite_to_svg(specification)
    return trusted(_inline(source))


def _inline(source: str) -> str:
    """An SVG for the middle of a page: it scales, and its ids are its own."""
    # Fixed sizes would overflow narrow screens: the viewBox keeps the proportions.
    source = re.sub(
        r'(<svg[^>]*?) width="([\d.]+)" height="[\d.]+"',
        r'\1 style="max-width:\2px" role="img"',
        source.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "", 1),
        count=1,
    )
    # The renderer counts its ids up over the life of the process, and equal ids of two charts of
    # one page would all point at the first: number them anew and prefix them by the content.
    for number, name in enumerate(dict.fromkeys(re.findall(r'<[a-zA-Z]+ id="([^"]+)"', source))):
        source = _renamed(source, name, f"i{number}")
    prefix = "c" + hashlib.sha256(source.encode()).hexdigest()[:8]
    return re.sub(r'(<[a-zA-Z]+ id="|="url\(#)(i\d+)(?=["\)])', rf"\1{prefix}-\2", source)


def _renamed(source: str, name: str, new: str) -> str:
    source = source.replace(f' id="{name}"', f' id="{new}"')
    return source.replace(f'="url(#{name})"', f'="url(#{new})"')
