"""The application as a whole: help, exit codes, where things are printed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from domainformer.cli import main

APPLICATION = sys.modules["domainformer.cli.app"]

VERBS = (
    "quickstart",
    "init",
    "simulate",
    "schema",
    "tokenizer",
    "tokenize",
    "pretrain",
    "finetune",
    "evaluate",
    "ablate",
    "embed",
    "generate",
    "report",
    "recipes",
    "env",
)


def test_help_names_every_verb(invoke):
    outcome = invoke("--help")
    assert outcome.code == 0
    assert all(verb in outcome.out for verb in VERBS)


@pytest.mark.parametrize(
    "verb",
    [
        *VERBS,
        "schema infer",
        "schema check",
        "tokenizer fit",
        "tokenizer show",
        "tokenizer validate",
        "tokenizer extend",
        "tokenizer diff",
        "tokenizer drift",
        "tokenizer semantic-ids",
        "tokenizer merges",
        "recipes list",
        "recipes copy",
    ],
)
def test_every_verb_has_help_for_each_option(invoke, verb):
    outcome = invoke(*verb.split(), "--help")
    assert outcome.code == 0
    assert "Usage" in outcome.out


def test_an_unknown_verb_gives_the_nearest(refused):
    message = refused("pretrian")
    assert "No such command 'pretrian'" in message
    assert "Did you mean 'pretrain'" in message


def test_an_unknown_option_gives_the_nearest(refused):
    message = refused("tokenizer", "fit", "table.parquet", "--entiti", "card")
    assert "No such option: --entiti" in message
    assert "--entity" in message


def test_a_missing_argument_is_named(refused):
    assert "missing argument 'table'" in refused("schema", "infer").lower()
    assert "Missing option '--output'" in refused("embed", "model", "table.parquet")


def test_a_wrong_choice_shows_the_choices(refused):
    message = refused("quickstart", "--split", "tiem")
    assert "'tiem' is not one of 'auto', 'time', 'entity'" in message


def test_interruption_ends_with_130(monkeypatch, capsys):
    def interrupted(arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(APPLICATION, "app", interrupted)
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 130
    assert "interrupted" in capsys.readouterr().err


def test_an_error_that_is_not_ours_stays_a_bug(monkeypatch):
    def broken(arguments, **options):
        raise ZeroDivisionError

    monkeypatch.setattr(APPLICATION, "app", broken)
    with pytest.raises(ZeroDivisionError):
        main([])


def test_as_a_module_and_a_process(tmp_path):
    command = [sys.executable, "-m", "domainformer", "schema", "infer", "absent.parquet"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: there is no file absent.parquet")
