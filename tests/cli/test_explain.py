"""The verb `explain`."""

import json


def test_explain_prints_or_writes(invoke, refused, run, table, tmp_path):
    options = ("--examples", 2, "--steps", 2, "--field", "category")
    outcome = invoke("explain", run, table, *options, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["subject"] == "log-probability of the newest category, given all before it"
    assert "not how the world works" in outcome.err
    page = tmp_path / "page.json"
    written = invoke("explain", run, table, *options, "--out", page)
    assert written.code == 0, written.err
    assert json.loads(page.read_text())["n_examples"] == 2
    assert "exists already" in refused("explain", run, table, *options, "--out", page)
    assert "no field" in refused("explain", run, table, "--field", "categories")
    shown = invoke("explain", run, table, "--examples", 1, "--method", "occlusion")
    assert "█" in shown.out
