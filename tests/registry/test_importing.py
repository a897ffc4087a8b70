"""import_model: from folders, and from a hub that a loopback server plays."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from domainformer.errors import RegistryError
from domainformer.registry import Registry, import_model

sys.path.insert(0, str(Path(__file__).parent))
from loopback import COMMIT, Hub, serve

FAMILIES = {
    "qwen2": "QwenAdapter",
    "qwen3": "QwenAdapter",
    "llama": "AutoModelAdapter",
    "gpt2": "AutoModelAdapter",
}

# huggingface_hub reads its address when it is imported, so each import runs in a process.
IMPORT = """
import json, sys
from domainformer.errors import RegistryError
from domainformer.registry import import_model
answers = []
for source, name, revision in json.loads(sys.argv[2]):
    try:
        entry = import_model(source, name, registry=sys.argv[1], revision=revision)
        answers.append(entry.model_dump(mode="json"))
    except RegistryError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def import_all(root, sources, home, **environment):
    """The entry, or the error, of each source."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, str(root), json.dumps(sources)],
        env={**kept, "HF_HOME": str(home), "HF_HUB_DISABLE_PROGRESS_BARS": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_of_each_family_comes_with_its_tokenizer(saved_once, tmp_path, family):
    entry = import_model(saved_once / family, registry=tmp_path / "models")
    assert (entry.model_name, entry.revision) == (family, None)
    adapter = Registry(tmp_path / "models").load(family)
    assert type(adapter).__name__ == FAMILIES[family]
    ids = adapter.tokenizer("hello")["input_ids"]
    assert ids == [7, 4, 11, 11, 14]
    expected = AutoModelForCausalLM.from_pretrained(saved_once / family)
    assert torch.equal(
        adapter.forward(torch.tensor([ids])).logits, expected(torch.tensor([ids])).logits
    )


@pytest.mark.parametrize("source", ["./nowhere", "/no/such/folder", "a/b/c", "../up"])
def test_what_is_neither_folder_nor_repository_is_told(tmp_path, source):
    with pytest.raises(RegistryError, match="there is no folder") as caught:
        import_model(source, registry=tmp_path / "models")
    assert "ORGANISATION/NAME" in caught.value.why
    assert not (tmp_path / "models").exists()


def test_a_folder_has_no_revision(downloaded, tmp_path):
    with pytest.raises(RegistryError, match="a folder has no revision"):
        import_model(downloaded, registry=tmp_path / "models", revision="main")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen22"}, "the model type 'qwen22' is not known"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "is no causal language model"),
        ({"model_type": "vit", "architectures": ["ViTModel"]}, "is no causal language model"),
        ({"model_type": "own", "auto_map": {"AutoConfig": "own.C"}}, "code of its own"),
    ],
)
def test_other_architectures_are_refused(downloaded, tmp_path, change, message):
    path = downloaded / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RegistryError, match=message):
        import_model(downloaded, registry=tmp_path / "models")
    assert Registry(tmp_path / "models").list() == ()


@pytest.fixture
def hub(saved_once):
    """A hub with a good repository, and others to be refused."""
    hub = Hub()
    good = {path.name: path.read_bytes() for path in (saved_once / "qwen2").iterdir()}
    good["README.md"] = b"---\nlicense: apache-2.0\nbase_model: org/older\n---\n"
    pickled = {**good, "pytorch_model.bin": b"\x80\x04"}
    hub.repositories = {
        "org/tiny": {
            **good,
            "pytorch_model.bin": b"\x80\x04",
            "training_args.bin": b"\x80\x04",
            "modeling.py": b"raise SystemExit",
            "onnx/model.onnx": b"x",
            ".gitattributes": b"x",
        },
        "org/pickled": {k: v for k, v in pickled.items() if k != "model.safetensors"},
        "org/damaged": dict(good),
        "org/torn": dict(good),
        "org/gated": dict(good),
    }
    hub.gated = {"org/gated"}
    hub.damaged = {("org/damaged", "model.safetensors"), ("org/torn", "config.json")}
    return hub


@pytest.mark.integration
def test_the_hub_gives_one_commit_and_nothing_unsafe(hub, tmp_path):
    sources = [
        ("org/tiny", "qwen", "v1"),
        ("org/tiny", "qwen", None),
        ("org/tiny", "again", "v2"),
        ("org/pickled", None, None),
        ("org/damaged", None, None),
        ("org/torn", None, None),
        ("org/gated", None, None),
        ("org/absent", None, None),
    ]
    with serve(hub) as address:
        entry, *refused = import_all(
            tmp_path / "models", sources, tmp_path / "home", HF_ENDPOINT=address
        )
    assert (entry["source"], entry["revision"]) == ("org/tiny", COMMIT)
    assert (entry["license"], entry["fine_tuned_from"]) == ("apache-2.0", "org/older")
    assert set(entry["files"]) == {
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    for message, expected in zip(
        refused,
        (
            "there is a model 'qwen' already",
            "it has no revision 'v2'",
            "the weights are pickles, which are refused",
            "model.safetensors arrived damaged",
            "config.json arrived damaged",
            "its owner asks for consent first",
            "the hub has no such repository",
        ),
        strict=True,
    ):
        assert expected in message
    fetched = {path.split("/")[-1] for command, path in hub.asked if "/resolve/" in path}
    assert fetched <= set(entry["files"])
    pinned = {
        path.split("/resolve/")[1].split("/")[0] for _, path in hub.asked if "/resolve/" in path
    }
    assert pinned == {COMMIT}
    registry = Registry(tmp_path / "models")
    assert registry.verify() == {"qwen": ()}
    assert registry.load("qwen").tokenizer("abc")["input_ids"] == [0, 1, 2]
    left = [path.name for path in registry.root.iterdir() if path.name != ".registry.lock"]
    assert sorted(left) == ["qwen", "registry.json"]


def test_a_hub_that_is_away_is_told(tmp_path):
    sources = [("org/tiny", None, None)]
    (offline,) = import_all(tmp_path / "models", sources, tmp_path / "home", HF_HUB_OFFLINE="1")
    assert "unset HF_HUB_OFFLINE, or import a local folder" in offline
    (silent,) = import_all(
        tmp_path / "models", sources, tmp_path / "home", HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert "cannot be fetched from the hub" in silent
    assert "check the connection" in silent
