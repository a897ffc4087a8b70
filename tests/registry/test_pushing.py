"""A model and its card go to the hub in one commit, and come back as they went."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from domainformer.errors import RegistryError
from domainformer.registry import Registry, model_card, push_to_hub

sys.path.insert(0, str(Path(__file__).parent))
import loopback

JOURNEY = """
import sys
from pathlib import Path
from domainformer.errors import RegistryError
from domainformer.pipelines import load_model
from domainformer.registry import push_to_hub

print(push_to_hub(sys.argv[1], "org/letters", license="mit", notes="For letters alone."))
first = load_model("org/letters", revision="v1")
again = load_model("org/letters")
print(first.folder.name, again.folder == first.folder, type(first).__name__)
try:
    load_model("org/nothing")
except RegistryError as error:
    print(error.what)
"""


@pytest.mark.integration
def test_there_and_back(saved_once, tmp_path):
    hub = loopback.Hub()
    leftover = saved_once / "qwen2" / "training_args.bin"
    leftover.write_bytes(b"a pickle")
    with loopback.serve(hub) as address:
        home = {"HF_HOME": str(tmp_path / "hf"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", JOURNEY, str(saved_once / "qwen2")],
            env={**os.environ, **home, "HF_ENDPOINT": address, "HF_TOKEN": "hf_x"}
            | {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    leftover.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    address, found, refused = done.stdout.splitlines()
    assert address == f"{hub.address}/org/letters/commit/{loopback.COMMIT}"
    assert found == f"org--letters@{loopback.COMMIT[:12]} True QwenAdapter"
    assert refused == "org/nothing cannot be fetched from the hub"
    files = hub.repositories["org/letters"]
    assert hub.private["org/letters"] is True
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(files)
    assert not [name for name in files if name.endswith((".bin", ".py"))]
    assert files["model.safetensors"] == (saved_once / "qwen2" / "model.safetensors").read_bytes()
    card = files["README.md"].decode()
    assert 'model="org/letters"' in card
    assert "For letters alone." in card
    # Fetched once: the second look-up finds the folder of the commit.
    assert sum(path.endswith("model.safetensors") for verb, path in hub.asked if verb == "GET") == 1


def test_a_card_tells_what_the_folder_tells(saved_once, registry):
    entry = registry.publish(saved_once / "gpt2", "letters", metrics={"nats": 1.25})
    card = model_card(registry.folder("letters"), license="mit")
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "transformers"
    assert head["pipeline_tag"] == "text-generation"
    assert head["license"] == "mit"
    assert f"| parameters | {entry.sizes.parameters:,} |" in card
    assert "# letters" in card


def test_a_registered_model_that_was_changed_is_not_sent(saved_once, registry):
    registry.publish(saved_once / "gpt2", "letters")
    (registry.folder("letters") / "config.json").write_text("{}")
    with pytest.raises(RegistryError, match="not as it was registered"):
        push_to_hub("letters", "org/letters", registry=registry)


def test_no_such_model(tmp_path):
    with pytest.raises(RegistryError):
        push_to_hub("nothing", "org/nothing", registry=Registry(tmp_path))
