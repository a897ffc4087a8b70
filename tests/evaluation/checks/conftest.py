"""A healthy model without attention, and one wrong line at a time; tiny models of transformers."""

import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from domainformer.evaluation.checks import check
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM

V, WIDTH = 80, 16


class Tiny(nn.Module):
    """Means of the tokens so far through two residual layers; `fault` breaks one line."""

    def __init__(self, fault=None, layers=2):
        super().__init__()
        self.fault = fault
        self.embed, self.mix = nn.Embedding(V, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList(
            nn.ModuleDict({"up": nn.Linear(WIDTH, 32), "down": nn.Linear(32, WIDTH)})
            for _ in range(12 if fault == "vanishing gradients" else layers)
        )
        self.head = nn.Linear(WIDTH, V)
        nn.init.normal_(self.head.weight, std=10.0 if fault == "large head" else 0.2)
        if fault == "NaN weight":
            self.layers[1]["up"].weight.data[0, 0] = torch.nan
        if fault == "constant matrix":
            nn.init.constant_(self.layers[0]["up"].weight, 0.1)
        if fault == "twin layers":
            self.layers[1].load_state_dict(self.layers[0].state_dict())
        if fault == "spare module":
            self.spare = nn.Linear(2, 2)
        if fault == "layer in a list":
            self.hidden = [nn.Linear(WIDTH, WIDTH)]
        if fault == "plain tensor":
            self.scale = torch.full((WIDTH,), 1.5)
        if fault == "dead units":
            nn.init.constant_(self.layers[1]["up"].bias, -100.0)
        self.kept = []
        self.register_buffer("pairs", torch.zeros(V, V, dtype=torch.bool))

    def forward(self, input_ids, attention_mask=None):
        fault = self.fault
        x = self.embed(input_ids)
        ones = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if fault == "ignored mask":
            ones = torch.ones_like(input_ids)
        w = ones[..., None].to(x.dtype)
        past = (x * w).cumsum(1) / w.cumsum(1).clamp(min=1)
        h = x + self.mix(past)
        if fault == "sees the next token":
            h = h + x.roll(-1, 1)
        if fault == "reads the answers while it learns" and self.training:
            h = h + x.roll(-1, 1)
        if fault == "mixes rows":
            h = h + h.mean(0)
        if fault == "hidden randomness":
            h = h + torch.randn_like(h)
        if fault == "no spread":
            # Zero by zero where all tokens of a row are alike.
            away = (x - x[:, :1]).abs().amax(2, keepdim=True).cummax(1).values
            h = h + away / away.amax(1, keepdim=True)
        if fault == "cancellation":
            h = (h + 1e4) - 1e4
        if fault == "plain tensor":
            h = h * self.scale
        if fault == "layer in a list":
            h = h + self.hidden[0](h)
        h = self._through(h)
        if fault == "row by row":
            for _ in input_ids:
                time.sleep(0.01)
        if fault == "keeps its states":
            self.kept.append(h.detach())
        weight = self.head.weight.detach() if fault == "detached head" else self.head.weight
        logits = F.linear(h, weight, self.head.bias)
        if fault == "panics at new pairs":
            pairs = (input_ids[:, :-1], input_ids[:, 1:])
            if torch.is_grad_enabled():
                self.pairs[pairs] = True
            new = F.pad(~self.pairs[pairs], (1, 0)).cumsum(1) > 0
            logits = torch.where(new[..., None], -3 * logits, logits)
        if fault == "branch on data" and bool(logits.sum() > 0):
            logits = logits + 1
        return 0.01 * logits.tanh() if fault == "flat logits" else logits

    def _through(self, h):
        if self.fault == "vanishing gradients":
            for layer in self.layers:
                h = layer["down"](layer["up"](h).sigmoid())
            return h
        for layer in self.layers:
            for _ in range(20 if self.fault == "works twice" else 1):
                h = h + layer["down"](F.relu(layer["up"](self.norm(h))))
        return h


def build(make):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


@pytest.fixture(scope="session")
def tiny():
    """A tiny model with a fault; healthy without."""
    return lambda fault=None, **sizes: build(lambda: Tiny(fault, **sizes))


@pytest.fixture(scope="session")
def one():
    """The result of one check."""
    return lambda model, name, **options: check(model, only=[name], **options)[name]


_BERT = {
    "vocab_size": V,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}


@pytest.fixture(scope="session")
def pretrained():
    """A tiny model of transformers by a short name."""
    makers = {
        "gpt2": lambda: GPT2LMHeadModel(
            GPT2Config(
                vocab_size=V,
                n_positions=32,
                n_embd=16,
                n_layer=2,
                n_head=2,
                bos_token_id=0,
                eos_token_id=0,
            )
        ),
        "domain": lambda: DomainTransformerForCausalLM(
            DomainTransformerConfig(
                vocab_size=V,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=32,
            )
        ),
        "bert": lambda: BertForMaskedLM(BertConfig(**_BERT)),
        "classifier": lambda: BertForSequenceClassification(BertConfig(**_BERT, num_labels=3)),
        "t5": lambda: T5ForConditionalGeneration(
            T5Config(
                vocab_size=V,
                d_model=16,
                d_kv=8,
                d_ff=32,
                num_layers=2,
                num_heads=2,
                decoder_start_token_id=0,
            )
        ),
    }
    return lambda name: build(makers[name]).eval()
