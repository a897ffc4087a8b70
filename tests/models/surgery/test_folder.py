"""Surgery on folders: what is written loads, says what was done, and is whole or not there."""

from __future__ import annotations

import json

import pytest
import torch
from surgery_cases import IDS, VOCAB, logits, make
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from domainformer.artifacts import sha256_file
from domainformer.errors import ArtifactError, SurgeryError
from domainformer.models.surgery import (
    Operations,
    drop_layers,
    duplicate_layers,
    operate_on_folder,
    resize_embeddings,
)
from domainformer.models.surgery.folder import parsed_places

ALL = Operations(drop_layers=(0,), duplicate_layers=(-1,), resize=VOCAB + 2, init="zero")


@pytest.fixture
def saved(tmp_path):
    def save(kind):
        make(kind).save_pretrained(tmp_path / kind)
        (tmp_path / kind / "LICENSE").write_text("as it came")
        return tmp_path / kind

    return save


@pytest.mark.parametrize("kind", ["gpt2", "own"])
def test_the_folder_holds_what_the_operations_give(kind, saved, tmp_path):
    home = saved(kind)
    done = operate_on_folder(home, tmp_path / "out", ALL)
    model = resize_embeddings(make(kind), VOCAB + 2, init="zero")
    duplicate_layers(drop_layers(model, [0]), [-1])
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(again), logits(model))
    assert (tmp_path / "out" / "LICENSE").read_text() == "as it came"
    assert sum(done.layers[0].values()) == sum(done.layers[1].values()) == 3
    # It says where it comes from, and so does what is made of it in turn.
    operate_on_folder(tmp_path / "out", tmp_path / "next", Operations(drop_layers=(1,)))
    first, second = json.loads((tmp_path / "next" / "lineage.json").read_text())["record"][
        "surgery"
    ]
    assert first["operations"]["drop_layers"] == [0]
    name = "model.safetensors"
    assert first["from"]["weights"] == {name: sha256_file(home / name)}
    assert second["from"]["weights"] == {name: sha256_file(tmp_path / "out" / name)}


def test_an_encoder_becomes_a_classifier(saved, tmp_path):
    wanted = Operations(replace_head="sequence-classification", labels=("no", "yes"))
    done = operate_on_folder(saved("bert"), tmp_path / "out", wanted)
    assert done.architecture == ("BertForMaskedLM", "BertForSequenceClassification")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert model(IDS).logits.shape == (2, 2)
    assert model.config.id2label == {0: "no", 1: "yes"}


@pytest.mark.parametrize(
    ("wanted", "match"),
    [
        (Operations(), "nothing to do"),
        (Operations(drop_layers=(9,)), "no layer 9"),
        (Operations(labels=2, drop_layers=(0,)), "labels are of a new head"),
        (Operations(init="zero", drop_layers=(0,)), "are of resize"),
    ],
)
def test_what_cannot_be_done_writes_nothing(saved, tmp_path, wanted, match):
    home = saved("gpt2")
    with pytest.raises(SurgeryError, match=match):
        operate_on_folder(home, tmp_path / "out", wanted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpt2"]


def test_existing_folders_bundles_and_unknown_classes_are_refused(saved, tmp_path):
    home = saved("gpt2")
    with pytest.raises(ArtifactError, match="exists already"):
        operate_on_folder(home, home, ALL)
    (home / "domainformer.json").write_text("{}")
    with pytest.raises(SurgeryError, match="bundle of an event model"):
        operate_on_folder(home, tmp_path / "out", ALL)
    (home / "domainformer.json").unlink()
    config = json.loads((home / "config.json").read_text())
    (home / "config.json").write_text(json.dumps({**config, "architectures": ["MyModel"]}))
    with pytest.raises(SurgeryError, match="'MyModel' are not read from a folder"):
        operate_on_folder(home, tmp_path / "out", ALL)
    with pytest.raises(SurgeryError, match="names no layers"):
        parsed_places("two")
