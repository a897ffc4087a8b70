"""Descent: what folders of our own training and of Hugging Face say of their parents."""

import io
import json

import polars as pl
import pytest
import torch
from rich.console import Console

from domainformer.errors import RegistryError
from domainformer.inference import load_bundle, save_bundle
from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
)
from domainformer.run import start_run
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer


def drawn(lineage):
    console = Console(width=200, file=io.StringIO())
    console.print(lineage.render())
    return console.file.getvalue()


def test_the_tree_shows_the_whole_family_and_marks_one(registry, plain):
    registry.publish(plain("a"), "a")
    registry.publish(plain("b", 2), "b", fine_tuned_from="a", rules=["sign", "clip"])
    registry.publish(plain("c", 3), "c", fine_tuned_from="b")
    registry.publish(plain("d", 4), "d", fine_tuned_from="a")
    registry.publish(plain("e", 5), "e")
    lineage = registry.lineage("b")
    assert lineage.ancestors == ("a",)
    assert [node.name for node in lineage.root.walk()] == ["a", "b", "c", "d"]
    lines = drawn(lineage).splitlines()
    assert [line.split("  GPT2")[0] for line in lines] == ["a", "├── b", "│   └── c", "└── d"]
    assert [line.rstrip().endswith("◀") for line in lines] == [False, True, False, False]
    assert "sign, clip" in lines[1]
    tree = lineage.to_json()["tree"]
    assert [child["model_name"] for child in tree["children"]] == ["b", "d"]
    assert registry.lineage("e").ancestors == ()


def test_the_card_names_a_parent_by_its_repository(registry, plain):
    card = "---\nlicense: mit\nbase_model:\n- org/base\n---\n"
    registry.publish(plain("tuned", 2, card=card), "tuned")
    assert registry.lineage("tuned").root.entry is None
    assert drawn(registry.lineage("tuned")).startswith("org/base (not registered)")
    registry.publish(plain("base", 1), "base", source="org/base", license="apache-2.0")
    assert registry.lineage("tuned").ancestors == ("base",)
    later = registry.publish(plain("other", 3, card="---\nbase_model: org/base\n---\n"), "other")
    assert (later.fine_tuned_from, later.license) == ("base", "apache-2.0")
    assert later.parent_id == registry.resolve("base").model_id


@pytest.mark.parametrize(
    "card", ["---\n: : [\n---\n", "no metadata", "---\n- a\n---\n", "---\nx: &a 1\n"]
)
def test_a_card_that_cannot_be_read_says_nothing(registry, plain, card):
    entry = registry.publish(plain("a", card=card), "a")
    assert (entry.license, entry.fine_tuned_from) == (None, None)


def test_a_note_finds_its_parent_by_content(registry, plain):
    base = registry.publish(plain("base"), "base")
    registry.rename("base", "renamed")
    noted = plain("tuned", 2, parent=base.reference, record={"metrics": {"loss": 1.0}})
    entry = registry.publish(noted, "tuned")
    assert (entry.fine_tuned_from, entry.parent_id) == ("renamed", base.model_id)
    assert entry.metrics == {"loss": 1.0}
    elsewhere = {"model_name": "far", "model_id": "0123456789abcdef"}
    entry = registry.publish(plain("other", 3, parent=elsewhere), "other")
    assert registry.lineage("other").ancestors == ("far",)
    assert entry.parent_id == elsewhere["model_id"]


def test_fine_tuning_twice_makes_a_chain(registry, downloaded, tmp_path):
    registry.publish(downloaded, "qwen", license="apache-2.0")
    for parent, name in (("qwen", "first"), ("first", "second")):
        adapter = registry.load(parent)
        with torch.no_grad():
            adapter.model.lm_head.weight.add_(0.01)
        folder = adapter.save_checkpoint(tmp_path / name, record={"metrics": {"loss": 1.0}})
        registry.publish(folder)
    assert registry.lineage("second").ancestors == ("qwen", "first")
    assert registry.resolve("second").license == "apache-2.0"
    # What was measured of a model is read with it, and not said of its children.
    adapter = registry.load("second")
    assert adapter.record == {"metrics": {"loss": 1.0}}
    assert registry.publish(adapter.save_checkpoint(tmp_path / "third")).metrics == {}
    assert registry.load("second").tokenizer("ab")["input_ids"] == [0, 1]


def test_a_descent_from_itself_is_told(registry, plain):
    registry.publish(plain("a"), "a")
    registry.publish(plain("b", 2), "b", fine_tuned_from="a")
    path = registry.root / "registry.json"
    content = json.loads(path.read_text())
    content["models"]["a"] |= {
        "fine_tuned_from": "b",
        "parent_id": content["models"]["b"]["model_id"],
    }
    path.write_text(json.dumps(content))
    with pytest.raises(RegistryError, match="descends from itself"):
        registry.lineage("b")


SCHEMA = DomainSchema("shop", [FieldSpec("kind", "categorical_fixed")])


@pytest.fixture(scope="module")
def tokenizer():
    return DomainTokenizer(SCHEMA).fit(pl.DataFrame({"kind": ["tea", "cake", "tea", "jam"]}))


def trained(tmp_path, name, tokenizer, cls, record):
    """A run folder as training leaves it, around a bundle."""
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    with start_run(tmp_path / "runs", name, kind="pretrain", config={"seed": 1}) as run:
        run.update(status="running", rules=["sign"])
        record = {"run": run.record.id, "context": 32, **record}
        save_bundle(run.directory / "model", cls(config), tokenizer, record)
        run.finish({"eval_loss": 2.5})
    return run


def test_bundles_of_our_training_name_the_run_they_came_from(registry, tokenizer, tmp_path):
    first = trained(tmp_path, "pretrained", tokenizer, DomainTransformerForCausalLM, {})
    second = trained(
        tmp_path,
        "finetuned",
        tokenizer,
        DomainTransformerForSequenceClassification,
        {"pretrained": first.record.id, "metrics": {"test_auroc": 0.75}},
    )
    entry = registry.publish(first.directory)
    assert (entry.model_name, entry.run) == ("pretrained", first.record.id)
    assert (entry.metrics, entry.rules) == ({"eval_loss": 2.5}, ("sign",))
    tuned = registry.publish(second.directory / "model", "tuned")
    assert (tuned.fine_tuned_from, tuned.metrics) == ("pretrained", {"test_auroc": 0.75})
    assert registry.lineage("tuned").ancestors == ("pretrained",)
    # The copies are bundles still, and open as any other family does.
    bundle = load_bundle(registry.folder("tuned"))
    adapter = registry.load("tuned")
    assert adapter.architecture == "DomainTransformerForSequenceClassification"
    ids = torch.tensor([[1, 5, 4, 6]])
    assert torch.equal(adapter.forward(ids).logits, bundle.model(ids).logits)
    # So is what the adapter saves, and it goes on naming where it came from.
    saved = load_bundle(registry.load("pretrained").save_checkpoint(tmp_path / "saved"))
    assert saved.record["pretrained"] == first.record.id
    assert "run" not in saved.record
    registry.publish(tmp_path / "saved")
    assert registry.lineage("saved").ancestors == ("pretrained",)


def test_a_parent_that_is_published_later_is_found(registry, tokenizer, tmp_path):
    first = trained(tmp_path, "first", tokenizer, DomainTransformerForCausalLM, {})
    record = {"pretrained": first.record.id}
    second = trained(tmp_path, "second", tokenizer, DomainTransformerForCausalLM, record)
    registry.publish(second.directory)
    assert registry.lineage("second").ancestors == (first.record.id,)
    registry.publish(first.directory)
    assert registry.lineage("second").ancestors == ("first",)


def test_a_damaged_bundle_is_not_published(registry, tokenizer, tmp_path):
    run = trained(tmp_path, "first", tokenizer, DomainTransformerForCausalLM, {})
    (run.directory / "model" / "schema.yaml").write_text("name: other\n")
    with pytest.raises(Exception, match="is damaged"):
        registry.publish(run.directory)
    assert registry.list() == ()
