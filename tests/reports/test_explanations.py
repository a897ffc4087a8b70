"""Explanations on a page: readable, escaped, and honest about what they are not."""

import json
import re

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data import EventTable
from domainformer.errors import ConfigError, InputError
from domainformer.inference import Bundle, embed, save_bundle
from domainformer.inference.attribution import DISCLAIMER
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.reports.explaining import explain_model, explain_run
from domainformer.reports.explanations import write_explanation
from domainformer.reports.sections.explanation import draw
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

EVIL = "<script>alert('x')</script>"
SCHEMA = DomainSchema(
    "s", [FieldSpec("amount", "numerical_continuous"), FieldSpec("kind", "categorical_fixed")]
)


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    n = 60
    label = np.arange(n) % 2
    kinds = np.where(np.repeat(label, 4) == 1, EVIL, "tea")
    frame = pl.DataFrame(
        {
            "who": np.repeat([f"{EVIL}{i}" for i in range(n)], 4),
            "at": np.tile(range(4), n),
            "kind": kinds,
            "amount": rng.normal(0, 1, 4 * n),
            "label": np.repeat(label, 4),
        }
    )
    return EventTable.of(frame, entity="who", time="at")


@pytest.fixture(scope="module")
def bundle(table):
    tokenizer = DomainTokenizer(SCHEMA).fit(table)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = DomainTransformerConfig.preset("tiny", vocab_size=tokenizer.vocab_size, **sizes)
    model = DomainTransformerForCausalLM(config).eval()
    return Bundle(model, tokenizer, SCHEMA, {"context": 64})


@pytest.fixture(scope="module")
def folder(bundle, tmp_path_factory):
    return save_bundle(
        tmp_path_factory.mktemp("saved") / "model", bundle.model, bundle.tokenizer, bundle.record
    )


def labels_of(table, shuffled=False):
    frame = table.frame.select("who", "label").unique(maintain_order=True)
    return frame.with_columns(pl.col("label").shuffle(1)) if shuffled else frame


def test_a_run_explains_a_head_that_knows_the_label(bundle, table, tmp_path):
    embeddings = embed(bundle, table)
    path = explain_run(
        tmp_path, bundle, table, labels=labels_of(table), embeddings=embeddings, seconds=0.5
    )
    told = json.loads(path.read_text())
    assert told["subject"] == "log-odds of label = 1"
    assert re.search(r"AUROC (0\.[89]|1\.)\d* on 18 others", told["model"])
    assert told["summary"]["fields"][0]["name"] == "kind"
    assert 2 <= told["n_examples"] <= 18
    assert told["permuted"][0]["worse"] is not None


@pytest.mark.parametrize("case", ["none", "shuffled", "regression"])
def test_a_run_without_a_label_worth_it_explains_the_next_event(bundle, table, tmp_path, case):
    embeddings = embed(bundle, table)
    labels = None if case == "none" else labels_of(table, shuffled=True)
    if case == "regression":
        labels = labels.with_columns(label=pl.int_range(pl.len()) / 7)
    path = explain_run(
        tmp_path, bundle, table, labels=labels, embeddings=embeddings, seconds=0.0, seed=3
    )
    told = json.loads(path.read_text())
    assert told["subject"].startswith("log-probability of the newest kind")
    assert told["n_examples"] == 2
    assert told["histories"][0]["choice"] in (EVIL, "tea")
    assert ("hardly tells label" in told["model"]) == (case == "shuffled")


def test_the_page_is_whole_escaped_and_says_what_it_is_not(folder, table, tmp_path):
    told, explanation = explain_model(folder, table, examples=6, steps=4, attention=True)
    path = write_explanation(tmp_path / "page.html", told, explanation)
    page = path.read_text()
    assert "<script" not in page
    assert "&lt;script" in page
    assert DISCLAIMER.split(":")[0].replace("'", "&#x27;") in page
    assert "Attention is not an explanation" in page
    assert len(re.findall("<svg", page)) == 2
    assert "rgba(37, 99, 235" in page
    assert "rgba(234, 88, 12" in page
    saved = write_explanation(tmp_path / "page.json", told, explanation)
    assert len(json.loads(saved.read_text())["explanation"]["examples"]) == 6
    with pytest.raises(ConfigError, match=r"FILE\.html or FILE\.json"):
        write_explanation(tmp_path / "page.pdf", told, explanation)


def test_without_importances_or_a_check_the_section_is_still_one(folder, table):
    told, _ = explain_model(folder, table, keys=[f"{EVIL}3"], method="occlusion")
    assert told["permuted"] is None
    assert "Checked by permutation" not in draw(told)
    assert "occlusion (each value is taken away in turn)" in draw(told | {"summary": None})


def test_options_that_do_not_belong_are_refused(folder, table):
    for options in ({"keys": ["nobody"]}, {"frame": pl.DataFrame()}, {"field": "x"}):
        with pytest.raises(InputError):
            explain_model(folder, table, **options)
