"""Publish, resolve, load, verify, rename, remove: what they do, and what they refuse."""

import json
import os

import pytest
import torch
from transformers import AutoModelForCausalLM

from domainformer.errors import RegistryError
from domainformer.registry import Registry

CARD = "---\nlicense: apache-2.0\nbase_model: {base}\n---\n# A model\n"


def test_an_entry_says_what_it_is_made_of(registry, downloaded):
    (downloaded / "README.md").write_text(CARD.format(base="Qwen/Tiny"))
    entry = registry.publish(downloaded, "qwen", metrics={"loss": 1.5}, rules=["sign"])
    assert registry.resolve("qwen") == entry
    assert registry.list() == (entry,)
    assert entry.architecture_type == "Qwen2ForCausalLM"
    assert entry.source == str(downloaded.resolve())
    assert (entry.license, entry.fine_tuned_from, entry.parent_id) == (
        "apache-2.0",
        "Qwen/Tiny",
        None,
    )
    assert (entry.metrics, entry.rules) == ({"loss": 1.5}, ("sign",))
    folder = registry.folder("qwen")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert entry.sizes.parameters == sum(p.numel() for p in model.parameters())
    assert entry.sizes.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert set(entry.files) == {path.name for path in folder.iterdir()}
    assert json.loads((registry.root / "registry.json").read_text())["models"]["qwen"] == (
        entry.model_dump(mode="json")
    )


def test_the_identity_is_of_the_content_alone(registry, plain):
    first = registry.publish(plain("a", 1), "one")
    again = registry.publish(plain("b", 1), "two")
    other = registry.publish(plain("c", 2), "three")
    assert first.model_id == again.model_id != other.model_id
    assert first.config_hash == other.config_hash


def test_pickles_code_and_hidden_files_stay_behind(registry, plain):
    folder = plain("a")
    for name in ("training_args.bin", "optimizer.pt", "modeling.py", ".secret", "LICENSE"):
        (folder / name).write_text("x")
    (folder / "checkpoint-5").mkdir()
    assert set(registry.publish(folder, "a").files) == {
        "LICENSE",
        "config.json",
        "model.safetensors",
    }


def test_links_are_followed_as_the_hubs_cache_has_them(registry, plain, tmp_path):
    folder = plain("a")
    blob = tmp_path / "blob"
    os.replace(folder / "model.safetensors", blob)
    (folder / "model.safetensors").symlink_to(blob)
    registry.publish(folder, "a", move=True)
    assert not (registry.folder("a") / "model.safetensors").is_symlink()
    assert blob.exists()


def test_a_folder_in_the_registry_is_entered_where_it_lies(registry, plain):
    folder = plain("a")
    registry.root.mkdir()
    folder.rename(registry.root / "a")
    with pytest.raises(RegistryError, match="lies in the registry, but is not registered"):
        registry.publish(plain("b", 2), "a")
    entry = registry.publish(registry.root / "a")
    assert entry.model_name == "a"
    assert registry.verify() == {"a": ()}


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "x" * 200])
def test_names_are_plain_folder_names(registry, plain, name):
    with pytest.raises(RegistryError, match="cannot name a model"):
        registry.publish(plain("a"), name)
    with pytest.raises(RegistryError):
        Registry(registry.root).rename("a", name)
    assert not list(registry.root.glob("*"))


def test_a_name_is_taken_once(registry, plain):
    registry.publish(plain("a"), "a")
    with pytest.raises(RegistryError, match="there is a model 'a' already"):
        registry.publish(plain("b", 2), "a")
    entry = registry.publish(plain("c", 3), "a", overwrite=True)
    assert registry.resolve("a") == entry
    assert registry.verify() == {"a": ()}


def test_what_others_descend_from_is_not_replaced(registry, plain):
    registry.publish(plain("a"), "a")
    registry.publish(plain("b", 2), "b", fine_tuned_from="a")
    with pytest.raises(RegistryError, match="'a' cannot be replaced") as caught:
        registry.publish(plain("c", 3), "a", overwrite=True)
    assert "b" in caught.value.why


def test_an_unknown_name_gives_the_nearest(registry, plain):
    with pytest.raises(RegistryError, match="the registry is empty"):
        registry.resolve("qwen")
    registry.publish(plain("a"), "qwen-tiny")
    for ask in (
        registry.resolve,
        registry.load,
        registry.lineage,
        registry.remove,
        registry.verify,
    ):
        with pytest.raises(RegistryError, match="no model is called 'qwen-tny'") as caught:
            ask("qwen-tny")
        assert caught.value.next_step == "did you mean 'qwen-tiny'?"
    with pytest.raises(RegistryError, match="did you mean 'qwen-tiny'"):
        registry.publish(plain("b", 2), "b", fine_tuned_from="qwen_tiny")
    assert [entry.model_name for entry in registry.list()] == ["qwen-tiny"]
    assert not (registry.root / "b").exists()


def test_no_model_is_its_own_parent(registry, plain):
    registry.publish(plain("a"), "a")
    with pytest.raises(RegistryError, match="cannot be the parent"):
        registry.publish(plain("b"), "b", fine_tuned_from="a")


def test_changed_files_are_named_and_not_loaded(registry, downloaded):
    registry.publish(downloaded, "qwen")
    weights = registry.folder("qwen") / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    (registry.folder("qwen") / "config.json").unlink()
    (registry.folder("qwen") / "adapter_config.json").write_text("{}")
    with pytest.raises(RegistryError, match="are not those that were registered") as caught:
        registry.load("qwen")
    problems = registry.verify("qwen")["qwen"]
    assert [line.split(" (")[0] for line in problems] == [
        "config.json is missing",
        "model.safetensors has changed",
        "adapter_config.json was added",
    ]
    assert all(line in caught.value.why for line in problems)


def test_a_changed_weight_would_load_unseen_without_the_check(registry, downloaded):
    """The twin: transformers itself takes the changed file without a word."""
    registry.publish(downloaded, "qwen")
    weights = registry.folder("qwen") / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    AutoModelForCausalLM.from_pretrained(registry.folder("qwen"))


def test_pickle_only_folders_are_refused(registry, plain):
    folder = plain("a")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(RegistryError, match="the weights are pickles, which are refused"):
        registry.publish(folder, "a")
    assert registry.list() == ()


def test_damaged_weights_are_refused(registry, plain):
    folder = plain("a")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RegistryError, match="no whole safetensors file"):
        registry.publish(folder, "a")


def test_a_rename_takes_folder_and_descendants_along(registry, plain):
    registry.publish(plain("a"), "a")
    registry.publish(plain("b", 2), "b", fine_tuned_from="a")
    registry.publish(plain("c", 3), "c", fine_tuned_from="b")
    with pytest.raises(RegistryError, match="there is a model 'b' already"):
        registry.rename("a", "b")
    renamed = registry.rename("a", "oldest")
    assert registry.resolve("oldest") == renamed
    assert registry.resolve("b").fine_tuned_from == "oldest"
    assert registry.lineage("c").ancestors == ("oldest", "b")
    assert registry.verify() == {"b": (), "c": (), "oldest": ()}


def test_a_parent_is_removed_by_force_alone(registry, plain):
    registry.publish(plain("a"), "a")
    registry.publish(plain("b", 2), "b", fine_tuned_from="a")
    with pytest.raises(RegistryError, match="'a' cannot be removed: other models descend from it"):
        registry.remove("a")
    assert registry.folder("a").is_dir()
    registry.remove("a", force=True)
    assert not (registry.root / "a").exists()
    lineage = registry.lineage("b")
    assert (lineage.ancestors, lineage.root.entry) == (("a",), None)
    # Another model under the old name is not the parent; the same one, again, is.
    registry.publish(plain("other", 9), "a")
    assert registry.lineage("b").root.entry is None
    registry.publish(plain("same"), "returned")
    assert registry.lineage("b").ancestors == ("returned",)


def test_nothing_is_left_of_what_failed(registry, plain, monkeypatch):
    from domainformer.registry import store

    registry.publish(plain("a"), "a")
    before = (registry.root / "registry.json").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("domainformer.registry.staging.shutil.copyfile", full)
        with pytest.raises(RegistryError, match="could not be copied"):
            registry.publish(plain("b", 2), "b")
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_text", full)
        with pytest.raises(OSError):
            registry.publish(plain("c", 3), "c")
    assert (registry.root / "registry.json").read_bytes() == before
    visible = {path.name for path in registry.root.iterdir() if not path.name.startswith(".")}
    assert visible == {"a", "registry.json", "registry.previous.json"}


def test_a_registry_from_elsewhere_stays_in_its_folder(registry, plain):
    registry.publish(plain("a"), "a")
    path = registry.root / "registry.json"
    path.write_text(path.read_text().replace('"config.json"', '"../../plain/a/config.json"'))
    with pytest.raises(RegistryError, match="the entry of 'a' is damaged") as caught:
        registry.verify()
    assert "no path inside" in caught.value.why


def test_loaded_models_compute_what_was_published(registry, downloaded):
    registry.publish(downloaded, "qwen")
    adapter = registry.load("qwen", dtype=torch.float64)
    ids = torch.tensor([adapter.tokenizer("abc")["input_ids"]])
    expected = AutoModelForCausalLM.from_pretrained(downloaded, dtype=torch.float64)(ids).logits
    assert torch.equal(adapter.forward(ids).logits, expected)
    assert adapter.parent == registry.resolve("qwen").reference
