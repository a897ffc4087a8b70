"""init, recipes, env, report, and how quickstart refuses."""

from __future__ import annotations

import pytest

from domainformer.config import load_config
from domainformer.schema import DomainSchema
from domainformer.training import RunConfig, list_recipes
from domainformer.version import __version__


def test_init_writes_what_pretrain_reads(invoke, refused, table, tmp_path):
    outcome = invoke("init", table, tmp_path, "--label", "label")
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(tmp_path / "run.yaml")
    assert f"next: domainformer pretrain {tmp_path / 'run.yaml'}" in outcome.err
    config = load_config(RunConfig, tmp_path / "run.yaml")
    assert (config.data.entity, config.data.time) == ("client_id", "timestamp")
    assert DomainSchema.from_yaml(config.schema).columns
    assert "exists already" in refused("init", table, tmp_path)


def test_init_with_a_wrong_label(refused, table, tmp_path):
    assert "did you mean 'label'?" in refused("init", table, tmp_path, "--label", "lable")
    assert not list(tmp_path.iterdir())


def test_recipes_are_listed_and_copied(invoke, refused, tmp_path):
    listed = invoke("recipes", "list", "--json").json
    assert listed.keys() == {recipe.name for recipe in list_recipes()}
    assert "simulated-finance: " in invoke("recipes", "list").out
    target = tmp_path / "mine.yaml"
    outcome = invoke("recipes", "copy", "simulated-finance", target)
    assert outcome.code == 0
    assert outcome.out.strip() == str(target)
    assert load_config(RunConfig, target).output.name == "simulated-finance"
    assert "exists already" in refused("recipes", "copy", "simulated-finance", target)
    message = refused("recipes", "copy", "simulated-finanse", tmp_path / "x.yaml")
    assert "did you mean 'simulated-finance'?" in message


def test_env_for_people_and_programs(invoke):
    assert f"domainformer: {__version__}" in invoke("env").out
    assert invoke("env", "--json").json["packages"]["torch"]


def test_report_needs_a_run(refused, tmp_path):
    assert str(tmp_path) in refused("report", tmp_path)


def test_report_of_a_run(invoke, run):
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    outcome = invoke("report", run)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(run / "report.html")
    assert "<html" in (run / "report.html").read_text()


def test_quickstart_keeps_an_existing_run_and_foreign_folders(refused, run, table, tmp_path):
    arguments = ("quickstart", "--data", table, "--output")
    assert "pass --overwrite" in refused(*arguments, run)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert "is not a run folder" in refused(*arguments, mine, "--overwrite")
    assert (mine / "thesis.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("--label", "lable"), "did you mean 'label'?"),
        (("--entity", "client"), "did you mean 'client_id'?"),
        (("--set", "training.max_stpes=3"), "did you mean 'max_steps'?"),
        (("--set", "model.preset=large"), "preset"),
        (("--label-table", "absent.parquet", "--label", "label"), "absent.parquet"),
    ],
)
def test_quickstart_refuses_early(refused, table, tmp_path, arguments, hint):
    output = tmp_path / "run"
    budget = ("--set", "training.max_steps=1")  # a refusal that comes too late shall not take long
    assert hint in refused("quickstart", "--data", table, "--output", output, *budget, *arguments)
    assert not output.exists()
