"""init at a terminal, without one, and with the run behind it."""

from __future__ import annotations

import io
import sys

import pytest

from domainformer.config import load_config
from domainformer.training import RunConfig


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def typed(invoke, monkeypatch):
    """Run a verb with lines typed at a terminal."""

    def run(lines, *arguments):
        monkeypatch.setattr(sys, "stdin", Terminal("".join(f"{line}\n" for line in lines)))
        return invoke(*arguments)

    return run


@pytest.fixture
def poem(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text("to be or not to be, that is the question. " * 20)
    return path


def test_at_a_terminal_questions_are_asked(typed, table, tmp_path):
    outcome = typed(["", "timestam", "", "", "", "quick", "n"], "init", table, tmp_path)
    assert outcome.code == 0, outcome.err
    assert "1. Which column says whose event a row is" in outcome.err
    assert "default: client_id (the only column whose name and values say so)" in outcome.err
    assert "did you mean 'timestamp'?" in outcome.err
    assert "Run it now? [y/N]" in outcome.err
    assert outcome.out.strip() == str(tmp_path / "run.yaml")
    assert load_config(RunConfig, tmp_path / "run.yaml").training.max_tokens == 600_000


def test_without_a_terminal_it_does_not_wait(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refused("init")
    assert "there is no terminal to answer them" in message
    assert "pass --yes" in message
    assert not list(tmp_path.iterdir())


def test_yes_takes_what_lies_in_the_folder(invoke, refused, poem, monkeypatch):
    monkeypatch.chdir(poem.parent)
    outcome = invoke("init", "--yes", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json == {
        "config": "run.yaml",
        "schema": None,
        "kind": "train",
        "command": "domainformer train run.yaml",
    }
    assert "exists already" in refused("init", "--yes")


def test_the_end_of_the_input_is_an_error_with_a_remedy(typed, table, tmp_path):
    outcome = typed(["", ""], "init", table, tmp_path)
    assert outcome.code == 2
    assert "the answers ended at the question" in outcome.err
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_nothing(typed, table, tmp_path, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    outcome = typed([], "init", table, tmp_path)
    assert outcome.code == 130
    assert not list(tmp_path.iterdir())


def test_the_run_follows_where_it_is_wanted(typed, poem, monkeypatch):
    monkeypatch.chdir(poem.parent)
    arguments = ("--context", 16, "--size", 700)
    outcome = typed(["", "y"], "init", "poem.txt", "made", *arguments)
    assert outcome.code == 0, outcome.err
    assert "next: domainformer sample" in outcome.err
    assert len(list(poem.parent.glob("runs/*/model/model.safetensors"))) == 1
