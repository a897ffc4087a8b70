"""Open values are resolved; given ones are taken."""

from __future__ import annotations

import numpy as np
import pytest

from domainformer.errors import ConfigError
from domainformer.training.config import TrainingConfig
from domainformer.training.plan import TrainPlan, resolve_plan


@pytest.fixture
def resolve(standin):
    rows = standin.StandinRows(100)
    model = standin.make_model()

    def resolve(**values):
        return resolve_plan(
            TrainingConfig(**values),
            model=model,
            width=16,
            row_lengths=np.full(100, standin.LENGTH),
            make_batch=lambda chosen: standin.collate([rows[i] for i in chosen]),
        )

    return resolve


def test_epochs_become_steps_and_cadences_follow(resolve):
    plan = resolve(batch_tokens=120, epochs=3)
    assert (plan.rows, plan.accumulation, plan.steps) == (10, 1, 30)
    assert (plan.eval_every, plan.save_every, plan.log_every) == (3, 3, 10)


def test_tokens_become_steps(resolve):
    assert resolve(batch_tokens=120, max_tokens=1201).steps == 11


def test_short_runs_still_evaluate_save_and_log(resolve):
    plan = resolve(batch_tokens=120, max_steps=2, eval_every=50, save_every=50, log_every=50)
    assert (plan.eval_every, plan.save_every, plan.log_every) == (2, 2, 2)


def test_the_budget_divides_the_batch(resolve):
    whole = resolve(batch_tokens=1200, max_steps=1)
    tight = resolve(batch_tokens=1200, max_steps=1, memory_budget="60KB")
    assert (whole.rows, whole.accumulation) == (100, 1)
    assert tight.rows < 100
    assert tight.rows * tight.accumulation >= 100


def test_a_hopeless_budget_is_an_error(resolve):
    with pytest.raises(ConfigError, match="does not fit the memory budget"):
        resolve(memory_budget="1KB")


def test_a_plan_survives_the_run_record(resolve):
    plan = resolve(max_steps=4)
    assert TrainPlan(**plan.to_json()) == plan
