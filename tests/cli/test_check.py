"""The verb ``check``."""

from __future__ import annotations

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel


@pytest.fixture
def folder(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            n_embd=16, n_head=2, n_layer=1, vocab_size=60, n_positions=32,
            bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        GPT2LMHeadModel(config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_tier_1_as_a_table_and_as_json(invoke, folder):
    told = invoke("check", folder, "--json")
    assert told.code == 0, told
    assert told.json["is_causal_language_model"]
    assert told.json["counts"]["fail"] == 0
    [causality] = [one for one in told.json["results"] if one["name"] == "causality"]
    assert "changing token t leaves the logits before t untouched" in causality["reason"]
    plain = invoke("check", folder, "--only", "causality", "--only", "shapes")
    assert "causality" in plain.out
    assert "2 pass" in plain.out


def test_a_failed_check_is_exit_code_1(invoke, folder):
    model = GPT2LMHeadModel.from_pretrained(folder)
    model.lm_head.weight.data.fill_(1.0)
    model.save_pretrained(folder)
    told = invoke("check", folder, "--only", "weights")
    assert told.code == 1
    assert "a matrix of one number" in told.out
    assert "draw them" in told.out


def test_bad_input_is_refused(refused, tmp_path, folder):
    assert "there is no folder" in refused("check", tmp_path / "none")
    assert "no model was given" in refused("check")
    assert "not trusted" in refused("check", "--source", f"{tmp_path / 'x.py'}:Model")
    assert "no tier 7" in refused("check", folder, "--tier", 7)
    assert "did you mean 'shapes'" in refused("check", folder, "--only", "shape")
    assert "needs a tokenizer" in refused("check", folder, "--text", tmp_path / "text.txt")
