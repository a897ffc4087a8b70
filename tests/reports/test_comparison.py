"""The page of a comparison: verdicts, curves, and nothing that a name could break."""

import copy
import json
import re

import pytest

from domainformer.errors import ArtifactError
from domainformer.reports.comparison import render, write_comparison_report

EVIL = "<script>alert('x')</script>"
TEST = {"kind": "paired", "difference": -0.1, "low": -0.15, "high": -0.05, "t": -9.0}
TEST |= {"freedom": 2.0, "p": 0.01, "n": 3}


def group(name, mean, against=None, marks=()):
    return {
        "name": name,
        "setting": {"rules": {"settings": {"rules": [{"name": name}]}}},
        "runs": [f"runs/{name}-0", f"runs/{name}-1"],
        "seeds": [0, None],
        "values": [mean, mean],
        "mean": mean,
        "error": 0.0125,
        "results": {"seconds": {"mean": 90.0, "error": None}},
        "against": against,
        "marks": list(marks),
    }


def against(verdict, test=TEST):
    p = None if test is None else 0.02
    return {"difference": -0.1, "test": test, "other_test": None, "p": p, "verdict": verdict}


def curve(key, name, points=30):
    steps = [10 * (index + 1) for index in range(points)]
    values = [3.0 - 0.01 * step for step in steps]
    return {"key": key, "group": name, "steps": steps, "mean": values, "low": values} | {
        "high": [value + 0.1 for value in values]
    }


FOUND = {
    "metric": "eval_loss",
    "higher_is_better": False,
    "vary": ["rules"],
    "groups": [
        group("plain", 2.0),
        group("lion", 1.9, against("better")),
        group(EVIL, 1.8, against("unknown", None), [f"code: {EVIL}"]),
    ],
    "curves": [
        *(curve("eval_loss", name) for name in ("plain", "lion", EVIL)),
        *(curve("rule_norm", name) for name in ("plain", "lion")),
        curve("short", "plain", 1),
    ],
    "notes": [EVIL],
}


@pytest.fixture(scope="module")
def page():
    return render(FOUND, EVIL)


def test_the_verdict_stands_at_the_top_and_marks_are_told(page):
    assert "lion has the best mean of those that are better than plain" in page
    assert "1.9000 against 2.0000" in page
    assert '<span class="badge good">better</span>' in page
    assert "−0.1000 [−0.1500, −0.0500]" in page
    assert page.count('<span class="badge bad">marked</span>') == 1
    assert "Marked: differences that nobody named" in page
    assert "1.5 min" in page


def test_curves_are_drawn_and_what_is_no_curve_is_not(page):
    assert page.count("<svg") == 3  # differences, eval_loss, rule_norm
    assert "<h3>eval_loss</h3>" in page
    assert "Further figures" in page
    assert "<h3>short</h3>" not in page
    assert "From step 30 on" in page


def test_no_name_acts_and_nothing_is_loaded(page):
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)


def test_many_settings_share_charts_in_which_the_base_is_always():
    found = copy.deepcopy(FOUND)
    names = ["plain", *(f"s{index}" for index in range(11))]
    found["curves"] = [curve("loss", name, 5) for name in names]
    page = render(found, "many")
    assert page.count("<svg") == 1 + 3  # 5 + 5 + 1 others
    assert "From step" not in page  # a short curve is shown whole


def test_repetitions_alone_and_no_better_setting_are_told_as_such():
    found = copy.deepcopy(FOUND)
    found["groups"][1]["against"]["verdict"] = "even"
    assert "None is better than plain beyond the noise of seeds" in render(found, "x")
    found["groups"] = found["groups"][:1]
    found["curves"] = []
    page = render(found, "x")
    assert "2 repetitions of one experiment" in page
    assert "<svg" not in page


def test_a_page_is_written_beside_the_comparison(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        write_comparison_report(tmp_path)
    (tmp_path / "comparison.json").write_text("{}")
    with pytest.raises(ArtifactError, match="a part is missing"):
        write_comparison_report(tmp_path)
    (tmp_path / "comparison.json").write_text(json.dumps(FOUND))
    page = write_comparison_report(tmp_path)
    assert page.name == "report.html"
    assert f"<title>{tmp_path.name}: comparison" in page.read_text()
