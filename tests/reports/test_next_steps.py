import dataclasses

import pytest

from domainformer.reports.collect import collect
from domainformer.reports.sections import next_section


def advice(run, losses):
    rows = [{"step": 10 * i, "eval_loss": loss} for i, loss in enumerate(losses, 1)]
    return next_section(dataclasses.replace(run, metrics=rows))


@pytest.fixture(scope="module")
def run(build_run):
    return collect(build_run("store", "metrics", "evaluation"))


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ((3.0, 2.0, 1.0), "still falling"),
        ((3.0, 1.0, 2.0), "by heart"),
        ((3.0, 1.0, 1.005), "levelled off"),
    ],
)
def test_the_curve_decides_what_to_do_about_training(run, losses, expected):
    assert expected in advice(run, losses)


def test_too_short_a_curve_says_nothing(run):
    told = advice(run, (2.0, 1.0))
    assert not any(word in told for word in ("falling", "by heart", "levelled"))


def test_fields_behind_a_baseline_are_named(run):
    told = next_section(run)
    assert "behind a baseline in log-loss on &lt;script&gt;" in told
    assert "on kind" not in told


def test_commands_name_the_run_and_its_label(run):
    told = next_section(run)
    assert f"domainformer evaluate {run.folder} --label label" in told
    assert f"domainformer report {run.folder}" in told


def test_long_histories_ask_for_a_longer_context(run):
    assert "training.context" in next_section(run)
    config = {**run.record.config, "training": {"context": 10_000}}
    roomy = dataclasses.replace(run, record=run.record.model_copy(update={"config": config}))
    assert "training.context" not in next_section(roomy)
