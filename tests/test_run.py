"""Run folders: identity before the work, the end recorded, the same run or none."""

from __future__ import annotations

import json

import pytest
import yaml

from domainformer.config import StrictConfig
from domainformer.errors import ArtifactError, ConfigError
from domainformer.run import code_version, environment, read_run, resume_run, start_run


class Settings(StrictConfig):
    rate: float = 0.1
    names: tuple[str, ...] = ("a",)
    quiet: bool = False


def test_the_identity_is_on_disk_before_anything_else(tmp_path):
    run = start_run(tmp_path, "cards", kind="pretrain", config=Settings())
    record = read_run(tmp_path / "cards")
    assert record == run.record
    assert record.status == "preparing"
    assert record.config == {"rate": 0.1, "names": ["a"], "quiet": False}
    assert record.config_hash == Settings().hash()
    assert yaml.safe_load((run.directory / "config.yaml").read_text()) == record.config
    assert record.environment["packages"]["torch"]
    assert record.rules == []


def test_ids_differ_and_name_the_folder_where_no_name_is_given(tmp_path):
    runs = [start_run(tmp_path, None, kind="pretrain", config={}) for _ in range(3)]
    assert len({run.record.id for run in runs}) == 3
    assert all(run.directory.name == run.record.id for run in runs)


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ValueError("too hot"), "failed", "ValueError: too hot"),
        (KeyboardInterrupt(), "interrupted", None),
    ],
)
def test_the_end_is_recorded_also_where_it_is_bad(tmp_path, error, status, told):
    with pytest.raises(type(error)), start_run(tmp_path, "r", kind="k", config={}) as run:
        run.update(status="running", resolved={"steps": 3})
        raise error
    record = read_run(tmp_path / "r")
    assert (record.status, record.error) == (status, told)
    assert record.finished is not None


def test_an_existing_run_is_not_overwritten(tmp_path):
    run = start_run(tmp_path, "r", kind="k", config={})
    with pytest.raises(ConfigError, match="exists already"):
        start_run(tmp_path, "r", kind="k", config={})
    run.update(status="failed", resolved={"steps": 3})  # it had begun: its checkpoints count
    with pytest.raises(ConfigError, match="exists already"):
        start_run(tmp_path, "r", kind="k", config={})


def test_a_run_that_failed_before_its_first_step_is_replaced(tmp_path):
    with pytest.raises(ValueError), start_run(tmp_path, "r", kind="k", config={}) as run:
        (run.directory / "store").mkdir()
        raise ValueError
    again = start_run(tmp_path, "r", kind="k", config={})
    assert again.record.id != run.record.id
    assert not (again.directory / "store").exists()


@pytest.mark.parametrize("name", ["a/b", "..", ".", " ", "/etc"])
def test_a_name_is_one_folder(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot name a run"):
        start_run(tmp_path, name, kind="k", config={})


def test_an_empty_name_asks_for_the_id(tmp_path):
    run = start_run(tmp_path, "", kind="k", config={})
    assert run.directory.name == run.record.id


def test_resuming_compares_what_decides_the_result(tmp_path):
    start_run(tmp_path, "r", kind="k", config=Settings())
    same = resume_run(tmp_path / "r", Settings(quiet=True), may_differ={"quiet"})
    assert same.record.name == "r"
    with pytest.raises(ConfigError) as caught:
        resume_run(tmp_path / "r", Settings(rate=0.2, names=("b",)), may_differ={"quiet"})
    assert "rate: 0.1 then, 0.2 now" in str(caught.value)
    assert "names: ['a'] then, ['b'] now" in str(caught.value)


@pytest.mark.parametrize("content", [None, "{", '{"id": 3}', "[]"])
def test_a_folder_that_is_no_run_is_an_error(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises((ArtifactError, ConfigError)):
        read_run(tmp_path)


def test_fingerprints_are_added_without_losing_anything(tmp_path):
    run = start_run(tmp_path, "r", kind="k", config={"a": 1})
    run.update(data_fingerprint="ab", split={"kind": "time"})
    run.finish({"eval_loss": 2.0})
    values = json.loads((run.directory / "run.json").read_text())
    assert values["data_fingerprint"] == "ab"
    assert values["split"] == {"kind": "time"}
    assert values["results"] == {"eval_loss": 2.0}
    assert values["status"] == "finished"
    assert values["config"] == {"a": 1}


def test_a_misspelt_field_is_not_recorded(tmp_path):
    run = start_run(tmp_path, "r", kind="k", config={})
    with pytest.raises(ConfigError, match="unknown key"):
        run.update(spilt={})


def test_one_process_at_a_time(tmp_path):
    run = start_run(tmp_path, "r", kind="k", config=Settings())
    with run:
        second = resume_run(tmp_path / "r", Settings())
        with pytest.raises(ConfigError, match="another process works on"), second:
            pass
    assert read_run(run.directory).status == "preparing"
    with resume_run(tmp_path / "r", Settings()):
        pass


def test_version_and_environment_are_plain_data():
    assert code_version()["domainformer"]
    json.dumps([code_version(), environment()])
