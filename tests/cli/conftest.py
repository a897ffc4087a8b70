"""One simulated table and one tiny trained run, shared by all tests of the command line."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from domainformer.cli import main

TINY = (
    "model.overrides={hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}",
    "tokenizer.bpe_vocab_size=256",
    "training.context=128",
    "training.batch_tokens=2048",
    "training.max_steps=2",
)


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(scope="session")
def invoke():
    """Run the command line in this process: exit code, stdout, stderr."""

    def run(*arguments):
        out, err = io.StringIO(), io.StringIO()
        code = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main([str(argument) for argument in arguments])
            except SystemExit as stop:
                code = stop.code or 0
        return Outcome(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def refused(invoke):
    """Run what must be refused: exit code 2, a message on stderr, nothing on stdout."""

    def run(*arguments):
        outcome = invoke(*arguments)
        assert outcome.code == 2, outcome
        assert outcome.out == ""
        assert "Traceback" not in outcome.err
        # Frames are drawn for terminals; what they say is compared without them.
        return " ".join(outcome.err.replace("│", " ").split())

    return run


@pytest.fixture(scope="session")
def table(invoke, tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "events.parquet"
    outcome = invoke("simulate", "finance", path, "--entities", 80, "--events", 16)
    assert outcome.code == 0, outcome.err
    return path


@dataclass(frozen=True)
class Trained:
    folder: Path
    outcome: Outcome


@pytest.fixture(scope="session")
def trained(invoke, table, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    outcome = invoke(
        "pretrain",
        f"data.path={table}",
        "data.entity=client_id",
        "data.time=timestamp",
        "data.label=label",
        f"output.root={root}",
        "output.name=tiny",
        *TINY,
        "--json",
    )
    assert outcome.code == 0, outcome.err
    return Trained(root / "tiny", outcome)


@pytest.fixture(scope="session")
def run(trained):
    """The folder of the tiny run."""
    return trained.folder
