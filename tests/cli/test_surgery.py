"""The verb ``surgery``."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel


@pytest.fixture
def folder(tmp_path):
    with torch.random.fork_rng(devices=[]):
        config = GPT2Config(
            n_embd=8, n_head=2, n_layer=3, vocab_size=12, n_positions=8,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_layers_rows_and_heads(invoke, folder, tmp_path):
    out = tmp_path / "out"
    told = invoke(
        "surgery", folder, "--drop-layers", "0,2", "--resize", 14, "--copy-of", "3,4",
        "--replace-head", "sequence-classification", "--labels", "no,yes", "--output", out,
        "--json",
    )  # fmt: skip
    assert told.code == 0, told
    assert told.json["architecture"] == ["GPT2LMHeadModel", "GPT2ForSequenceClassification"]
    assert told.json["layers"] == [{"transformer.h": 3}, {"transformer.h": 1}]
    assert told.json["operations"]["sources"] == [3, 4]
    plain = invoke("surgery", folder, "--duplicate-layers", "1", "--output", tmp_path / "more")
    assert "3 in transformer.h → 4 in transformer.h" in plain.out


def test_bad_input_is_refused(refused, folder, tmp_path):
    out = ("--output", tmp_path / "out")
    assert "nothing to do" in refused("surgery", folder, *out)
    assert "names no layers" in refused("surgery", folder, "--drop-layers", "x", *out)
    assert "no layer 7" in refused("surgery", folder, "--drop-layers", "7", *out)
    head = refused("surgery", folder, "--replace-head", "causal-ml", *out)
    assert "did you mean 'causal-lm'" in head
    assert not (tmp_path / "out").exists()
