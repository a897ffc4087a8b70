"""Comments say what and whence; files appear together or not at all."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.config import parse_yaml
from domainformer.errors import ConfigError
from domainformer.start import writing
from domainformer.start.plan import Plan
from domainformer.start.writing import config_text, write_files


def _plan(path="a.parquet", entity="who", source="a guess"):
    values = {
        "data": {"path": path, "entity": entity, "time": None},
        "split": {"kind": "entity"},
    }
    return Plan("pretrain", values, {"data.entity": source}, found="a table")


def test_each_value_is_told_with_its_source():
    lines = config_text(_plan(), "domainformer pretrain run.yaml").splitlines()
    at = lines.index("  entity: who")
    assert lines[at - 2] == "  # Column that names whose event it is (client, patient, …)."
    assert lines[at - 1] == "  # from: a guess"
    assert "# domainformer pretrain run.yaml" in lines
    assert max(map(len, lines)) <= 100


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.text(min_size=1), st.text(min_size=1), st.text())
def test_any_name_is_written_or_refused_and_reads_back(path, entity, source):
    try:
        text = config_text(_plan(path, entity, source), f"domainformer pretrain {path}")
    except (ConfigError, UnicodeEncodeError):
        pytest.fail("text that hypothesis makes has no lone surrogates, and YAML can hold it")
    data = parse_yaml(text)["data"]
    assert (data["path"], data["entity"]) == (path, entity)


def test_wrong_values_are_no_configuration():
    plan = Plan("train", {"training": {"context": 1}})
    with pytest.raises(ConfigError, match="has 1 error"):
        config_text(plan, "")


def _interrupted(files, monkeypatch, *, overwrite=False):
    """Write the first file, and be interrupted at the second."""
    write = writing.write_text

    def once(path, text):
        if path.name == "b":
            path.with_name(f".b.staging-{writing.os.getpid()}").write_text("half")
            raise KeyboardInterrupt
        write(path, text)

    monkeypatch.setattr(writing, "write_text", once)
    with pytest.raises(KeyboardInterrupt):
        write_files(files, overwrite=overwrite)


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    folder = tmp_path / "x" / "y"
    _interrupted({folder / "a": "1", folder / "b": "2"}, monkeypatch)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_replacement_leaves_what_was(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    _interrupted({tmp_path / "a": "1", tmp_path / "b": "2"}, monkeypatch, overwrite=True)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_the_check_would_notice_what_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_undone_on_failure", lambda paths: contextlib.nullcontext())
    _interrupted({tmp_path / "a": "1", tmp_path / "b": "2"}, monkeypatch)
    assert list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        write_files({tmp_path / "a": ""}, overwrite=True)
