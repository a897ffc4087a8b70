"""The largest batch that fits: against a fake meter, and against real memory."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from domainformer.errors import ConfigError
from domainformer.training.batch_size import (
    BatchPlan,
    SavedTensorMeter,
    free_memory,
    largest_fitting,
    plan_batches,
)


class FakeMeter:
    """So much per row; out of memory beyond a wall, as a GPU would be."""

    def __init__(self, base=100.0, per_row=10.0, wall=math.inf):
        self.base, self.per_row, self.wall = base, per_row, wall
        self.asked = []

    def bytes_for(self, rows):
        self.asked.append(rows)
        return math.inf if rows > self.wall else self.base + rows * self.per_row


@given(
    base=st.floats(0, 1e3),
    per_row=st.floats(0.1, 100),
    budget=st.floats(1, 1e5),
    limit=st.integers(1, 3000),
    wall=st.integers(1, 3000),
)
def test_it_finds_what_trying_all_would_find(base, per_row, budget, limit, wall):
    meter = FakeMeter(base, per_row, wall)
    oracle = FakeMeter(base, per_row, wall)
    fitting = [n for n in range(1, limit + 1) if oracle.bytes_for(n) <= budget]
    if not fitting:
        with pytest.raises(ConfigError, match="does not fit the memory budget"):
            largest_fitting(meter, budget, limit)
    else:
        assert largest_fitting(meter, budget, limit) == max(fitting)
        assert len(meter.asked) < 40


def plan(meter=None, **values):
    defaults = {
        "batch_tokens": 8192,
        "accumulation": "auto",
        "context": 512,
        "available_rows": 10_000,
        "meter": lambda: meter or FakeMeter(),
        "budget": lambda: 1e9,
    }
    return plan_batches(**(defaults | values))


def test_everything_fits_at_once():
    assert plan() == BatchPlan(rows=16, accumulation=1)


@given(batch_rows=st.integers(1, 200), fits=st.integers(1, 200))
def test_accumulation_reaches_the_batch_within_the_budget(batch_rows, fits):
    chosen = plan(
        FakeMeter(base=0, per_row=1), batch_tokens=512 * batch_rows, budget=lambda: float(fits)
    )
    assert chosen.rows <= fits
    assert batch_rows <= chosen.rows_per_step < batch_rows + chosen.accumulation
    assert chosen.accumulation == math.ceil(batch_rows / min(fits, batch_rows))


def test_auto_batches_fill_the_budget():
    assert plan(batch_tokens="auto", budget=lambda: 350.0) == BatchPlan(25, 1)
    assert plan(batch_tokens="auto", accumulation=4, budget=lambda: 350.0) == BatchPlan(25, 4)


def test_a_given_accumulation_is_taken_and_nothing_is_measured():
    def unwanted():
        raise AssertionError

    assert plan(accumulation=4, meter=unwanted, budget=unwanted) == BatchPlan(4, 4)
    assert plan(accumulation=100, meter=unwanted, budget=unwanted) == BatchPlan(1, 100)


def test_a_small_data_set_bounds_the_batch():
    assert plan(available_rows=5).rows == 5
    assert plan(batch_tokens="auto", available_rows=5).rows == 5


def test_out_of_memory_is_no_error_but_a_bound():
    assert plan(FakeMeter(wall=6)) == BatchPlan(rows=6, accumulation=3)


def test_the_saved_tensors_are_those_of_a_known_layer():
    """Oracle: one linear layer keeps its input; its tanh keeps its output."""
    layer = torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.Tanh())

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return {"loss": self.layer(x).sum()}

    model = Model()
    meter = SavedTensorMeter(
        model, lambda rows: {"x": torch.zeros(rows, 10)}, contextlib.nullcontext
    )
    batch = {"x": torch.zeros(3, 10)}
    saved = SavedTensorMeter.saved_bytes(model, batch, contextlib.nullcontext)
    assert sorted(saved) == [3 * 4 * 10, 3 * 4 * 20]
    assert meter._per_row == pytest.approx(1.15 * 4 * (10 + 20) + 4 * 4 * 20)
    parameters = 10 * 20 + 20
    assert meter._fixed == 16 * parameters


def test_more_rows_need_more_memory(standin):
    model = standin.make_model()
    rows = standin.StandinRows(64)

    def batch(count):
        return standin.collate([rows[i] for i in range(count)])

    meter = SavedTensorMeter(model, batch, contextlib.nullcontext)
    assert meter.bytes_for(1) < meter.bytes_for(2) < meter.bytes_for(64)
    assert not any(p.grad is not None for p in model.parameters())
    exact = SavedTensorMeter._held(model, batch(32), contextlib.nullcontext)
    assert meter.bytes_for(32) - meter._fixed == pytest.approx(exact, rel=0.05)


def test_there_is_free_memory():
    assert free_memory(torch.device("cpu")) > 2**20
