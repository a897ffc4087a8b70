"""The page of an ablation: all figures, one plot per figure, nothing that a name could break."""

import copy
import json
import re

import pytest

from domainformer.errors import ArtifactError
from domainformer.reports.ablation import render, write_ablation_report

EVIL = "<script>alert('x')</script>"


def difference(value, half, better):
    low, high = (None, None) if half is None else (value - half, value + half)
    return {
        "value": value,
        "low": low,
        "high": high,
        "spread": None,
        "by_seed": {"0": value},
        "better": better,
    }


def figure(value, found=None):
    return {"value": value, "spread": None, "difference": found}


def row(variant, **figures):
    plain = {"axis": EVIL, "variant": variant, "seeds": [0], "tokens_per_event": 8.25}
    rest = {"events_trained": 900, "seconds": 1.5, "parameters": 12345, "eval_loss": 1.0}
    none = {"loss": None, "accuracy": None, "downstream": None}
    return plain | rest | none | figures


FOUND = {
    "subject": {
        "data": "a.parquet",
        "fingerprint": "f00d",
        "schema": "s",
        "split": {"kind": "time"},
        "role": "validation",
        "events": 100,
        "seeds": [0],
        "context": 64,
        "downstream": "churned",
    },
    "measure": "auroc",
    "axes": {
        EVIL: {"events": 90, "joint": False, "loss": ["kind"], "accuracy": [], "left_out": [EVIL]}
    },
    "rows": [
        row("base", loss=figure(2.0), downstream=figure(0.7)),
        row(
            "less",
            loss=figure(2.5, difference(0.5, 0.1, False)),
            downstream=figure(0.6, difference(-0.1, None, None)),
        ),
        row(EVIL, loss=figure(1.5, difference(-0.5, 0.1, True))),
    ],
    "notes": [EVIL],
    "seconds": 12.0,
}


def test_the_page_shows_every_figure_and_stays_harmless():
    page = render(copy.deepcopy(FOUND), "cards")
    assert "<script" not in page
    assert page.count("<svg") == 2
    assert "+0.500 [+0.400, +0.600]" in page
    assert "−0.500 [−0.600, −0.400]" in page
    assert re.search(r'badge good">better', page)
    assert re.search(r'badge bad">worse', page)
    assert "default-src 'none'" in page or "default-src &#x27;none&#x27;" in page
    assert not re.search(r'(src|href)="https?:', page)


def test_without_anything_to_plot_it_says_so():
    found = copy.deepcopy(FOUND) | {"rows": [row("base"), row("less")], "measure": None}
    page = render(found, "cards")
    assert "<svg" not in page
    assert "No variant has a figure" in page


def test_it_is_written_beside_the_result(tmp_path):
    with pytest.raises(ArtifactError, match="cannot be read"):
        write_ablation_report(tmp_path)
    (tmp_path / "ablation.json").write_text(json.dumps(FOUND))
    path = write_ablation_report(tmp_path)
    assert path == tmp_path / "report.html"
    assert path.read_text().startswith("<!doctype html>")
    (tmp_path / "ablation.json").write_text("{}")
    with pytest.raises(ArtifactError, match="a part is missing"):
        write_ablation_report(tmp_path)
