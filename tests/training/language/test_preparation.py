"""What a text or a prompt that cannot be read is told, before the first step."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from domainformer.errors import InputError
from domainformer.models.families import adapter_for
from domainformer.registry import Registry
from domainformer.training.language import train


def test_a_character_that_training_lacks_is_placed_and_the_remedy_helps(config_for, tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("to be or not to be\n" * 19 + "to be\nZed or not to\n")
    path = f"data.path={text}"
    with pytest.raises(InputError) as told:
        train(config_for(tmp_path, "run", path, "data.unknown=replace"))
    message = str(told.value)
    assert "'Z' U+005A" in message
    assert "counted from character" in message
    assert "data.unknown" not in message, "it is about the policy, and would not help"
    assert "tokenizer.alphabet=ascii" in message
    assert train(config_for(tmp_path, "ascii", path, "tokenizer.alphabet=ascii")).metrics["nats"]


@pytest.mark.parametrize(
    ("prompt", "why"), [("'to Z'", "character 4, 'Z' U+005A"), ("''", "empty")]
)
def test_a_prompt_that_cannot_be_read_stops_a_run_before_training(
    config_for, tmp_path, prompt, why
):
    with pytest.raises(InputError, match="prompt") as told:
        train(config_for(tmp_path, "run", f"sampling.prompts=[{prompt}]"))
    assert why in str(told.value)
    assert "sampling.prompts" in str(told.value)
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_model_in_half_precision_is_trained_with_whole_weights(config_for, tmp_path):
    root = f"registry.root={tmp_path / 'models'}"
    first = train(config_for(tmp_path, "first"))
    half = adapter_for(first.model_dir, dtype=torch.bfloat16)
    Registry(tmp_path / "models").publish(half.save_checkpoint(tmp_path / "half"), "half")
    names = ("second", root, "model_name=half", "model={}", "training.learning_rate=1.0e-6")
    second = train(config_for(tmp_path, *names))
    before = load_file(tmp_path / "half" / "model.safetensors")
    after = load_file(second.model_dir / "model.safetensors")
    assert {weight.dtype for weight in before.values()} == {torch.bfloat16}
    assert {weight.dtype for weight in after.values()} == {torch.float32}
    # Updates of a millionth are below what bfloat16 can tell at these sizes.
    moved = [not torch.equal(after[name], before[name].float()) for name in before]
    assert all(moved)


def test_a_file_shorter_than_one_window_is_told_as_that(config_for, tmp_path):
    text = tmp_path / "short.txt"
    text.write_text("short")  # its last character is the validation part, and new
    with pytest.raises(InputError, match="window") as told:
        train(config_for(tmp_path, "run", f"data.path={text}"))
    assert "short.txt" in str(told.value)
