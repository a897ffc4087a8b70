"""Adapters: each family loads, runs, saves and loads again; what does not fit is refused."""

import json
import shutil

import pytest
import torch
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from domainformer.errors import ArtifactError, FingerprintError, RegistryError
from domainformer.models import (
    AutoModelAdapter,
    BaseAdapter,
    CustomTransformerAdapter,
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    QwenAdapter,
    adapter_class,
    adapter_for,
)
from domainformer.models.families import base
from tokenizers import Tokenizer, pre_tokenizers

SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 48,
    "bos_token_id": 1,
    "eos_token_id": 26,
}
FAMILIES = {
    "own": (DomainTransformerForCausalLM, DomainTransformerConfig(**SIZES)),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES, num_key_value_heads=1)),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config(**SIZES, num_key_value_heads=1, head_dim=8)),
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES)),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2, n_positions=48, eos_token_id=26),
    ),
}
EXPECTED = {
    "own": (CustomTransformerAdapter, "model.layers", 26),
    "qwen2": (QwenAdapter, "model.layers", 27),
    "qwen3": (QwenAdapter, "model.layers", 27),
    "llama": (AutoModelAdapter, "model.layers", 26),
    "gpt2": (AutoModelAdapter, "transformer.h", 26),
}
IDS = torch.tensor([[3, 1, 4, 1, 5, 9]])


def letters(size=28):
    vocabulary = {chr(97 + i): i for i in range(26)} | {"<|im_end|>": 26, "<|endoftext|>": 27}
    vocabulary |= {f"<{i}>": i for i in range(28, size)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="z"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("families")
    for family, (cls, config) in FAMILIES.items():
        torch.manual_seed(0)
        cls(config).save_pretrained(root / family)
        letters().save_pretrained(root / family)
        (root / family / "LICENSE").write_text("as you like")
        (root / family / "README.md").write_text("the parent's card")
    return root


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the Qwen2 folder, to change."""
    return shutil.copytree(made / "qwen2", tmp_path / "qwen2")


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_loads_runs_saves_and_loads_again(made, tmp_path, family):
    expected, blocks, boundary = EXPECTED[family]
    adapter = adapter_for(made / family)
    assert type(adapter) is expected
    assert (adapter.blocks, adapter.context, adapter.boundary_id) == (blocks, 48, boundary)
    assert len(adapter.model.get_submodule(adapter.blocks)) == 2
    assert adapter.get_config()["vocab_size"] == 40
    assert not adapter.model.training
    out = adapter.forward(IDS, labels=IDS)
    reference = FAMILIES[family][0].from_pretrained(made / family)
    assert torch.equal(out.logits, reference(IDS).logits)
    shifted = torch.nn.functional.cross_entropy(out.logits[0, :-1], IDS[0, 1:])
    torch.testing.assert_close(out.loss, shifted)

    saved = adapter.save_checkpoint(tmp_path / "saved", record={"step": 3})
    again = adapter_for(saved)
    assert type(again) is expected
    assert again.record == {"step": 3}
    assert again.parent is None
    assert torch.equal(again.forward(IDS).logits, out.logits)
    for name in ("tokenizer.json", "tokenizer_config.json", "LICENSE"):
        assert (saved / name).read_bytes() == (made / family / name).read_bytes()
    assert not (saved / "README.md").exists()
    assert torch.equal(AutoModelForCausalLM.from_pretrained(saved)(IDS).logits, out.logits)


def test_what_was_saved_names_its_parent_and_keeps_its_record(folder, tmp_path):
    adapter = adapter_for(folder)
    adapter.parent = {"model_name": "qwen", "model_id": "ab"}
    first = adapter_for(adapter.save_checkpoint(tmp_path / "a", record={"loss": 2.0, "run": "r"}))
    second = adapter_for(first.save_checkpoint(tmp_path / "b", record={"loss": 1.0}))
    assert second.parent == {"model_name": "qwen", "model_id": "ab"}
    assert second.record == {"loss": 1.0, "run": "r"}
    with pytest.raises(ArtifactError, match="exists already"):
        first.save_checkpoint(tmp_path / "b")
    # Over the folder that it was read from, too.
    second.save_checkpoint(tmp_path / "b", overwrite=True)
    assert adapter_for(tmp_path / "b").tokenizer("ab")["input_ids"] == [0, 1]


def test_a_tokenizer_that_was_changed_is_written_anew(folder, tmp_path):
    adapter = adapter_for(folder)
    adapter.tokenizer.add_tokens(["<new>"])
    saved = adapter_for(adapter.save_checkpoint(tmp_path / "saved"))
    assert saved.tokenizer.convert_tokens_to_ids("<new>") == 28


def test_a_training_checkpoint_says_itself_what_it_is(tmp_path):
    """config.json and weights, as training checkpoints hold them; no tokenizer beside them."""
    from domainformer.training.checkpoints import save_checkpoint

    for family, (cls, config) in FAMILIES.items():
        model = cls(config).eval()
        optimizer = torch.optim.AdamW(model.parameters())
        path = save_checkpoint(
            tmp_path / family,
            step=1,
            model=model,
            optimizer=optimizer,
            scheduler=torch.optim.lr_scheduler.ConstantLR(optimizer),
            state={},
            position={},
        )
        config_json = json.loads((path / "config.json").read_text())
        adapter = adapter_for(path)
        assert type(adapter) is EXPECTED[family][0], config_json
        assert adapter.tokenizer is None
        assert torch.equal(adapter.forward(IDS).logits, model(IDS).logits)
        saved = adapter.save_checkpoint(tmp_path / f"{family}-saved")
        assert not {"optimizer.pt", "trainer_state.json"} & {one.name for one in saved.iterdir()}


def test_a_new_family_is_one_subclass(made):
    known = dict(base.BY_MODEL_TYPE), dict(base.BY_ARCHITECTURE)
    try:

        class LlamaAdapter(BaseAdapter):
            model_types = ("llama",)
            block_path = "model.layers"

        assert type(adapter_for(made / "llama")) is LlamaAdapter

        class HeadedAdapter(BaseAdapter):
            architectures = ("LlamaForCausalLM",)
            block_path = "model.blocks"

        assert type(adapter_for(made / "llama")) is HeadedAdapter
        with pytest.raises(RegistryError, match="the blocks of LlamaForCausalLM are not found"):
            adapter_for(made / "llama").blocks  # noqa: B018
    finally:
        base.BY_MODEL_TYPE.clear()
        base.BY_MODEL_TYPE.update(known[0])
        base.BY_ARCHITECTURE.clear()
        base.BY_ARCHITECTURE.update(known[1])
    assert type(adapter_for(made / "llama")) is AutoModelAdapter


def test_an_unknown_type_gives_the_nearest():
    with pytest.raises(RegistryError, match="'qwem3' is not known") as caught:
        adapter_class({"model_type": "qwem3"})
    assert caught.value.next_step == "did you mean 'qwen3'?"
    with pytest.raises(RegistryError, match="is not known"):
        adapter_class({})


def test_pickles_are_refused_and_never_opened(folder):
    trap = folder / "trap"
    payload = f"cos\nsystem\n(S'touch {trap}'\ntR.".encode()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(payload)
    with pytest.raises(RegistryError, match="the weights are pickles, which are refused"):
        adapter_for(folder)
    with pytest.raises(RegistryError, match="pickles"):
        QwenAdapter.load_checkpoint(folder)
    assert not trap.exists()


def test_weights_that_are_missing_are_not_drawn_at_random(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, path, metadata={"format": "pt"})
    # The twin: transformers fills it and goes on.
    AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(RegistryError, match="the model cannot be read") as caught:
        adapter_for(folder)
    assert "model.layers.1.mlp.up_proj.weight" in caught.value.why


def test_weights_of_another_shape_are_refused(folder):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "intermediate_size": 48}))
    with pytest.raises(RegistryError, match="the model cannot be read"):
        adapter_for(folder)


def test_a_tokenizer_of_another_model_is_refused(folder):
    letters(41).save_pretrained(folder)
    with pytest.raises(FingerprintError, match="do not belong together") as caught:
        adapter_for(folder)
    assert "41 ids, the model 40" in caught.value.why


def test_a_damaged_tokenizer_and_a_damaged_note_are_told(folder):
    (folder / "lineage.json").write_text("{")
    with pytest.raises(ArtifactError, match=r"lineage\.json cannot be read"):
        adapter_for(folder)
    (folder / "lineage.json").unlink()
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(ArtifactError, match="the tokenizer cannot be read"):
        adapter_for(folder)


def test_lora_adapters_are_to_be_merged_first(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/elsewhere"}')
    with pytest.raises(RegistryError, match="LoRA"):
        adapter_for(folder)
    (folder / "config.json").unlink()
    with pytest.raises(RegistryError, match="is no model folder"):
        adapter_for(folder)
