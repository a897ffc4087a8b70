"""Verbs of the registry: import, publish, look, verify, rename, remove, lineage; bad input."""

import pytest
import torch
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from domainformer.models.families import adapter_for
from domainformer.registry import Registry
from tokenizers import Tokenizer


@pytest.fixture(scope="module")
def downloaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("downloads") / "tiny-qwen"
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        bos_token_id=1,
        eos_token_id=2,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    words = Tokenizer(WordLevel({"to": 0, "be": 1, "<|endoftext|>": 2}, unk_token="to"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    return folder


@pytest.fixture
def root(invoke, downloaded, tmp_path):
    """A registry with one imported model."""
    outcome = invoke(
        "import-model", downloaded, "--name", "qwen", "--registry", tmp_path / "models"
    )
    assert outcome.code == 0, outcome.err
    assert f"next: domainformer models lineage qwen --registry {tmp_path}" in outcome.err
    assert "Qwen2ForCausalLM" in outcome.out
    return tmp_path / "models"


def fine_tune(adapter, folder):
    """Three steps, so that the weights are others."""
    ids = torch.tensor([[0, 1, 2, 0, 1, 2]])
    adapter.model.train()
    optimizer = torch.optim.AdamW(adapter.model.parameters(), lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        loss = adapter.forward(ids, labels=ids).loss
        loss.backward()
        optimizer.step()
    return adapter.save_checkpoint(folder, record={"metrics": {"loss": loss.item()}})


def test_import_fine_tune_twice_resume_lineage(invoke, root, tmp_path):
    registry = Registry(root)
    first = fine_tune(registry.load("qwen"), tmp_path / "first")
    assert invoke("models", "publish", first, "--registry", root).code == 0
    second = fine_tune(registry.load("first"), tmp_path / "second")
    # Taken up from the folder alone: the family and the parent are known.
    resumed = adapter_for(second)
    assert (type(resumed).__name__, resumed.parent["model_name"]) == ("QwenAdapter", "first")
    second = fine_tune(resumed, tmp_path / "resumed")
    published = invoke("models", "publish", second, "letters", "--registry", root, "--json").json
    assert published["fine_tuned_from"] == "first"
    assert published["metrics"]["loss"] < registry.resolve("first").metrics["loss"]
    tree = invoke("models", "lineage", "letters", "--registry", root)
    assert [line.split("  Qwen2")[0] for line in tree.out.splitlines()] == [
        "qwen",
        "└── first",
        "    └── letters",
    ]
    found = invoke("models", "lineage", "first", "--registry", root, "--json").json
    assert found["ancestors"] == ["qwen"]
    assert found["tree"]["children"][0]["children"][0]["model_name"] == "letters"


def test_list_show_rename_remove(invoke, root):
    where = ("--registry", root)
    listed = invoke("models", "list", *where)
    assert "qwen" in listed.out
    (entry,) = invoke("models", "list", *where, "--json").json
    assert invoke("models", "show", "qwen", *where, "--json").json == entry
    shown = invoke("models", "show", "qwen", *where).out
    assert entry["model_id"] in shown
    assert "model.safetensors" in shown
    assert invoke("models", "rename", "qwen", "base", *where).out == "base\n"
    assert invoke("models", "remove", "base", *where).code == 0
    empty = invoke("models", "list", *where)
    assert (empty.code, empty.out) == (0, "")
    assert "import-model" in empty.err


def test_verify_tells_and_exits_with_one(invoke, root):
    where = ("--registry", root)
    fine = invoke("models", "verify", *where)
    assert (fine.code, fine.out) == (0, "qwen: as registered\n")
    (root / "qwen" / "config.json").write_text("{}")
    damaged = invoke("models", "verify", "qwen", *where)
    assert damaged.code == 1
    assert "config.json has changed (sha256 " in damaged.out
    assert invoke("models", "verify", *where, "--json").code == 1


def test_publish_takes_what_is_said(invoke, root, downloaded):
    told = ("--license", "mit", "--metric", "eval_loss=1.91", "--registry", root, "--json")
    again = invoke("models", "publish", root / "qwen", "copy", *told).json
    assert (again["license"], again["metrics"]) == ("mit", {"eval_loss": 1.91})
    assert invoke("models", "publish", downloaded, "copy", *told).code == 2
    assert invoke("models", "publish", downloaded, "copy", *told, "--overwrite").code == 0


def test_bad_input_is_told(refused, root, downloaded, tmp_path):
    where = ("--registry", root)
    assert "did you mean 'qwen'?" in refused("models", "show", "qwne", *where)
    assert "there is a model 'qwen'" in refused(
        "import-model", downloaded, "--name", "qwen", *where
    )
    assert "there is no folder" in refused("import-model", "./nowhere", *where)
    assert "write NAME=NUMBER" in refused(
        "models", "publish", downloaded, "x", "--metric", "loss", *where
    )
    assert "no model is called 'none'" in refused(
        "models", "publish", downloaded, "x", "--from", "none", *where
    )
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text("{}")
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    assert "pickles, which are refused" in refused("import-model", tmp_path / "pickled", *where)
    (root / "registry.json").write_text("{")
    assert "registry.json is damaged" in refused("models", "list", *where)
