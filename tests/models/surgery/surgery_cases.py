"""One tiny model of each kind that surgery is promised for."""

from __future__ import annotations

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM

VOCAB = 40
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WIDE = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, x):
        return x + torch.tanh(self.mix(self.norm(x)))


class Plain(nn.Module):
    """A language model as users write them, its head tied to its embedding."""

    def __init__(self, layers: int = 3, width: int = 16) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(VOCAB, width), nn.Parameter(torch.zeros(8, width))
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCAB, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, input_ids):
        x = self.embed(input_ids) + self.position[: input_ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


class Wrapper(nn.Module):
    """What a bound model looks like from outside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, input_ids):
        return self.module(input_ids)


def gpt2(layers: int = 3, **more):
    sizes = {"n_embd": 16, "n_head": 2, "n_layer": layers, "n_positions": 32, "vocab_size": VOCAB}
    return GPT2LMHeadModel(GPT2Config(**sizes, **SPECIAL, **more))


def bert(layers: int = 3):
    sizes = {"num_hidden_layers": layers, "max_position_embeddings": 32, "vocab_size": VOCAB}
    return BertForMaskedLM(BertConfig(**WIDE, **sizes, pad_token_id=0))


def qwen3(layers: int = 3, **more):
    sizes = {"num_hidden_layers": layers, "num_key_value_heads": 1, "head_dim": 8}
    kinds = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 2}
    sizes |= {"vocab_size": VOCAB, "max_position_embeddings": 32, "tie_word_embeddings": True}
    return Qwen3ForCausalLM(Qwen3Config(**WIDE, **sizes, **kinds, **SPECIAL, **more))


def llama(layers: int = 3):
    sizes = {"num_hidden_layers": layers, "num_key_value_heads": 2, "vocab_size": VOCAB}
    return LlamaForCausalLM(LlamaConfig(**WIDE, **sizes, max_position_embeddings=32, **SPECIAL))


def t5(layers: int = 3):
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_heads": 2, "num_layers": layers}
    ids = {"pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0}
    config = T5Config(**sizes, num_decoder_layers=2, vocab_size=VOCAB, **ids)
    return T5ForConditionalGeneration(config)


def own(layers: int = 3):
    config = DomainTransformerConfig.preset(
        "tiny", vocab_size=VOCAB, num_hidden_layers=layers, hidden_size=16,
        num_attention_heads=2, max_position_embeddings=32, **SPECIAL,
    )  # fmt: skip
    return DomainTransformerForCausalLM(config)


KINDS = {
    "gpt2": gpt2, "bert": bert, "qwen3": qwen3, "t5": t5, "llama": llama, "own": own,
    "plain": Plain, "wrapped": lambda: Wrapper(Plain()),
}  # fmt: skip
DECODERS = ("gpt2", "qwen3", "llama", "own")


def make(kind: str, **sizes):
    """A model of a kind with random weights, whose norms and biases are random, too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = KINDS[kind](**sizes).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.2 * torch.randn_like(weight))
    return model


IDS = torch.tensor([[5, 9, 7, 31, 8, 4], [6, 6, 3, 12, 11, 2]])


@torch.no_grad()
def logits(model: nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    """What a model says to some ids."""
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        if model.main_input_name == "input_ids" and model.can_generate():
            return model(input_ids=ids, decoder_input_ids=ids).logits
        return model(input_ids=ids).logits
    found = model(ids)
    return getattr(found, "logits", found)
