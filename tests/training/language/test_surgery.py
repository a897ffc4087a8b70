"""The section ``surgery`` of a language model's run: what it does, resumed, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from domainformer.errors import ConfigError
from domainformer.training.checkpoints import newest_checkpoint
from domainformer.training.language import train
from domainformer.training.trainer import EventTrainer

FAST = (
    "training.max_steps=4",
    "training.save_every=2",
    "training.eval_every=4",
    "sampling.every=0",
)


class Interrupted(Exception):
    pass


def stopped_after(monkeypatch, step):
    original = EventTrainer._save_checkpoint

    def save_and_stop(self, *args, **kwargs):
        original(self, *args, **kwargs)
        if self.state.global_step >= step:
            raise Interrupted

    monkeypatch.setattr(EventTrainer, "_save_checkpoint", save_and_stop)


SECTIONS = {
    "unfreeze": ("surgery.unfreeze={every: 1}", "surgery.layer_decay=0.5"),
    "lora": ("surgery.lora={rank: 2, dropout: 0.1}",),
}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_resumed_run_is_bit_identical(config_for, tmp_path, monkeypatch, name):
    if name == "lora":
        pytest.importorskip("peft", reason="needs the extra peft", exc_type=ImportError)
    more = (*FAST, *SECTIONS[name], "model.overrides.dropout=0.1")
    straight = train(config_for(tmp_path, "straight", *more))
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        stopped_after(patch, 2)
        train(config_for(tmp_path, "resumed", *more))
    resumed = train(config_for(tmp_path, "resumed", *more, "training.resume=true"))
    one, other = (
        load_file(result.model_dir / "model.safetensors") for result in (straight, resumed)
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    # What is saved is a plain model, whatever it was trained through.
    assert not [key for key in one if "lora" in key]
    AutoModelForCausalLM.from_pretrained(straight.model_dir)


def test_what_is_frozen_stays_as_it_was(config_for, tmp_path):
    result = train(
        config_for(tmp_path, "run", *FAST, 'surgery.freeze=["*.layers.0", "re:embed_tokens"]')
    )
    state = torch.load(
        newest_checkpoint(result.run_dir / "checkpoints").path / "optimizer.pt", weights_only=True
    )
    model = AutoModelForCausalLM.from_pretrained(result.model_dir)
    learned = sum(
        ".layers.0." not in name and "embed_tokens" not in name
        for name, _ in model.named_parameters()
    )
    assert len(state["state"]) == learned < len(list(model.parameters()))


@pytest.mark.parametrize(
    ("section", "match"),
    [
        ('surgery.freeze=["*.layer.0"]', "matches no parameter"),
        ('surgery.freeze=["*"]', "nothing of the model would learn"),
        ("surgery.lora={targets: [q_prjo]}", "no linear layer 'q_prjo'"),
    ],
)
def test_what_cannot_be_done_is_told_before_the_training(config_for, tmp_path, section, match):
    with pytest.raises(ConfigError, match=match):
        train(config_for(tmp_path, "run", *FAST, section))


def test_lora_and_freezing_exclude_each_other(config_for, tmp_path):
    with pytest.raises(ConfigError, match="lora freezes the whole model"):
        config_for(tmp_path, "run", "surgery.lora={}", "surgery.unfreeze={every: 1}")
