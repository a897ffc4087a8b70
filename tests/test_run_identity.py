"""The identity of a run: it changes with all that can change the result, and with nothing else."""

from __future__ import annotations

import hashlib
import json

import pytest

from domainformer.config import build
from domainformer.data.simulate import simulate
from domainformer.run import (
    SEED_KEYS,
    environment,
    flatten,
    is_inert,
    read_run,
    result_hash,
    resume_run,
    source_hash,
    start_run,
)
from domainformer.run.environment import _hash_of_source
from domainformer.training import RunConfig, pretrain
from domainformer.training.language import TextRunConfig, train

TINY = {
    "data": {"entity": "patient_id", "time": "timestamp"},
    "schema": "health",
    "model": {"overrides": {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2}},
    "training": {
        "max_steps": 3,
        "context": 64,
        "batch_tokens": 256,
        "gradient_accumulation": 1,
        "eval_every": 2,
        "eval_rows": 4,
    },
}


def changed(cls, key):
    config = json.loads(cls().model_dump_json())
    node = config
    *parents, leaf = key.split(".")
    for parent in parents:
        node = node[parent]
    node[leaf] = "something else"
    return config


@pytest.mark.parametrize("cls", [RunConfig, TextRunConfig])
def test_every_setting_is_of_the_result_or_inert(cls):
    before = cls().model_dump(mode="json")
    for key in flatten(before):
        same = result_hash(changed(cls, key)) == result_hash(before)
        assert same == is_inert(key), key


def test_the_inert_settings_are_these():
    inert = {key for key in flatten(RunConfig().model_dump(mode="json")) if is_inert(key)}
    training = (
        "device",
        "keep",
        "log_every",
        "memory_budget",
        "quiet",
        "report_to",
        "resume",
        "threads",
    )
    others = {"output.root", "output.name", "allow_rule_code"}
    assert inert == others | {f"training.{name}" for name in training}


def weights(folder):
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_equal_identities_have_equal_weights_and_others_have_not(tmp_path):
    """The claim itself: train, change what is inert, train again, compare bits."""
    table = simulate("health", entities=20, events_per_entity=20)

    def trained(name, **training):
        values = {**TINY, "training": {**TINY["training"], "quiet": True, **training}}
        values["output"] = {"root": str(tmp_path), "name": name}
        folder = pretrain(build(RunConfig, values), table=table).run_dir
        return read_run(folder), weights(folder)

    one, first = trained("one")
    two, second = trained("two", log_every=1, keep=1, memory_budget="100MB", resume=True)
    other, third = trained("other", seed=5)
    assert (result_hash(one), first) == (result_hash(two), second)
    assert result_hash(one) != result_hash(other)
    assert first != third
    assert result_hash(one, SEED_KEYS) == result_hash(other, SEED_KEYS)
    assert one.identity == two.identity
    assert one.identity.data == table.fingerprint()
    assert one.identity.tokenizer == one.tokenizer_fingerprint
    assert one.identity.code == source_hash()


def test_each_part_is_in_the_hash(tmp_path):
    run = start_run(tmp_path, "one", kind="pretrain", config={"rules": ["lion"], "a": 1})
    parts = [
        {"parent_id": "m"},
        {"data_fingerprint": "d"},
        {"tokenizer_fingerprint": "t"},
        {"rules": ["lion"]},
        {"rule_sources": {"mine": "ab"}},
        {"config": {"rules": ["sign"], "a": 1}},
        {"config": {"rules": ["lion"], "a": 2}},
    ]
    seen = {result_hash(run.record)}
    for change in parts:
        run.update(**change)
        seen.add(result_hash(run.record))
    assert len(seen) == len(parts) + 1
    run.update(environment={**environment(), "cores": 4096}, status="running")
    assert result_hash(run.record) in seen  # neither the number of cores nor the state count


def test_rules_stand_apart_from_settings(tmp_path):
    plain = start_run(tmp_path, "a", kind="k", config={"a": 1}).record.identity
    ruled = start_run(tmp_path, "b", kind="k", config={"a": 1, "rules": ["x"]}).record.identity
    nested = start_run(tmp_path, "c", kind="k", config={"a": 1, "training": {"rules": ["x"]}})
    assert plain.config == ruled.config == nested.record.identity.config
    assert len({plain.rules, ruled.rules, nested.record.identity.rules}) == 3


def test_a_file_is_known_by_its_content_once_it_was_read(tmp_path):
    def run(name, path, content):
        run = start_run(tmp_path, name, kind="k", config={"data": {"path": path}})
        run.update(data_fingerprint=content)
        return result_hash(run.record)

    assert run("a", "here.parquet", "x") == run("b", "there.parquet", "x")
    assert run("c", "here.parquet", "y") != run("d", "here.parquet", "x")


def test_code_of_rules_is_known_by_its_source(tmp_path):
    def run(name, path, source):
        config = {"rule_code": [path], "allow_rule_code": True}
        run = start_run(tmp_path, name, kind="k", config=config)
        run.update(rule_sources={path: source})
        return result_hash(run.record)

    assert run("a", "mine.py", "x") == run("b", "moved.py", "x")
    assert run("c", "mine.py", "y") != run("d", "mine.py", "x")


@pytest.mark.slow
def test_what_a_model_writes_on_the_way_does_not_change_it(tmp_path):
    """Samples are inert, as the hash says: the same bits with and without."""
    (tmp_path / "a.txt").write_text("the cat sat on the mat and looked at the rat. " * 20)
    hashes = set()
    for name, every in (("often", 1), ("never", 0)):
        values = {
            "data": {"path": str(tmp_path / "a.txt")},
            "model": {"overrides": {"num_hidden_layers": 1, "hidden_size": 16, "dropout": 0.1}},
            "training": {"context": 16, "batch_tokens": 64, "max_steps": 4, "quiet": True},
            "sampling": {"every": every, "tokens": 4},
            "output": {"root": str(tmp_path), "name": name},
        }
        record = train(build(TextRunConfig, values)).record
        hashes.add((result_hash(record), weights(tmp_path / name)))
    assert len(hashes) == 1


def test_the_hash_of_the_code_is_that_of_what_trains(tmp_path):
    for name in ("training/a.py", "evaluation/b.py", "cli/c.py", "models/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    before = _hash_of_source(tmp_path)
    for name in ("evaluation/b.py", "cli/c.py", "models/notes.md"):
        (tmp_path / name).write_text("2")
    assert _hash_of_source(tmp_path) == before
    (tmp_path / "training/a.py").write_text("2")
    assert _hash_of_source(tmp_path) != before
    edited = _hash_of_source(tmp_path)
    (tmp_path / "training/a.py").rename(tmp_path / "training/z.py")
    assert _hash_of_source(tmp_path) != edited


def test_code_that_changed_in_the_middle_of_a_run_is_told(tmp_path):
    run = start_run(tmp_path, "a", kind="k", config=RunConfig())
    identity = run.record.identity.model_copy(update={"code": "older"})
    run.record = run.record.model_copy(update={"identity": identity})
    run.update(status="preparing")
    assert resume_run(run.directory, RunConfig()).record.identity.code == source_hash()
    run.update(status="running", resolved={"plan": {}})
    again = resume_run(run.directory, RunConfig())
    assert again.record.identity.code == f"older+{source_hash()}"
    again.update(status="running")
    twice = resume_run(run.directory, RunConfig())
    assert twice.record.identity.code == f"older+{source_hash()}"  # the same code is no third one
    run.finish({})
    assert resume_run(run.directory, RunConfig()).record.identity.code == "older"


def test_records_without_an_identity_are_read(tmp_path):
    run = start_run(tmp_path, "a", kind="k", config={})
    path = run.directory / "run.json"
    record = json.loads(path.read_text())
    del record["identity"], record["rule_sources"]
    path.write_text(json.dumps(record))
    old = read_run(run.directory)
    assert old.identity is None
    assert result_hash(old) == result_hash(read_run(run.directory))
    assert result_hash(old) != result_hash(run.record)  # which code it was is not known
