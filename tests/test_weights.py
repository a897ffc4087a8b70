"""Looking at files of weights: what counts, what is refused, what headers tell."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from domainformer.errors import RegistryError
from domainformer.weights import (
    INDEX_FILE,
    check_weights,
    parameter_count,
    read_header,
    read_model_config,
    weight_files,
)


@pytest.fixture
def weights(tmp_path):
    tensors = {"a": np.zeros((3, 4), "float32"), "b": np.zeros(5, "float16"), "c": np.float32(1)}
    tensors["c"] = np.asarray(tensors["c"])
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    return tmp_path / "model.safetensors"


def test_headers_tell_shapes_and_parameters(weights):
    assert {k: v["shape"] for k, v in read_header(weights).items()} == {
        "a": [3, 4],
        "b": [5],
        "c": [],
    }
    assert parameter_count(weights.parent, check_weights(weights.parent)) == 12 + 5 + 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: content[:5],
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[:8] + b"[" + content[9:],
        lambda content: b"",
    ],
)
def test_damaged_files_are_told(weights, damage):
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(RegistryError, match="no whole safetensors file"):
        check_weights(weights.parent)


def test_missing_shards_are_told(weights):
    names = {"a": "model.safetensors", "z": "model-00002.safetensors"}
    (weights.parent / INDEX_FILE).write_text(json.dumps({"weight_map": names}))
    with pytest.raises(RegistryError, match="weights are missing") as caught:
        check_weights(weights.parent)
    assert "model-00002.safetensors" in caught.value.why


def test_pickles_beside_safetensors_do_no_harm_and_alone_are_refused():
    assert weight_files(["model.safetensors", "pytorch_model.bin"], where="x") == (
        "model.safetensors",
    )
    for name in ("pytorch_model.bin", "model.pt", "flax_model.msgpack", "tf_model.h5", "a.CKPT"):
        with pytest.raises(RegistryError, match="pickles"):
            weight_files([name, "config.json"], where="x")
    for names in (["config.json"], ["optimizer.pt", "training_args.bin"], []):
        with pytest.raises(RegistryError, match="there are no weights"):
            weight_files(names, where="x")


def test_configurations_are_read_as_plain_data(tmp_path):
    with pytest.raises(RegistryError, match="there is no folder"):
        check_weights(tmp_path / "nowhere")
    with pytest.raises(RegistryError, match="is no model folder"):
        read_model_config(tmp_path)
    for content in ("[]", "{", ""):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(RegistryError, match=r"config\.json cannot be read"):
            read_model_config(tmp_path)
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert read_model_config(tmp_path) == {"a": 1}
