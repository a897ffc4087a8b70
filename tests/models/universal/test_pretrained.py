"""A module of nobody's making as a model of transformers: trained, saved, loaded, generated."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from domainformer.errors import AdapterError, FingerprintError, RegistryError
from domainformer.models.families import adapter_for
from domainformer.models.families.universal import UniversalAdapter
from domainformer.models.universal.identity import given_module
from domainformer.models.universal.pretrained import UniversalForCausalLM
from domainformer.registry import Registry
from domainformer.registry.card import model_card

V = 24
# transformers and accelerate look for things that the machine does not have.
pytestmark = pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning")


class Running(nn.Module):
    """A recurrent model, whose state is its cache; the head is tied."""

    def __init__(self, width: int = 16, seed: int = 0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.table = nn.Embedding(V, width)
            self.cell = nn.GRU(width, width, batch_first=True)
            self.head = nn.Linear(width, V, bias=False)
        self.head.weight = self.table.weight

    def forward(self, idx, state=None):
        x, state = self.cell(self.table(idx), state)
        return self.head(x), state


class Blocks(nn.Module):
    """A stack of blocks that mixes by a running mean; takes no mask, and has a longest row."""

    def __init__(self, width: int = 16):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.table = nn.Embedding(V, width)
            self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
            self.head = nn.Linear(width, V)

    def forward(self, tokens):
        if tokens.shape[1] > 12:
            raise ValueError("the row is too long")
        x = self.table(tokens)
        for block in self.blocks:
            counts = torch.arange(1, x.shape[1] + 1)[None, :, None]
            x = x + torch.tanh(block(x.cumsum(1) / counts))
        return {"logits": self.head(x)}


class Same(Running):
    """Another source for the same weights."""


def ids(batch=2, length=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, V, (batch, length), generator=generator)


def oracle(logits, labels):
    rows = [
        F.cross_entropy(logits[b, t], labels[b, t + 1])
        for b in range(labels.shape[0])
        for t in range(labels.shape[1] - 1)
        if labels[b, t + 1] != -100
    ]
    return torch.stack(rows)


def test_logits_are_the_modules_and_the_loss_is_that_of_the_next_token():
    module = Running()
    model = UniversalForCausalLM.wrap(module)
    labels = ids().masked_fill(torch.arange(8) > 5, -100)
    found = model(input_ids=ids(), labels=labels)
    assert torch.equal(found.logits, module(ids())[0])
    torch.testing.assert_close(found.loss, oracle(found.logits, labels).mean())
    shared = model(input_ids=ids(), labels=labels, num_items_in_batch=7)
    torch.testing.assert_close(shared.loss, oracle(found.logits, labels).sum() / 7)
    shifted = F.pad(labels[:, 1:], (0, 1), value=-100)
    assert torch.equal(model(input_ids=ids(), shift_labels=shifted).loss, found.loss)
    assert torch.equal(model(input_ids=ids(), return_dict=False)[0], found.logits)


def test_a_model_of_transformers_keeps_its_own_loss():
    config = GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=V, n_positions=16)
    config.eos_token_id = config.bos_token_id = None
    inner = GPT2LMHeadModel(config).eval()
    model = UniversalForCausalLM.wrap(inner).eval()
    for extra in ({}, {"num_items_in_batch": 5}):
        found = model(input_ids=ids(), labels=ids(), **extra)
        direct = inner(input_ids=ids(), labels=ids(), **extra)
        assert torch.equal(found.loss, direct.loss)
        assert torch.equal(found.logits, direct.logits)
    assert model.config.max_position_embeddings == 16
    told = [one.generate(ids(), max_new_tokens=4, do_sample=False) for one in (model, inner)]
    assert torch.equal(*told)


def test_wrapping_initialises_nothing():
    module = Blocks()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = UniversalForCausalLM.wrap(module)
    model.init_weights()
    assert model.model.module is module
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_what_is_written_down():
    config = UniversalForCausalLM.wrap(Blocks(), arguments={"width": 16}, eos_token_id=3).config
    assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (V, 16, 2)
    assert config.module_name.endswith("test_pretrained.Blocks")
    assert config.module_arguments == {"width": 16}
    assert config.eos_token_id == 3


def test_a_vocabulary_that_nothing_tells_is_asked_for():
    class Two(Blocks):
        def __init__(self):
            super().__init__()
            self.places = nn.Embedding(99, 16)

    with pytest.raises(AdapterError, match="vocab_size"):
        UniversalForCausalLM.wrap(Two())
    model = UniversalForCausalLM.wrap(Two(), vocab_size=V)
    assert model.get_input_embeddings().num_embeddings == V


def test_saved_and_loaded_by_module_class_or_function(tmp_path):
    model = UniversalForCausalLM.wrap(Running(8), arguments={"width": 8})
    with torch.no_grad():
        model.model.module.table.weight.mul_(2)
    model.save_pretrained(tmp_path)
    assert "head" not in " ".join(load_file(tmp_path / "model.safetensors"))  # tied: saved once
    for given in (Running(8, seed=1), Running, lambda width: Running(width, seed=2)):
        again = UniversalForCausalLM.from_pretrained(tmp_path, module=given)
        assert torch.equal(again(ids()).logits, model(ids()).logits)
        assert again.model.module.head.weight is again.model.module.table.weight
        assert not again.training
        assert again.generation_config.to_dict().keys() == model.generation_config.to_dict().keys()
    half = UniversalForCausalLM.from_pretrained(tmp_path, module=Running, dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16


def test_another_module_is_refused(tmp_path):
    UniversalForCausalLM.wrap(Running()).save_pretrained(tmp_path)
    with pytest.raises(FingerprintError, match="do not belong together"):
        UniversalForCausalLM.from_pretrained(tmp_path, module=Same)
    again = UniversalForCausalLM.from_pretrained(tmp_path, module=Same, allow_changed_source=True)
    assert isinstance(again.model.module, Same)
    with pytest.raises(RegistryError, match="size mismatch"):
        UniversalForCausalLM.from_pretrained(tmp_path, module=Running(8))
    with pytest.raises(RegistryError, match="missing"):
        UniversalForCausalLM.from_pretrained(tmp_path, module=Blocks, allow_changed_source=True)
    with pytest.raises(AdapterError, match="does not make the module"):
        UniversalForCausalLM.from_pretrained(tmp_path, module=lambda width: Running(width))


def test_a_lost_weight_is_no_random_number(tmp_path):
    from safetensors.torch import save_file

    UniversalForCausalLM.wrap(Running()).save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop("model.module.cell.bias_hh_l0")
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RegistryError, match="missing: model.module.cell.bias_hh_l0"):
        UniversalForCausalLM.from_pretrained(tmp_path, module=Running)


@pytest.mark.parametrize("module", [Running, Blocks])
def test_generation_equals_the_slow_way(module):
    model = UniversalForCausalLM.wrap(module()).eval()
    found = model.generate(ids(), max_new_tokens=4, do_sample=False)
    row = ids()
    for _ in range(4):
        row = torch.cat([row, model(row).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, row)


def test_the_longest_row_is_kept_to():
    model = UniversalForCausalLM.wrap(Blocks(), max_position_embeddings=12).eval()
    found = model.generate(ids(), max_new_tokens=9, do_sample=False)
    row = ids()
    for _ in range(9):
        row = torch.cat([row, model(row[:, -12:]).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(found, row)


def test_the_longest_row_is_read_off_the_module_itself():
    module = Blocks()
    module.block_size = 12
    model = UniversalForCausalLM.wrap(module)
    assert model.config.max_position_embeddings == 12
    ids = torch.arange(4, 15)[None]
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape == (1, 15)


def test_auto_classes_open_a_folder_where_the_module_is_given(tmp_path):
    model = UniversalForCausalLM.wrap(Running()).eval()
    model.save_pretrained(tmp_path)
    ids = torch.tensor([[4, 5, 6]])
    for opened in (AutoModelForCausalLM, UniversalForCausalLM):
        with pytest.raises(RegistryError, match="given_module"):
            opened.from_pretrained(tmp_path)
        with given_module(Running):
            again = opened.from_pretrained(tmp_path)
            assert torch.equal(again(ids).logits, model(ids).logits)
            with pytest.raises(RegistryError, match="device_map"):
                opened.from_pretrained(tmp_path, device_map="auto")


def test_the_card_says_that_the_module_has_to_be_given(tmp_path):
    UniversalForCausalLM.wrap(Running()).save_pretrained(tmp_path)
    card = model_card(tmp_path, "mine")
    assert "with given_module(Running):" in card
    assert "library_name: domainformer" in card
    assert "pipeline_tag" not in card


def test_padding_that_would_be_read_as_text_is_refused():
    mask = torch.ones_like(ids())
    mask[0, 0] = 0
    with pytest.raises(AdapterError, match="no attention mask"):
        UniversalForCausalLM.wrap(Blocks()).generate(
            ids(), attention_mask=mask, max_new_tokens=2, pad_token_id=0
        )


def test_embeddings_can_be_replaced_and_stay_tied():
    model = UniversalForCausalLM.wrap(Running())
    assert model._tied_weights_keys == {"model.module.head.weight": "model.module.table.weight"}
    assert model.get_output_embeddings() is model.model.module.head
    new = nn.Embedding(V, 16)
    model.set_input_embeddings(new)
    assert model.model.module.table is new


def test_the_registry_takes_it_and_asks_for_the_module(tmp_path):
    model = UniversalForCausalLM.wrap(Running(8), arguments={"width": 8})
    folder = UniversalAdapter(model).save_checkpoint(tmp_path / "one", record={"kind": "test"})
    registry = Registry(tmp_path / "models")
    registry.publish(folder, "running")
    with pytest.raises(RegistryError, match="whose code is not in the folder") as raised:
        registry.load("running")
    assert "given_module" in raised.value.next_step
    module = Running(8, seed=5)
    untouched = module.table.weight.detach().clone()
    with given_module(module):
        one, two = registry.load("running"), adapter_for(folder)
    assert isinstance(one, UniversalAdapter)
    assert torch.equal(one.forward(ids()).logits, model(ids()).logits)
    assert one.model.model.module is not two.model.model.module
    assert torch.equal(module.table.weight, untouched)
    assert one.boundary_id is None
    with given_module(Running), pytest.raises(RegistryError, match="device_map"):
        UniversalAdapter.read_model(folder, None, device_map="auto")


def test_a_folder_holds_no_code(tmp_path):
    UniversalForCausalLM.wrap(Running()).save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "generation_config.json",
        "model.safetensors",
    ]
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())
