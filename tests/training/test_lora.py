"""LoRA: what is trained, what is merged, and what is said where it cannot be done."""

from __future__ import annotations

import sys

import pytest
import torch

from domainformer.config import build
from domainformer.data import EventTable
from domainformer.errors import ConfigError, MissingExtraError
from domainformer.inference import load_bundle, save_bundle
from domainformer.inference.embed import embed
from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer
from domainformer.training import FinetuneConfig, finetune
from domainformer.training.lora import LoraConfig, add_lora, merge_lora

peft = pytest.importorskip("peft", reason="needs the extra peft", exc_type=ImportError)

SIZES = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
    "max_position_embeddings": 16,
}  # fmt: skip
FAST = [
    "training.epochs=4", "training.batch_tokens=128", "training.quiet=true",
    "training.learning_rate=0.03", "lora.rank=4",
]  # fmt: skip


def make_classifier():
    torch.manual_seed(0)
    config = DomainTransformerConfig.preset("tiny", vocab_size=20, num_labels=2, **SIZES)
    return DomainTransformerForSequenceClassification(config).eval()


def test_only_the_additions_and_the_head_are_trained():
    model = make_classifier()
    before = model(torch.tensor([[1, 5, 7]])).logits
    add_lora(model, LoraConfig(rank=2))
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained
    assert all("lora_" in name or name.startswith("score") for name in trained)
    assert any(name.startswith("score") for name in trained)
    # B is zero at first, so nothing has changed yet.
    torch.testing.assert_close(model(torch.tensor([[1, 5, 7]])).logits, before)


def test_merging_leaves_a_plain_model_with_the_same_answers():
    model = make_classifier()
    names = set(model.state_dict())
    plain = {name: value.clone() for name, value in model.state_dict().items()}
    add_lora(model, LoraConfig(rank=2))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_()
    ids = torch.tensor([[1, 5, 7]])
    before = model(ids).logits
    merge_lora(model)
    torch.testing.assert_close(model(ids).logits, before, atol=1e-5, rtol=1e-4)
    assert set(model.state_dict()) == names
    assert any(not torch.equal(plain[name], value) for name, value in model.state_dict().items())


def test_targets_choose_the_layers():
    model = make_classifier()
    known = {n.rpartition(".")[2] for n, m in model.model.named_modules()
             if isinstance(m, torch.nn.Linear)}  # fmt: skip
    one = sorted(known)[0]
    add_lora(model, LoraConfig(targets=(one,)))
    added = [n for n, w in model.named_parameters() if "lora_" in n]
    assert added
    assert all(f".{one}.lora_" in name for name in added)
    with pytest.raises(ConfigError, match="no linear layer 'nothing_such'"):
        add_lora(make_classifier(), LoraConfig(targets=("nothing_such",)))


@pytest.fixture(scope="module")
def table():
    import numpy as np
    import polars as pl

    generator = np.random.default_rng(0)
    rows = []
    for entity in range(160):
        kinds = generator.permutation(["a", "a", "b", "b"])
        rows += [(entity, i, str(kind), "AB"[kinds[-1] == "b"]) for i, kind in enumerate(kinds)]
    frame = pl.DataFrame(rows, schema=["who", "day", "kind", "last"], orient="row")
    return EventTable.of(frame, entity="who", time="day")


@pytest.fixture(scope="module")
def pretrained(table, tmp_path_factory):
    tokenizer = DomainTokenizer(DomainSchema("kinds", [FieldSpec("kind", "categorical_fixed")]))
    tokenizer.fit(table)
    torch.manual_seed(0)
    config = DomainTransformerConfig.preset("tiny", vocab_size=tokenizer.vocab_size, **SIZES)
    folder = tmp_path_factory.mktemp("pretrained") / "model"
    model = DomainTransformerForCausalLM(config)
    return save_bundle(folder, model, tokenizer, {"context": 16, "run": "base"})


def test_a_task_is_learned_and_the_bundle_loads_embeds_and_resumes(pretrained, table, tmp_path):
    result = finetune(
        pretrained, table, "last", mode="lora", output=tmp_path / "run", overrides=FAST
    )
    assert result.metrics["test_auroc"] > 0.9
    bundle = load_bundle(result.model_dir)
    assert not [name for name in bundle.model.state_dict() if "lora" in name]
    frozen = load_bundle(pretrained).model.model.embed_tokens.weight
    assert torch.equal(bundle.model.model.embed_tokens.weight, frozen)
    assert embed(bundle, table).height == table.n_entities
    again = finetune(
        pretrained, table, "last", mode="lora", output=tmp_path / "run",
        overrides=[*FAST, "training.resume=true"],
    )  # fmt: skip
    assert again.metrics == result.metrics


def test_without_peft_the_extra_is_named(pretrained, table, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match="LoRA needs peft"):
        finetune(pretrained, table, "last", mode="lora", output=tmp_path / "run", overrides=FAST)


def test_wrong_settings_are_told():
    values = {"model": "m", "label": "l", "mode": "lora"}
    with pytest.raises(ConfigError, match=r"lora.rank"):
        build(FinetuneConfig, {**values, "lora": {"rank": 0}})
    with pytest.raises(ConfigError, match="objectives belong to pretraining"):
        build(FinetuneConfig, {**values, "training": {"objectives": {"contrastive": 1.0}}})
    with pytest.raises(ConfigError, match="objectives belong to pretraining"):
        build(FinetuneConfig, {**values, "training": {"horizon": {"within": "3d"}}})
