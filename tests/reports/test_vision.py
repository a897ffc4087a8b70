"""The page of a compression: every figure and picture, and nothing that a name could break."""

import re

import numpy as np
import pytest

from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import ConfigError
from domainformer.evaluation.vision import VisionCell, VisionResults, VisionSummary
from domainformer.reports.vision import render, write_vision_report
from domainformer.reports.vision_judging import spread
from domainformer.reports.vision_picture import Panel, Sight

EVIL = "<script>alert('x')</script>"


def run(correct):
    cells = [VisionCell("full", "all", kind, 200, 190, 200, 12800, 12800) for kind in ("all", EVIL)]
    for selector in ("compressor", EVIL):
        for budget in ("1/9", "16", "dynamic"):
            cells += [
                VisionCell(selector, budget, kind, 200, correct, 150, 1400, 12800)
                for kind in ("all", EVIL)
            ]
    return VisionResults(tuple(cells))


@pytest.fixture
def sight():
    image = np.zeros((8, 8, 3), np.uint8)
    return Sight(image, (2, 2), EVIL, (Panel(np.array([1]), "7"),), "7", "7")


def test_a_page_tells_accuracy_with_its_interval(sight):
    page = render(f"run {EVIL}", [sight], run(120), {"model": EVIL})
    assert "<script" not in page
    assert page.count("<svg") == 3 + 2
    assert "60.0" in page
    assert "53.1 to 66.5" in page  # Wilson, 120 of 200
    assert "7.0" in page  # tokens kept
    assert "of 200 questions" in page
    assert "img-src data:" in page
    assert [re.sub(r"<[^>]+>", "", one) for one in re.findall(r"<h2>.*?</h2>", page)] == [
        "Accuracy",
        "What was kept",
    ]


def test_several_seeds_are_told_with_their_standard_error():
    page = render("seeds", [], VisionSummary.of([run(110), run(120), run(130)]), {})
    assert "means over 3 seeds" in page
    assert "± 2.9" in page  # 5 points of deviation over √3
    assert "img-src" not in page


def test_a_page_needs_something_to_show_and_a_name(sight, tmp_path):
    with pytest.raises(ConfigError, match="pictures or figures"):
        write_vision_report(tmp_path / "a.html", title="none")
    with pytest.raises(ConfigError, match="is no page"):
        write_vision_report(tmp_path / "a.png", title="one", sights=[sight])
    path = write_vision_report(tmp_path / "a.html", title="one", sights=[sight])
    assert path.read_text().count('class="sight"') == 1


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 9, 20])
@pytest.mark.parametrize("kinds", ["abcabcabc", "aaabbbccc", "aaaaaaaac"])
def test_spread_questions_are_of_all_kinds(kinds, limit):
    image = np.zeros((1, 1, 3), np.uint8)
    asked = [VisionQuestion(image, str(i), "", kind) for i, kind in enumerate(kinds)]
    found = spread(asked, limit)
    numbers = [int(one.question) for one in found]
    assert numbers == sorted(set(numbers))
    assert len(found) <= limit
    present = dict.fromkeys(one.kind for one in found)
    assert len(present) == min(limit, len(set(kinds)))
    if kinds.count("a") == 3 and limit <= 9:
        assert len(found) == limit
