"""Tables of selectors: intervals, names, JSON, seeds put together."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from domainformer.errors import DataError
from domainformer.evaluation.vision import VisionCell, VisionResults, VisionSummary, wilson


def results(correct=(7, 9), seed=0):
    cells = [
        VisionCell("full", "all", "all", 10, 10, 10, 640, 640),
        VisionCell("stride", "1/9", "all", 10, correct[0], 8, 70, 640),
        VisionCell("stride", "4", "all", 10, correct[1], 9, 40, 640),
        VisionCell("stride", "4", "colour", 5, 4, 5, 20, 320),
    ]
    return VisionResults(tuple(cells), seed)


@pytest.mark.parametrize(("correct", "questions"), [(0, 5), (5, 5), (3, 7), (950, 1000)])
def test_wilson_is_scipys(correct, questions):
    interval = wilson(correct, questions)
    slow = binomtest(correct, questions).proportion_ci(method="wilson")
    assert interval.low == pytest.approx(slow.low, abs=1e-6)
    assert interval.high == pytest.approx(slow.high, abs=1e-6)


def test_json_round_trip():
    before = results(seed=3)
    assert VisionResults.from_json(before.to_json()) == before
    record = json.loads(before.to_json())["cells"][1]
    assert record["accuracy"] == 0.7
    assert record["mean_kept"] == 7.0
    assert record["agreement"] == 0.8
    assert record["low"] < 0.7 < record["high"]


@pytest.mark.parametrize("text", ["", "[]", '{"seed": 0}', '{"seed": 0, "cells": [{"kind": 1}]}'])
def test_other_json_is_refused(text):
    with pytest.raises(DataError, match="not the JSON"):
        VisionResults.from_json(text)


def test_a_missing_cell_says_what_there_is():
    with pytest.raises(DataError, match=r"budgets: all, 1/9, 4"):
        results().cell("stride", "1/4")
    with pytest.raises(DataError, match="full, stride"):
        VisionSummary.of([results()]).cell("random", "4")


def test_tables_have_a_row_per_selector():
    text = results().render()
    first, second = text.split("\n\n")
    assert first.splitlines()[0] == "| all | all | 1/9 | 4 |"
    assert "| full | 100.0 (72.2 to 100.0), 64.0 tokens | – | – |" in first
    assert second.splitlines()[2].startswith("| stride | – | – | 80.0 (")
    assert len(second.splitlines()) == 3  # the full model was not asked alone


def test_nothing_measured_is_not_shown():
    with pytest.raises(DataError, match="nothing was measured"):
        VisionResults(()).render()
    with pytest.raises(DataError, match="no runs"):
        VisionSummary.of([])


def test_seeds_give_mean_and_standard_error():
    runs = [results((7, 9)), results((5, 9), 1), results((9, 6), 2)]
    summary = VisionSummary.of(runs)
    cell = summary.cell("stride", "1/9")
    shares = np.array([0.7, 0.5, 0.9])
    assert cell.seeds == 3
    assert cell.accuracy == pytest.approx(shares.mean())
    assert cell.error == pytest.approx(shares.std(ddof=1) / 3**0.5)
    assert "70.0 ± 11.5 (7.0)" in summary.render()
    assert json.loads(summary.to_json())["cells"][1]["error"] == pytest.approx(cell.error)


def test_one_seed_has_no_error():
    summary = VisionSummary.of([results()])
    assert summary.cell("stride", "4").error is None
    assert "±" not in summary.render()
