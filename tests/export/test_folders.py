"""Each kind of model folder: what it reads is known, and what turns raw data into it travels."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

from domainformer.data import EventTable
from domainformer.data.tabular import TabularSchema
from domainformer.errors import ExportError
from domainformer.export import ExportedModel, export_model
from domainformer.export.preprocessing import carry, check_preprocessing
from domainformer.inference import FusionPredictor, embed, load_bundle, save_bundle
from domainformer.inference.fusion import FusionTarget, collate_fusion
from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
    JointFusionConfig,
    JointFusionModel,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

SCHEMA = DomainSchema(
    "shop",
    [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("price", "numerical_continuous", n_bins=4),
    ],
)
EVENTS = EventTable.of(
    pl.DataFrame(
        {
            "who": [1, 1, 1, 2, 3, 3],
            "day": [0, 1, 2, 0, 0, 1],
            "kind": ["tea", "cake", "tea", "jam", "jam", "tea"],
            "price": [2.0, 3.5, 1.0, 9.0, 9.5, 2.0],
        }
    ),
    entity="who",
    time="day",
)
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def tokenizer():
    return DomainTokenizer(SCHEMA).fit(EVENTS.frame)


def saved(folder, tokenizer, kind=DomainTransformerForCausalLM, **config):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(
            DomainTransformerConfig(
                vocab_size=tokenizer.vocab_size,
                max_position_embeddings=40,
                **SIZES,
                **config,
            )
        )
    save_bundle(folder, model.eval(), tokenizer, {"context": 20})
    return model


def histories(tokenizer):
    """Three histories as the model reads them."""
    from domainformer.data.dataset import DomainSequenceDataset
    from domainformer.models import Collator

    rows = DomainSequenceDataset(
        tokenizer.encode(EVENTS),
        context=20,
        packed=False,
        train_roles=None,
        shuffle=False,
    )
    batch = Collator(tokenizer.pad_id, packed=False)([rows[i] for i in range(len(rows))])
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.integration
def test_a_fusion_folder_scales_numbers_in_the_graph(tokenizer, tmp_path):
    """Quantile scaling, missing numbers, unknown categories, somebody without events: as ONNX."""
    draw = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "who": np.arange(60) % 4,
            "income": draw.lognormal(8, 2, 60),
            "age": draw.integers(20, 90, 60).astype(float),
            "region": draw.choice(["n", "s"], 60),
        }
    )
    tabular = TabularSchema.fit(frame, exclude=["who"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = JointFusionConfig(
            backbone=DomainTransformerConfig(
                vocab_size=tokenizer.vocab_size, max_position_embeddings=40, **SIZES
            ),
            n_numbers=2,
            category_sizes=tabular.sizes,
            scaling="quantile",
            n_quantiles=16,
        )
        model = JointFusionModel(config).eval()
    model.tabular.numbers.fit(tabular.encode(frame).numbers)
    targets = (FusionTarget("late", "binary", (0, 1)),)
    predictor = FusionPredictor(model, tabular, targets, "who", tokenizer, context=20)
    predictor.save(tmp_path / "fusion")

    export_model(tmp_path / "fusion", tmp_path / "out")
    run = ExportedModel(tmp_path / "out")
    assert [one["name"] for one in run.inputs][2:] == ["numbers", "codes"]
    assert run.facts["longest"] == 20
    assert "fusion.json" in run.facts["preprocessing"]

    raw = pl.DataFrame(
        {
            "who": [1, 2, 3, 99],
            "income": [None, 1e6, -5.0, float(frame["income"][0])],
            "age": [float("nan"), 50.0, None, 33.5],
            "region": ["n", "moon", None, "s"],
        }
    )
    inputs = predictor.inputs(raw, EVENTS)
    batch = collate_fusion([inputs[i] for i in range(4)], tokenizer.pad_id)
    assert bool(batch["numbers"].isnan().any())
    found = run(**batch)["logits"]
    np.testing.assert_allclose(
        1 / (1 + np.exp(-found[:, 0])),
        predictor.predict(raw, EVENTS)["late"],
        atol=1e-5,
    )


@pytest.mark.integration
def test_a_classification_bundle_in_eight_bits(tokenizer, tmp_path):
    """Its head is a linear layer, whose weights the quantiser turns round."""
    kind = DomainTransformerForSequenceClassification
    model = saved(tmp_path / "model", tokenizer, kind, num_labels=3)
    export_model(tmp_path / "model", tmp_path / "out", formats=["onnx-int8"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert "model.int8.onnx" in names
    assert "model.onnx" not in names
    inputs = histories(tokenizer)
    with torch.no_grad():
        expected = model(**inputs).logits
    found = ExportedModel(tmp_path / "out")(**inputs)["logits"]
    np.testing.assert_allclose(found, expected.numpy(), atol=0.1)


def test_the_embedding_of_a_bundle_is_what_embed_gives(tokenizer, tmp_path):
    saved(tmp_path / "run" / "model", tokenizer)
    (tmp_path / "run" / "run.json").write_text("{}")
    export_model(tmp_path / "run", tmp_path / "out", formats=["pt2"], what="embedding")
    found = ExportedModel(tmp_path / "out")(**histories(tokenizer))["embedding"]
    expected = embed(load_bundle(tmp_path / "run" / "model"), EVENTS)["embedding"].to_numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_pointer_that_copies_is_exported(tokenizer, tmp_path):
    model = saved(tmp_path / "model", tokenizer, copy_heads=2)
    report = export_model(tmp_path / "model", tmp_path / "out", formats=["pt2"])
    assert report.files[0].parity.within(1e-4)
    inputs = histories(tokenizer)
    with torch.no_grad():
        expected = model(**inputs).logits
    found = ExportedModel(tmp_path / "out")(**inputs)["logits"]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


def test_without_its_columns_a_fusion_folder_is_refused(tmp_path):
    JointFusionModel(JointFusionConfig(n_numbers=1)).save_pretrained(tmp_path / "model")
    with pytest.raises(ExportError, match=r"missing: fusion\.json"):
        export_model(tmp_path / "model", tmp_path / "out", formats=["pt2"])


def folder_of(model, path, **config):
    model.save_pretrained(path)
    (path / "tokenizer.json").write_text("{}")
    facts = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(facts | config))
    return path


def gpt2(kind=GPT2LMHeadModel, **config):
    sizes = {
        "n_layer": 1,
        "n_embd": 8,
        "n_head": 2,
        "vocab_size": 20,
        "n_positions": 16,
    }
    return kind(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0, **config))


def test_code_of_its_own_and_what_is_no_model_are_refused(tmp_path):
    for name in ("MyOwnModel", "set_seed", "GPT2Config"):
        folder = folder_of(gpt2(), tmp_path / name, architectures=[name])
        with pytest.raises(ExportError, match=f"transformers has no model {name}"):
            export_model(folder, tmp_path / "out", formats=["pt2"])


def test_a_model_that_cannot_be_called_is_told_as_that(tmp_path):
    """Without a padding id this one reads no batch of two rows."""
    with pytest.raises(ExportError, match=r"cannot be called with token ids[\s\S]*padding token"):
        export_model(gpt2(GPT2ForSequenceClassification), tmp_path / "out", formats=["pt2"])


def test_a_tokenizer_is_whole(tmp_path):
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(ExportError, match="lacks the preprocessing"):
        check_preprocessing(tmp_path)
    (tmp_path / "merges.txt").write_text("")
    check_preprocessing(tmp_path)


def test_weights_and_code_stay_where_they_are(tmp_path):
    folder, out = tmp_path / "model", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    left = (
        "model.safetensors",
        "pytorch_model.bin",
        "model.gguf",
        "modeling_own.py",
        "model.onnx",
    )
    taken = ["config.json", "merges.txt", "special.model", "tokenizer.json"]
    for name in (*left, *taken):
        (folder / name).write_text("x")
    assert carry(folder, out) == taken
    shutil.rmtree(folder)
    assert sorted(path.name for path in out.iterdir()) == taken
