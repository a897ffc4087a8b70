"""The helpers of ``standin.py`` and ``objective_cases.py``, as fixtures."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch


def _load(name):
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"domainformer_test_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def standin():
    return _load("standin")


@pytest.fixture(scope="session")
def cases():
    return _load("objective_cases")


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
