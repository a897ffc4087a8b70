"""Makes ``surgery_cases.py`` importable by the tests beside it, by its name."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

_SPEC = importlib.util.spec_from_file_location(
    "surgery_cases", Path(__file__).with_name("surgery_cases.py")
)
sys.modules["surgery_cases"] = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(sys.modules["surgery_cases"])


@pytest.fixture(autouse=True)
def own_randomness():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
