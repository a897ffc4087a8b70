"""Tiny models of several families, as Hugging Face folders, and a registry to put them into."""

import json
import shutil

import pytest
import torch
from tokenizers.models import WordLevel
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from domainformer.registry import Registry
from tokenizers import Tokenizer, decoders, pre_tokenizers

VOCABULARY = {chr(97 + i): i for i in range(26)} | {"<|im_end|>": 26, "<|endoftext|>": 27}
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
IDS = {"vocab_size": 64, "bos_token_id": 27, "eos_token_id": 26, "max_position_embeddings": 48}


def letters():
    """A tokenizer of single letters, with Qwen's two ends."""
    tokenizer = Tokenizer(WordLevel(VOCABULARY, unk_token="z"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def build(family):
    torch.manual_seed(0)
    if family == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**SIZES, **IDS))
    if family == "qwen3":
        return Qwen3ForCausalLM(Qwen3Config(**SIZES, **IDS, head_dim=8))
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**SIZES, **IDS))
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 48}
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, bos_token_id=27, eos_token_id=26, **sizes))


@pytest.fixture(scope="session")
def saved_once(tmp_path_factory):
    """Each family saved once; tests that change a folder copy it."""
    root = tmp_path_factory.mktemp("saved")
    for family in ("qwen2", "qwen3", "llama", "gpt2"):
        build(family).save_pretrained(root / family)
        letters().save_pretrained(root / family)
    return root


@pytest.fixture
def downloaded(saved_once, tmp_path):
    """A folder of its own with a tiny Qwen2 in it."""
    shutil.copytree(saved_once / "qwen2", tmp_path / "downloaded")
    return tmp_path / "downloaded"


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "models", timeout=5)


@pytest.fixture
def plain(tmp_path):
    """Make folders that are models by their files alone: quick, each of other content."""

    def make(name, number=0, card=None, **lineage):
        folder = tmp_path / "plain" / name
        folder.mkdir(parents=True)
        write_plain(folder, number)
        if card is not None:
            (folder / "README.md").write_text(card)
        if lineage:
            (folder / "lineage.json").write_text(json.dumps({"format": 1, **lineage}))
        return folder

    return make


def write_plain(folder, number):
    header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    weights = len(text).to_bytes(8, "little") + text + number.to_bytes(4, "little")
    (folder / "model.safetensors").write_bytes(weights)
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    (folder / "config.json").write_text(json.dumps(config))
