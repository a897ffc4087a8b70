"""`check` as a whole: tiers, names, reports, folders, and what it refuses."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from domainformer.errors import AdapterError, ConfigError, DataError
from domainformer.evaluation.checks import CHECKS, check, open_model, opening
from domainformer.evaluation.checks.run import NAMES
from domainformer.models.universal.pretrained import UniversalForCausalLM
from domainformer.models.universal.source import LoadedSource, _imported

SOURCE = """
from torch import nn

class Bigrams(nn.Module):
    def __init__(self, size=40):
        super().__init__()
        self.table = nn.Embedding(size, size)
        nn.init.normal_(self.table.weight, std=0.1)

    def forward(self, input_ids):
        return self.table(input_ids)
"""


def test_names_are_unique_and_reports_carry_them():
    assert len(set(NAMES)) == len(NAMES) == sum(map(len, CHECKS.values()))


def test_a_report_is_a_table_and_json(tiny):
    report = check(tiny("spare module"), only=["shapes", "modules_called"])
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report.render())
    text = console.export_text()
    assert "never used: spare" in text
    assert "1 pass, 1 fail" in text
    found = json.loads(json.dumps(report.to_json()))
    assert found["counts"] == {"pass": 1, "fail": 1, "warn": 0, "skip": 0}
    assert found["facts"]["vocabulary"] == 80
    assert not report.passed


def test_what_does_not_run_is_not_asked_further():
    class Broken(nn.Embedding):
        def forward(self, input_ids):
            raise RuntimeError("no such thing")

    report = check(Broken(20, 20), only=["shapes", "causality", "save_load"])
    assert [one.status for one in report] == ["fail", "skip", "skip"]
    assert "no such thing" in report["shapes"].reason


def test_what_cannot_be_copied_is_skipped_with_the_reason(tiny, one):
    model = tiny()
    model.last = model.embed(torch.tensor([1])) * 2  # not a leaf
    result = one(model, "overfit_one_batch")
    assert result.status == "skip"
    assert "cannot be copied" in result.reason


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tier": 4}, "no tier 4"),
        ({"only": ["causalty"]}, "did you mean 'causality'"),
        ({"steps": 0}, "steps is 0"),
        ({"text": "some text"}, "needs a tokenizer"),
    ],
)
def test_bad_options_are_refused(tiny, options, match):
    with pytest.raises(ConfigError, match=match):
        check(tiny(), **options)


def test_bad_models_and_texts_are_refused(tiny, tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        check(tmp_path / "none")
    with pytest.raises(AdapterError):
        check(nn.Linear(3, 3))
    with pytest.raises(ConfigError, match="vocabulary of Identity"):
        check(nn.Identity(), roles={"input": "tokens"})
    with pytest.raises(DataError, match="the model knows 80"):
        check(tiny(), text="a" * 999, tokenizer=lambda *_, **__: {"input_ids": [80] * 999})
    with pytest.raises(DataError, match="cannot be read"):
        check(tiny(), text=tmp_path / "none.txt", tokenizer=len)


def test_a_folder_counts_as_trained(pretrained, tmp_path):
    pretrained("gpt2").save_pretrained(tmp_path / "model")
    report = check(tmp_path, only=["shapes", "save_load"])
    assert report.subject == "GPT2LMHeadModel"
    assert report.passed
    assert open_model(tmp_path)[2] is True


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "bigrams.py"
    path.write_text(SOURCE)
    return f"{path}:Bigrams"


def test_a_class_in_a_file_needs_trust(source):
    with pytest.raises(ConfigError, match="not trusted"):
        open_model(None, source=source)
    with pytest.raises(ConfigError, match="no model"):
        open_model(None)
    with pytest.raises(ConfigError, match="names no class"):
        open_model(None, source="bigrams.py", trust=True)
    with pytest.raises(ConfigError, match="no JSON"):
        open_model(None, source=source, arguments="{", trust=True)
    with pytest.raises(ConfigError, match="no mapping"):
        open_model(None, source=source, arguments="[]", trust=True)


def test_a_class_in_a_file_may_have_weights(source, tmp_path, monkeypatch):
    # The limited subprocess has tests of its own, and takes seconds to import torch.
    def loaded(path, name, **_):
        return LoadedSource({}, _imported(Path(path), name))

    monkeypatch.setattr(opening, "load_source", loaded)
    model, _, trained = open_model(None, source=source, arguments='{"size": 30}', trust=True)
    assert trained is False
    assert check(model, only=["shapes", "causality", "initial_loss"]).passed
    UniversalForCausalLM.wrap(model).save_pretrained(tmp_path / "saved")
    asked = {"source": source, "arguments": {"size": 30}, "trust": True}
    again, _, trained = open_model(tmp_path / "saved", **asked)
    assert trained is True
    ids = torch.tensor([[5, 6]])
    torch.testing.assert_close(again(ids).logits, model(ids))
    assert check(again, only=["shapes", "save_load"]).passed


@pytest.mark.slow
def test_a_class_in_a_file_runs_within_limits_first(source):
    model, tokenizer, trained = open_model(None, source=source, trust=True)
    assert (type(model).__name__, tokenizer, trained) == ("Bigrams", None, False)
