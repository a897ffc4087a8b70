"""The run's configuration: strict, readable from YAML, and of one meaning."""

from __future__ import annotations

import pytest

from domainformer.config import build, load_config, parse_yaml
from domainformer.errors import ConfigError
from domainformer.training.config import (
    MAY_DIFFER_ON_RESUME,
    RunConfig,
    TrainingConfig,
)
from domainformer.training.optimisation_config import parse_bytes


def test_defaults_are_complete_and_survive_yaml():
    config = RunConfig()
    assert config.training.epochs == 1.0
    assert build(RunConfig, parse_yaml(config.to_yaml())) == config


def test_files_and_overrides(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(
        "data: {path: cards.csv, entity: card}\n"
        "split: {kind: time, test_from: 2014-07-01}\n"
        "schema: finance\n"
    )
    config = load_config(RunConfig, path, ["training.max_steps=5", "model.preset=24m"])
    assert config.split.test_from == "2014-07-01"
    assert (config.schema, config.training.max_steps, config.model.preset) == ("finance", 5, "24m")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"epochs": 1, "max_steps": 3}}, "give one of"),
        ({"training": {"batch_tokens": 0}}, "at least 1, or auto"),
        ({"training": {"batch_tokens": "lots"}}, "training.batch_tokens"),
        ({"training": {"memory_budget": "4 potatoes"}}, "not a size"),
        ({"training": {"memory_budget": 0}}, "must be positive"),
        ({"training": {"warmup_ratio": 1.0}}, "less than 1"),
        ({"training": {"report_to": ["wandb"]}}, "tensorboard"),
        ({"training": {"resume": True}}, "output.name"),
        ({"training": {"sede": 1}}, "did you mean 'seed'"),
        ({"split": {"fractions": [0.5, 0.5, 0.5]}}, "sum to 1"),
        ({"split": {"kind": "entity", "test_from": 3}}, "belong to kind: time"),
        ({"tokenizer": {"bpe_vocab_size": 10}}, "256"),
    ],
)
def test_wrong_values_are_told(values, message):
    with pytest.raises(ConfigError, match=message):
        build(RunConfig, values)


def test_all_errors_are_told_at_once():
    with pytest.raises(ConfigError, match="2 errors"):
        build(RunConfig, {"training": {"sede": 1}, "modell": {}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1KB", 1000), ("1.5 GiB", 3 * 2**29), (7, 7), ("7", 7), ("2mib", 2**21)],
)
def test_sizes(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GiB", "-1KB", "1 GB more", "1TB"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError):
        parse_bytes(text)


def test_keys_that_may_differ_exist():
    config = RunConfig()
    for key in MAY_DIFFER_ON_RESUME:
        section, _, name = key.partition(".")
        assert name in type(getattr(config, section)).model_fields, key


def test_one_length_each():
    assert TrainingConfig(max_tokens=5).epochs is None
    assert TrainingConfig(epochs=2).max_steps is None
