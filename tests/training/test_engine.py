"""``pretrain`` from a table to a bundle, on simulated events, and taking a run up again."""

from __future__ import annotations

import json
import shutil
import signal

import pytest
import torch
import yaml

from domainformer.config import build
from domainformer.data.simulate import simulate
from domainformer.data.store import TokenStore
from domainformer.errors import CheckpointError, ConfigError, FingerprintError
from domainformer.inference import load_bundle
from domainformer.run import read_run
from domainformer.training import (
    EventTrainer,
    RunConfig,
    checkpoints,
    pretrain,
    read_metrics,
)
from domainformer.training.engine import substitution

SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "dropout": 0.1}


@pytest.fixture(scope="module")
def table():
    return simulate("finance", entities=40, events_per_entity=30, seed=1)


def config_for(root, name="run", **training):
    return build(
        RunConfig,
        {
            "data": {"entity": "client_id", "time": "timestamp", "label": "label"},
            "tokenizer": {"bpe_vocab_size": 300},
            "model": {"preset": "tiny", "overrides": SMALL},
            "training": {
                "context": 128,
                "max_steps": 12,
                "batch_tokens": 512,
                "learning_rate": 0.01,
                "eval_every": 4,
                "log_every": 2,
                "quiet": True,
                **training,
            },
            "output": {"root": str(root), "name": name},
        },
    )


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    return pretrain(config_for(root), table=table)


def weights_of(result):
    return load_bundle(result.model_dir).model.state_dict()


def test_the_run_folder_tells_everything(whole, table):
    record = read_run(whole.run_dir)
    assert (record.status, record.kind, record.rules) == ("finished", "pretrain", [])
    assert record.data_fingerprint == table.fingerprint()
    assert record.split["kind"] == whole.split["kind"] == "time"
    assert record.resolved["plan"]["steps"] == record.results["steps"] == 12
    assert (
        record.tokenizer_fingerprint
        == TokenStore.open(whole.run_dir / "store").tokenizer_fingerprint
    )
    names = {path.name for path in whole.run_dir.iterdir()}
    assert names == {
        *("run.json", "config.yaml", "schema.yaml", "metrics.jsonl"),
        *("tokenizer", "store", "checkpoints", "model"),
    }
    again = build(RunConfig, yaml.safe_load((whole.run_dir / "config.yaml").read_text()))
    assert again.hash() == record.config_hash


def test_the_model_learns_and_its_bundle_loads(whole):
    rows = read_metrics(whole.run_dir / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    evaluations = {row["step"]: row["eval_loss"] for row in rows if "eval_loss" in row}
    assert losses[-1] < losses[0] - 0.3
    assert list(evaluations) == [4, 8, 12]
    assert whole.metrics["eval_loss"] == pytest.approx(min(evaluations.values()))
    assert set(rows[0]) >= {"step", "tokens", "loss", "lr", "tokens_per_second", "grad_norm"}
    bundle = load_bundle(whole.model_dir)
    assert bundle.context == 128
    assert bundle.record["run"] == whole.record.id
    assert bundle.model.config.use_cache is True


def test_tokens_are_counted_once(whole):
    tokens = read_metrics(whole.run_dir / "metrics.jsonl")[-1]["tokens"]
    assert tokens == whole.metrics["tokens"]
    plan = whole.record.resolved["plan"]
    places = plan["steps"] * plan["rows"] * plan["accumulation"] * 128
    assert 0.8 * places < tokens <= places


def test_the_same_configuration_gives_the_same_weights(whole, table, tmp_path):
    torch.rand(3)
    again = pretrain(config_for(tmp_path), table=table)
    left, right = weights_of(whole), weights_of(again)
    assert all(torch.equal(left[name], right[name]) for name in left)


def killed_copy(whole, root, *, at=8):
    """The run folder as a kill after the checkpoint of step 8 would have left it."""
    run = root / "run"
    shutil.copytree(whole.run_dir, run)
    shutil.rmtree(run / "model")
    for step, path in checkpoints.find_checkpoints(run / "checkpoints"):
        if step > at:
            shutil.rmtree(path)
    record = json.loads((run / "run.json").read_text())
    record |= {"status": "running", "results": None, "finished": None}
    (run / "run.json").write_text(json.dumps(record))
    return run


def test_a_killed_run_is_taken_up_again_without_its_table(whole, tmp_path):
    run = killed_copy(whole, tmp_path)
    with (run / "metrics.jsonl").open("a") as handle:
        handle.write('{"step": 12, "lo')
    resumed = pretrain(config_for(tmp_path, resume=True))
    left, right = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert resumed.record.resumed == [8]
    kept = [(row["step"], row.get("loss")) for row in read_metrics(run / "metrics.jsonl")]
    whole_rows = read_metrics(whole.run_dir / "metrics.jsonl")
    assert kept == [(row["step"], row.get("loss")) for row in whole_rows]


def test_resuming_a_finished_run_changes_nothing(whole):
    root = whole.run_dir.parent
    before = (whole.model_dir / "manifest.json").read_bytes()
    again = pretrain(config_for(root, resume=True))
    assert again.metrics == whole.metrics
    assert (whole.model_dir / "manifest.json").read_bytes() == before


def test_resuming_with_other_settings_is_refused(whole, tmp_path):
    killed_copy(whole, tmp_path)
    with pytest.raises(ConfigError, match=r"training.learning_rate: 0.01 then, 0.02 now"):
        pretrain(config_for(tmp_path, resume=True, learning_rate=0.02))


def test_a_damaged_checkpoint_is_passed_over_and_named(whole, tmp_path):
    run = killed_copy(whole, tmp_path)
    path = checkpoints.checkpoint_path(run / "checkpoints", 8) / checkpoints.OPTIMIZER
    path.write_bytes(path.read_bytes()[:-100])
    # Step 4 was pruned or not, depending on what was best; make sure that it is there.
    if not checkpoints.checkpoint_path(run / "checkpoints", 4).exists():
        with pytest.raises(CheckpointError, match="no checkpoint in"):
            pretrain(config_for(tmp_path, resume=True))
        return
    with pytest.warns(UserWarning, match="passed over checkpoint-00000008"):
        resumed = pretrain(config_for(tmp_path, resume=True))
    assert resumed.record.resumed == [4]


def test_parts_of_another_run_are_refused(whole, tmp_path):
    run = killed_copy(whole, tmp_path)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"tokenizer_fingerprint": "0" * 16}))
    with pytest.raises(FingerprintError, match="not made for each other"):
        pretrain(config_for(tmp_path, resume=True))
    assert read_run(run).status == "failed"


def test_a_run_folder_is_not_overwritten(whole):
    with pytest.raises(ConfigError, match="exists already"):
        pretrain(config_for(whole.run_dir.parent))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"preset": "tinny"}, "did you mean 'tiny'"),
        ({"overrides": {"hiden_size": 8}}, "hiden_size"),
        ({"overrides": {"num_attention_heads": 7}}, "cannot be built"),
    ],
)
def test_a_wrong_model_is_an_error_that_helps(table, tmp_path, model, message):
    config = config_for(tmp_path)
    values = config.model_dump() | {"model": model}
    with pytest.raises(ConfigError, match=message):
        pretrain(build(RunConfig, values), table=table)


def test_a_label_among_the_fields_is_refused(table, tmp_path):
    config = config_for(tmp_path)
    values = config.model_dump() | {"schema": "finance"}
    values["data"]["label"] = "amount"
    with pytest.raises(ConfigError, match="the label 'amount' is a field"):
        pretrain(build(RunConfig, values), table=table)


def test_a_stopped_run_has_a_checkpoint_and_continues(whole, table, tmp_path, monkeypatch):
    """The first SIGINT lets the step end and saves."""
    original = EventTrainer.training_step

    def interrupt(self, *args, **kwargs):
        if self.state.global_step == 5:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(EventTrainer, "training_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pretrain(config_for(tmp_path), table=table)
    assert read_run(tmp_path / "run").status == "interrupted"
    monkeypatch.setattr(EventTrainer, "training_step", original)
    resumed = pretrain(config_for(tmp_path, resume=True))
    assert resumed.record.resumed == [6]
    left, right = weights_of(whole), weights_of(resumed)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_no_table_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="names no table"):
        pretrain(config_for(tmp_path))
    record = read_run(tmp_path / "run")
    assert record.status == "failed"
    assert "names no table" in record.error
    with pytest.raises(ConfigError, match="names no table"):  # not: exists already
        pretrain(config_for(tmp_path))


def test_an_unpacked_run_with_tokens_as_its_length(table, tmp_path):
    config = config_for(tmp_path, packed=False, max_steps=None, max_tokens=3000)
    result = pretrain(config, table=table)
    assert 3000 <= result.metrics["tokens"] < 4500


def test_substitution_knows_the_values_of_categorical_fields_alone(whole):
    tokenizer = load_bundle(whole.model_dir).tokenizer
    made = substitution(tokenizer, 0.1)
    assert substitution(tokenizer, 0.0) is None
    swapped = {tokenizer.vocab[i] for group in made.groups for i in group.values + group.absent}
    fields = ("[CATEGORY", "[CHANNEL", "[DESCRIPTION")
    known = {token for token in tokenizer.vocab if token.startswith(fields)}
    assert {"[CATEGORY_UNK]", "[CHANNEL_MISSING]"} < known
    assert swapped == known


def test_substitution_changes_the_training_and_is_part_of_the_run(table, whole, tmp_path):
    result = pretrain(config_for(tmp_path, max_steps=2, substitute_values=0.5), table=table)
    plain = pretrain(config_for(tmp_path, "plain", max_steps=2), table=table)
    assert result.record.config["training"]["substitute_values"] == 0.5
    assert result.metrics["eval_loss"] != plain.metrics["eval_loss"]
