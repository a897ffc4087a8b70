"""Checkpoints: whole or absent, verified, stepped back over when damaged, never guessed."""

from __future__ import annotations

import errno
import os
import pickle
import random
import shutil

import numpy as np
import pytest
import torch

from domainformer.artifacts import MANIFEST
from domainformer.errors import CheckpointError
from domainformer.training import checkpoints
from domainformer.training.optimizer import adamw, make_schedule


@pytest.fixture
def parts(standin):
    model = standin.make_model()
    optimizer = adamw(model, learning_rate=0.01, weight_decay=0.1)
    scheduler = make_schedule(optimizer, steps=10, warmup_ratio=0.1)
    ids = torch.arange(24).reshape(2, 12)
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    scheduler.step()
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler}


@pytest.fixture
def save(parts, tmp_path):
    def save(step, root=tmp_path):
        return checkpoints.save_checkpoint(
            root, step=step, state={"global_step": step}, position={"seed": 0}, **parts
        )

    return save


def test_every_state_comes_back_exactly(save, parts, standin):
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    path = save(3)
    drawn = torch.rand(2), random.random(), np.random.rand()  # noqa: NPY002
    checkpoint = checkpoints.open_checkpoint(path)
    assert (checkpoint.step, checkpoint.position) == (3, {"seed": 0})

    model = standin.make_model(seed=9)
    optimizer = adamw(model, learning_rate=0.5, weight_decay=0.1)
    scheduler = make_schedule(optimizer, steps=10, warmup_ratio=0.1)
    checkpoints.load_weights(path, model)
    checkpoints.load_training_state(path, optimizer, scheduler)
    checkpoints.load_rng(path)
    assert standin.same_weights(standin.weights(model), standin.weights(parts["model"]))
    for old, new in zip(parts["optimizer"].param_groups, optimizer.param_groups, strict=True):
        for a, b in zip(old["params"], new["params"], strict=True):
            before, after = parts["optimizer"].state[a], optimizer.state[b]
            assert all(torch.equal(before[key], after[key]) for key in before)
    assert scheduler.get_last_lr() == parts["scheduler"].get_last_lr()
    again = torch.rand(2), random.random(), np.random.rand()  # noqa: NPY002
    assert torch.equal(drawn[0], again[0])
    assert drawn[1:] == again[1:]


def test_weights_load_with_transformers(save, parts, standin):
    loaded = standin.StandinForCausalLM.from_pretrained(save(1))
    assert standin.same_weights(standin.weights(loaded), standin.weights(parts["model"]))


def test_the_newest_is_taken(save, tmp_path):
    for step in (2, 10, 9):
        save(step)
    assert checkpoints.newest_checkpoint(tmp_path).step == 10
    assert [step for step, _ in checkpoints.find_checkpoints(tmp_path)] == [10, 9, 2]


def test_no_checkpoint_at_all_is_no_error(tmp_path):
    assert checkpoints.newest_checkpoint(tmp_path) is None
    assert checkpoints.newest_checkpoint(tmp_path / "missing") is None


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("piece", checkpoints.PIECES)
@pytest.mark.parametrize("damage", [os.unlink, truncate, flip])
def test_a_damaged_piece_is_stepped_over_and_named(save, tmp_path, piece, damage):
    save(1)
    damage(save(2) / piece)
    with pytest.warns(UserWarning, match="passed over checkpoint-00000002") as caught:
        assert checkpoints.newest_checkpoint(tmp_path).step == 1
    assert len(caught) == 1
    shutil.rmtree(checkpoints.checkpoint_path(tmp_path, 1))
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        checkpoints.newest_checkpoint(tmp_path)


@pytest.mark.parametrize("piece", checkpoints.PIECES)
def test_a_checkpoint_written_without_a_piece_is_not_complete(save, tmp_path, piece):
    """A manifest that never listed the piece verifies, and must not be enough."""
    import json

    path = save(2)
    (path / piece).unlink()
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["files"][piece]
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=f"lacks {piece}"):
        checkpoints.newest_checkpoint(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": {}}', '{"files": 3, "meta": {}}'])
def test_a_damaged_manifest_is_a_checkpoint_error(save, content):
    path = save(2)
    (path / MANIFEST).write_text(content)
    with pytest.raises(CheckpointError):
        checkpoints.open_checkpoint(path)


def test_left_overs_of_a_killed_writer_do_not_count_and_go(save, tmp_path):
    save(1)
    left_over = tmp_path / "checkpoint-00000002.staging-999999999"
    shutil.copytree(checkpoints.checkpoint_path(tmp_path, 1), left_over)
    assert checkpoints.newest_checkpoint(tmp_path).step == 1
    checkpoints.prune_checkpoints(tmp_path, keep=5)
    assert not left_over.exists()


def test_pruning_keeps_the_newest_and_the_best(save, tmp_path):
    for step in range(1, 7):
        save(step)
    checkpoints.prune_checkpoints(tmp_path, keep=2, spare=(2,))
    assert [step for step, _ in checkpoints.find_checkpoints(tmp_path)] == [6, 5, 2]


def test_a_full_disk_leaves_the_older_checkpoints(save, tmp_path, monkeypatch):
    save(1)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="step 2 could not be written") as caught:
        save(2)
    assert "free some space" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001"]


class Boom:
    def __reduce__(self):
        return os.system, ("touch /tmp/domainformer-must-not-exist",)


@pytest.mark.parametrize("piece", [checkpoints.OPTIMIZER, checkpoints.RNG])
def test_a_pickle_with_code_is_refused(save, parts, piece):
    path = save(1)
    (path / piece).write_bytes(pickle.dumps(Boom()))
    with pytest.raises(CheckpointError, match="cannot be read"):
        checkpoints.load_training_state(path, parts["optimizer"], parts["scheduler"])
        checkpoints.load_rng(path)
    assert not os.path.exists("/tmp/domainformer-must-not-exist")


def test_weights_of_another_architecture_are_refused(save, standin):
    path = save(1)
    with pytest.raises(CheckpointError, match="do not fit the model"):
        checkpoints.load_weights(path, standin.make_model(width=8))
    with pytest.raises(CheckpointError, match="do not fit the model"):
        checkpoints.load_weights(path, standin.make_model(layers=2))
