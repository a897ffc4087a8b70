"""Fine-tuning on a task that only the order of events tells, full and head only."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data import EventTable
from domainformer.data.splits import split_by_entity, split_by_time
from domainformer.errors import ConfigError, DataError
from domainformer.inference import load_bundle, save_bundle
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.run import read_run
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer
from domainformer.training import EventTrainer, finetune


def ordered_events(entities=240, seed=0):
    """The class is the kind of the newest event; every entity has the same kinds as often."""
    generator = np.random.default_rng(seed)
    rows = []
    for entity in range(entities):
        kinds = generator.permutation(["a", "a", "b", "b"])
        rows += [(entity, i, str(kind), "AB"[kinds[-1] == "b"]) for i, kind in enumerate(kinds)]
    frame = pl.DataFrame(rows, schema=["who", "day", "kind", "last"], orient="row")
    return EventTable.of(frame, entity="who", time="day")


@pytest.fixture(scope="module")
def table():
    return ordered_events()


@pytest.fixture(scope="module")
def pretrained(table, tmp_path_factory):
    schema = DomainSchema("kinds", [FieldSpec("kind", "categorical_fixed")])
    tokenizer = DomainTokenizer(schema).fit(table)
    torch.manual_seed(0)
    config = DomainTransformerConfig.preset(
        "tiny", vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=16,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    model = DomainTransformerForCausalLM(config)
    return save_bundle(folder, model, tokenizer, {"context": 16, "run": "base"})


FAST = ["training.epochs=4", "training.batch_tokens=128", "training.quiet=true"]


@pytest.mark.parametrize("mode", ["full", "head"])
def test_it_learns_what_only_the_order_tells(pretrained, table, tmp_path, mode):
    overrides = [*FAST, "training.learning_rate=0.03"]
    result = finetune(
        pretrained, table, "last", mode=mode, output=tmp_path / "run", overrides=overrides
    )
    assert result.metrics["test_auroc"] > 0.95
    assert result.metrics["test_accuracy"] > result.metrics["test_majority_accuracy"]
    before = load_bundle(pretrained).model.model.state_dict()
    bundle = load_bundle(result.model_dir)
    after = bundle.model.model.state_dict()
    same = all(torch.equal(before[name], after[name]) for name in before)
    assert same == (mode == "head")
    assert bundle.record["task"] == {"label": "last", "classes": ["A", "B"]}
    assert bundle.record["pretrained"] == "base"
    assert bundle.model.config.id2label == {0: "A", 1: "B"}

    record = read_run(result.run_dir)
    assert (record.kind, record.status) == ("finetune", "finished")
    predictions = pl.read_parquet(result.run_dir / "predictions.parquet")
    assert predictions.height == record.split["entities"]["test"]
    truth = table.frame.select("who", "last").unique()
    joined = predictions.join(truth, on="who")
    assert (joined["label"] == joined["last"]).all()
    named = (joined["probability_B"] > 0.5) == (joined["label"] == "B")
    assert named.mean() == pytest.approx(result.metrics["test_accuracy"])


def test_shuffled_labels_teach_nothing(pretrained, table, tmp_path):
    """The twin of the test above: without a relation there is no score."""
    shuffled = np.random.default_rng(1).permutation(table.frame["last"].to_numpy()[::4])
    labels = pl.DataFrame({"who": table.entity_ids, "noise": shuffled})
    result = finetune(
        pretrained, table, "noise", label_table=labels, output=tmp_path / "run", overrides=FAST
    )
    assert 0.2 < result.metrics["test_auroc"] < 0.8


def test_the_split_of_pretraining_is_kept(pretrained, table, tmp_path):
    bundle = load_bundle(pretrained)
    split = split_by_entity(table, fractions=(0.6, 0.2, 0.2), seed=5)
    folder = save_bundle(
        tmp_path / "model", bundle.model, bundle.tokenizer, {**bundle.record, "split": split.record}
    )
    overrides = [*FAST[1:], "training.max_steps=1"]
    result = finetune(folder, table, "last", output=tmp_path / "run", overrides=overrides)
    assert result.split == split.record


def test_a_finetuning_is_taken_up_again(pretrained, table, tmp_path, monkeypatch):
    overrides = [*FAST, "training.eval_every=2"]
    whole = finetune(pretrained, table, "last", output=tmp_path / "whole", overrides=overrides)
    original = EventTrainer.training_step

    def fail(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise MemoryError
        return original(self, *args, **kwargs)

    monkeypatch.setattr(EventTrainer, "training_step", fail)
    with pytest.raises(MemoryError):
        finetune(pretrained, table, "last", output=tmp_path / "run", overrides=overrides)
    monkeypatch.setattr(EventTrainer, "training_step", original)
    overrides.append("training.resume=true")
    resumed = finetune(pretrained, table, "last", output=tmp_path / "run", overrides=overrides)
    assert resumed.record.resumed == [4]
    left = load_bundle(whole.model_dir).model.state_dict()
    right = load_bundle(resumed.model_dir).model.state_dict()
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_wrong_requests_are_told(pretrained, table, tmp_path):
    with pytest.raises(DataError, match="is a field of the model's schema"):
        finetune(pretrained, table, "kind", output=tmp_path / "a")
    with pytest.raises(ConfigError, match="needs a split of these entities"):
        finetune(pretrained, table, "last", split=split_by_time(table), output=tmp_path / "b")
    with pytest.raises(ConfigError, match="mode"):
        finetune(pretrained, table, "last", mode="heads", output=tmp_path / "c")
    with pytest.raises(ConfigError, match="training.epocs"):
        finetune(pretrained, table, "last", output=tmp_path / "d", overrides=["training.epocs=1"])
    assert list(tmp_path.iterdir()) == []
