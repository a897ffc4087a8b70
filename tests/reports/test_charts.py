import re
import xml.etree.ElementTree as ET

import pytest

from domainformer.reports import charts

EVIL = "<script>alert('x')</script> id=\"q\""
DRAWN = {
    "shares": lambda: charts.shares(
        {"label": [EVIL, "b"], "training": [0.5, 0.2], "test": [0.4, None]},
        label="label",
        train="training",
        test="test",
        title=EVIL,
    ),
    "share_columns": lambda: charts.share_columns(
        {"label": ["1", "2"], "training": [0.5, 0.2]}, label="label", train="training"
    ),
    "columns": lambda: charts.columns({"size": ["1", "2–3"], "n": [5, 7]}, x="size", y="n"),
    "lines": lambda: charts.lines(
        {"step": [1, 2, 3], "loss": [3.0, float("nan"), 2.0], "curve": ["a", "a", EVIL]},
        x="step",
        y="loss",
        series="curve",
    ),
    "one line": lambda: charts.lines({"step": [1], "loss": [3.0]}, x="step", y="loss"),
    "grouped_bars": lambda: charts.grouped_bars(
        {"share": [0.1, 0.2], "field": [EVIL, EVIL], "who": ["model", "other"]},
        x="share",
        y="field",
        series="who",
    ),
    "intervals": lambda: charts.intervals(
        {"v": [0.1], "low": [0.0], "high": [0.2], "field": [EVIL], "verdict": ["even"]},
        x="v",
        low="low",
        high="high",
        y="field",
        verdict="verdict",
    ),
    "scatter": lambda: charts.scatter(
        {"x": [1.0, 2.0], "y": [1.0, 2.0], "colour": [0.5, 0.7]}, x="x", y="y", colour="colour"
    ),
    "scatter of names": lambda: charts.scatter(
        {"x": [1.0, 2.0], "y": [1.0, 2.0], "colour": [EVIL, "b"]}, x="x", y="y", colour="colour"
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_each_chart_is_well_formed_and_harmless(name):
    svg = DRAWN[name]()
    root = ET.fromstring(svg)
    tags = {element.tag.rsplit("}", 1)[-1] for element in root.iter()}
    assert "script" not in tags
    assert "image" not in tags
    assert "max-width" in root.attrib["style"]
    assert "width" not in root.attrib
    assert "NaN" not in svg


def test_ids_of_two_charts_differ_and_their_references_follow():
    first, second = (
        DRAWN["scatter"](),
        charts.scatter({"x": [1.0], "y": [4.0], "colour": [0.1]}, x="x", y="y", colour="colour"),
    )
    ids = [set(re.findall(r'<\w+ id="([^"]+)"', svg)) for svg in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for svg, own in zip((first, second), ids, strict=True):
        assert set(re.findall(r'url\(#([^)"]+)\)', svg)) <= own


def test_drawing_is_deterministic():
    assert DRAWN["scatter"]() == DRAWN["scatter"]()
