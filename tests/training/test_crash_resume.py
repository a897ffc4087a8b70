"""Runs killed with SIGKILL end with the weights of an uninterrupted one (see the benchmark)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "crash_resume.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")


def kill_and_resume(*arguments: str) -> str:
    one_thread = {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--no-write", *arguments],
        env={**os.environ, **one_thread},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.integration
def test_two_kills():
    assert "2 kills; final weights identical" in kill_and_resume("--kills", "2", "--steps", "30")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_kills(seed):
    shown = kill_and_resume("--kills", "10", "--seed", str(seed))
    assert "10 kills; final weights identical" in shown
