"""LoRA on every kind of model: nothing changes at first, all of it merges, files are peft's."""

from __future__ import annotations

import pytest
import torch
from surgery_cases import Plain, logits, make

from domainformer.errors import ArtifactError, SurgeryError
from domainformer.models.surgery import (
    add_lora,
    drop_layers,
    load_lora,
    merge_lora,
    save_lora,
    undo_point,
)

peft = pytest.importorskip("peft", reason="needs the extra peft", exc_type=ImportError)


def learn(model):
    """Let the additions hold something."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))


@pytest.mark.parametrize("kind", ["gpt2", "bert", "t5", "own", "wrapped"])
def test_added_learned_saved_loaded_merged(kind, tmp_path):
    model, other = make(kind), make(kind)
    names, before = set(model.state_dict()), logits(model)
    places = add_lora(model, rank=2)
    assert places
    assert all("lora_" in n for n, w in model.named_parameters() if w.requires_grad)
    torch.testing.assert_close(logits(model), before)
    learn(model)
    learned = logits(model)
    assert not torch.allclose(learned, before, atol=1e-3)
    save_lora(model, tmp_path / "lora")
    torch.testing.assert_close(logits(load_lora(other, tmp_path / "lora")), learned)
    merge_lora(model)
    assert set(model.state_dict()) == names
    assert all(weight.requires_grad for weight in model.parameters())
    torch.testing.assert_close(logits(model), learned, atol=1e-5, rtol=1e-4)


# peft asks transformers by a name that 5.23 has deprecated.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_reads_what_was_saved(tmp_path):
    model = make("gpt2")
    add_lora(model, rank=2, targets=["c_attn", "*.mlp.c_fc"])
    learn(model)
    save_lora(model, tmp_path / "lora")
    theirs = peft.PeftModel.from_pretrained(make("gpt2"), tmp_path / "lora")
    torch.testing.assert_close(logits(theirs), logits(model))


def test_undo_takes_the_additions_out():
    model = make("llama")
    before, names = logits(model), set(model.state_dict())
    with undo_point(model):
        add_lora(model)
        learn(model)
    assert torch.equal(logits(model), before)
    assert set(model.state_dict()) == names
    assert not hasattr(model, "peft_config")


def test_output_layers_and_ties_are_left_out_and_refused():
    model = make("gpt2")
    assert "lm_head" not in add_lora(model)
    with pytest.raises(SurgeryError, match="tied to another part"):
        add_lora(make("gpt2"), targets=["lm_head"])
    assert "lm_head" in add_lora(make("llama"), targets=["lm_head"])  # its own weight: as asked


def test_what_cannot_be_done_is_told(tmp_path):
    model = make("gpt2")
    with pytest.raises(SurgeryError, match="did you mean 'c_attn'"):
        add_lora(model, targets=["c_attm"])
    with pytest.raises(SurgeryError, match="no low-rank additions"):
        save_lora(model, tmp_path / "none")
    with pytest.raises(ArtifactError, match="holds no low-rank additions"):
        load_lora(model, tmp_path)
    add_lora(model)
    with pytest.raises(SurgeryError, match="already"):
        add_lora(model)
    save_lora(model, tmp_path / "lora")
    with pytest.raises(SurgeryError, match="made for another model than Plain"):
        load_lora(Plain(), tmp_path / "lora")
    with pytest.raises(SurgeryError, match="low-rank additions"):
        drop_layers(model, [0])


@pytest.mark.parametrize("options", [{"rank": 0}, {"dropout": 2.0}])
def test_numbers_out_of_range_leave_the_model_as_it_was(options):
    model = make("gpt2")
    with pytest.raises(SurgeryError, match="make no additions"):
        add_lora(model, **options)
    assert all(weight.requires_grad for weight in model.parameters())
