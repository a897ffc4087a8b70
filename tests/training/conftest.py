"""The stand-in model and data set of ``standin.py``, as a fixture."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def standin():
    path = Path(__file__).with_name("standin.py")
    spec = importlib.util.spec_from_file_location("domainformer_test_standin", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
