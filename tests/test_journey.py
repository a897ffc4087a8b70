"""A model that somebody brings: checked, changed, trained, saved, loaded, exported."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from domainformer.evaluation.checks import check
from domainformer.export import ExportedModel, export_model
from domainformer.models.surgery import (
    drop_layers,
    duplicate_layers,
    freeze,
    layerwise_learning_rates,
    resize_embeddings,
)
from domainformer.models.universal import UniversalForCausalLM

# transformers and accelerate look for things that the machine does not have; exporters warn of
# what they themselves call.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*pin_memory.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
]
V, STEPS, MASK = 64, 50, 3
LAYERS = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
}
WIDTHS = {"vocab_size": V, "hidden_size": 16, "intermediate_size": 32}


class Block(nn.Module):
    """Adds what it makes of the mean of the tokens so far."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(16), nn.Linear(16, 16)

    def forward(self, x):
        counts = torch.arange(1, x.shape[1] + 1)[None, :, None]
        return x + torch.tanh(self.mix(self.norm(x).cumsum(1) / counts))


class Plain(nn.Module):
    """Nothing in it knows of transformers."""

    def __init__(self, blocks=2):
        super().__init__()
        self.table = nn.Embedding(V, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.head = nn.Linear(16, V)

    def forward(self, tokens):
        x = self.table(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=V, n_positions=40, n_embd=16, n_layer=2, n_head=2,
            bos_token_id=0, eos_token_id=0,
        )
    )  # fmt: skip


def t5():
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=V, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
            decoder_start_token_id=0,
        )
    )  # fmt: skip


def rows(count=32, length=10):
    """The first token of a row again and again: easily learnt."""
    first = torch.randint(4, V, (count, 1), generator=torch.Generator().manual_seed(0))
    return first.expand(count, length).contiguous()


def following(ids):
    """Inputs of a model that says each next token, or decodes."""
    return {"input_ids": ids, "labels": ids}


def masked(ids):
    """Inputs of a model that fills in every third token."""
    hidden = torch.arange(ids.shape[1]).expand_as(ids) % 3 == 1
    return {
        "input_ids": ids.masked_fill(hidden, MASK),
        "labels": ids.masked_fill(~hidden, -100),
    }


class Journey(NamedTuple):
    """What differs between models: how one is made, operated on, fed, and loaded again."""

    make: Callable[[], nn.Module]
    operate: Callable[[Any], Any]
    feed: Callable[[torch.Tensor], dict[str, torch.Tensor]] = following
    load: Callable[[Any, Any], Any] = lambda model, folder: type(model).from_pretrained(folder)


def shorter(model):
    drop_layers(model, [1])
    assert model.config.n_layer == len(model.transformer.h) == 1


def frozen(model):
    assert freeze(model, "bert.embeddings.*")


def wider(model):
    resize_embeddings(model, V + 8)
    assert model.config.vocab_size == model.lm_head.out_features == V + 8


def by_depth(model):
    """Rates instead of other weights: for the optimizer."""
    return layerwise_learning_rates(model, 0.02, 0.9)


def deeper(module):
    duplicate_layers(module, [1])
    assert len(module.blocks) == 3


JOURNEYS = {
    "gpt2": Journey(gpt2, shorter),
    "bert": Journey(lambda: BertForMaskedLM(BertConfig(**WIDTHS, **LAYERS)), frozen, masked),
    "qwen3": Journey(
        lambda: Qwen3ForCausalLM(
            Qwen3Config(
                **WIDTHS,
                **LAYERS,
                num_key_value_heads=1,
                head_dim=8,
                tie_word_embeddings=True,
            )
        ),
        wider,
    ),
    "t5": Journey(t5, by_depth),
    "plain": Journey(
        Plain,
        deeper,
        load=lambda _, folder: UniversalForCausalLM.from_pretrained(folder, module=Plain(3)),
    ),
}


def train(model, feed, groups, folder):
    """Fifty steps of Trainer; the loss of the rows before and after."""
    batch = feed(rows())
    losses = []

    def measure():
        with torch.no_grad():
            losses.append(float(model.eval()(**batch).loss))

    measure()
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=8,
        learning_rate=0.02,
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        report_to=[],
    )
    data = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
    optimizer = None if groups is None else torch.optim.AdamW(groups)
    trainer = Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, None))
    assert trainer.train().global_step == STEPS
    measure()
    return losses


def travel(journey, folder, formats):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = journey.make().eval()
        report = check(model)
        assert report.passed, report.failures
        groups = journey.operate(model)
        if not hasattr(model, "save_pretrained"):
            model = UniversalForCausalLM.wrap(model)
        before, after = train(model, journey.feed, groups, folder / "trainer")
    assert after < before - 0.5
    model.save_pretrained(folder / "saved")
    loaded = journey.load(model, folder / "saved").eval()
    batch = journey.feed(rows(3, 8))
    with torch.no_grad():
        expected = loaded(**batch).logits
        assert torch.equal(expected, model.eval()(**batch).logits)
    written = export_model(loaded, folder / "exported", formats=formats)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": torch.ones(3, 8)}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = model._shift_right(batch["labels"])
    for file in written.files:
        if file.path is None:  # a trace took a size for a constant, and that is told
            assert file.format == "torchscript"
            assert file.remark
            continue
        assert file.parity.within(1e-4)
        assert len(file.parity.shapes) == 5
        found = ExportedModel(folder / "exported", file.format)(**inputs)["logits"]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)


@pytest.mark.integration
@pytest.mark.parametrize("name", JOURNEYS)
def test_checked_changed_trained_saved_loaded_exported(name, tmp_path):
    travel(JOURNEYS[name], tmp_path, ["pt2"])


@pytest.mark.slow
@pytest.mark.parametrize("name", JOURNEYS)
def test_in_all_formats(name, tmp_path):
    travel(JOURNEYS[name], tmp_path, ["onnx", "pt2", "torchscript"])
