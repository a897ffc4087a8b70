"""Modules of many architectures, and every shape of output."""

from __future__ import annotations

import dataclasses
from collections import namedtuple

import torch
import torch.nn.functional as F
from torch import nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from .case import Base, Case, H, V


class DictOutput(Base):
    def forward(self, input_ids):
        return {"loss": None, "logits": self.body(input_ids), "hidden_states": self.emb(input_ids)}


class OddDictOutput(Base):
    def forward(self, input_ids):
        return {"rows": self.body(input_ids), "norm": self.emb(input_ids).norm()}


class TupleOutput(Base):
    def forward(self, input_ids):
        return self.body(input_ids), self.emb(input_ids).mean()


class AmbiguousTuple(Base):
    def forward(self, input_ids):
        out = self.body(input_ids)
        return out, out.softmax(-1)


class EmbeddingAndLogits(Base):
    """Two of three dimensions: the vocabulary's size decides."""

    def forward(self, input_ids):
        return self.emb(input_ids), self.body(input_ids)


@dataclasses.dataclass
class Answer:
    scores: torch.Tensor
    extra: torch.Tensor


class DataclassOutput(Base):
    def forward(self, input_ids):
        return Answer(self.body(input_ids), self.emb(input_ids))


Pair = namedtuple("Pair", "value logits")


class NamedTupleOutput(Base):
    def forward(self, input_ids):
        return Pair(self.emb(input_ids), self.body(input_ids))


class ModelOutput(Base):
    def forward(self, input_ids, labels=None):
        logits = self.body(input_ids)
        loss = None if labels is None else logits.mean() * 0 + 7
        return CausalLMOutputWithPast(loss=loss, logits=logits)


class LengthFirst(Base):
    def forward(self, input_ids):
        return self.body(input_ids).transpose(0, 1)


class FlattenedRows(Base):
    def forward(self, input_ids):
        return self.body(input_ids).flatten(0, 1)


class Classifier(Base):
    def forward(self, input_ids):
        return self.body(input_ids).mean(1)


class HiddenStatesOnly(Base):
    def forward(self, input_ids):
        return {"last_hidden_state": self.emb(input_ids)}


class NothingReturned(Base):
    def forward(self, input_ids):
        self.body(input_ids)


class RecurrentWithState(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(V, H)
        self.rnn = nn.GRU(H, H, batch_first=True)
        self.head = nn.Linear(H, V)

    def forward(self, x, hidden=None):
        out, hidden = self.rnn(self.emb(x), hidden)
        return self.head(out), hidden


class EncoderDecoder(Base):
    def forward(self, src_tokens, tgt):
        return self.body(tgt) + self.emb(src_tokens).mean(1, keepdim=True) @ self.head.weight.T


class ImageNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, pixel_values):
        return self.conv(pixel_values).mean((2, 3))


class CausalConvolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(V, H)
        self.conv = nn.Conv1d(H, V, 3)

    def forward(self, tokens):
        return self.conv(F.pad(self.emb(tokens).transpose(1, 2), (2, 0))).transpose(1, 2)


class MixtureOfExperts(Base):
    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(H, H) for _ in range(3))
        self.gate = nn.Linear(H, 3)

    def forward(self, input_ids):
        h = self.emb(input_ids)
        weights = self.gate(h).softmax(-1)
        mixed = sum(weights[..., i, None] * expert(h) for i, expert in enumerate(self.experts))
        return {"logits": self.head(mixed), "aux_loss": weights.mean()}


class SharedModules(Base):
    def __init__(self):
        super().__init__()
        self.again = self.mix
        self.head.weight = self.emb.weight

    def forward(self, input_ids):
        return self.head(self.again(self.mix(self.emb(input_ids))))


class InPlace(Base):
    def forward(self, input_ids):
        h = self.mix(self.emb(input_ids))
        h += 1
        h[:, 0] = 0
        F.relu_(h)
        return self.head(h)


class FunctionalWeights(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(V, H))

    def forward(self, x):
        return F.embedding(x, self.table) @ self.table.T


class TorchTransformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(V, H)
        layer = nn.TransformerEncoderLayer(H, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(H, V)

    def forward(self, src, src_mask=None, src_key_padding_mask=None):
        return self.head(self.encoder(self.emb(src), src_mask, src_key_padding_mask))


class WithPositions(Base):
    def __init__(self):
        super().__init__()
        self.pos = nn.Embedding(32, H)

    def forward(self, input_ids, position_ids=None):
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        return self.head(self.emb(input_ids) + self.pos(position_ids))


class BertStyle(Base):
    def __init__(self):
        super().__init__()
        self.kinds = nn.Embedding(2, H)

    def forward(self, input_ids, attention_mask=None, token_type_ids=None):
        h = self.emb(input_ids)
        if token_type_ids is not None:
            h = h + self.kinds(token_type_ids)
        if attention_mask is not None:
            h = h * attention_mask[..., None]
        return self.head(h)


class Multimodal(Base):
    def forward(self, input_ids, pixel_values):
        return self.body(input_ids) + pixel_values.mean()


CASES = [
    Case(DictOutput),
    Case(OddDictOutput),
    Case(TupleOutput),
    Case(AmbiguousTuple, "fails", "2 values may be the logits: 0, 1"),
    Case(EmbeddingAndLogits, "fails", "2 values", bind={"config": {"vocab_size": 999}}),
    Case(EmbeddingAndLogits),
    Case(DataclassOutput),
    Case(NamedTupleOutput),
    Case(ModelOutput),
    Case(LengthFirst, "fails", "transpose(0, 1)"),
    Case(LengthFirst, bind={"logits": lambda out: out.transpose(0, 1)}),
    Case(FlattenedRows, "fails", "unflatten"),
    Case(Classifier, "fails", "classifier or an encoder"),
    Case(HiddenStatesOnly, "fails", "no logits [B, L, V] are found"),
    Case(NothingReturned, "fails", "it gave None"),
    Case(RecurrentWithState, roles={"x": "tokens", "hidden": "cache"}),
    Case(EncoderDecoder, "fails", "tgt=… in the call", roles={"tgt": "encoder"}),
    Case(EncoderDecoder, call={"tgt": torch.ones(2, 4, dtype=torch.long)}),
    Case(ImageNetwork, "refused", "no argument of forward is known to take token ids"),
    Case(CausalConvolution, roles={"tokens": "tokens"}),
    Case(MixtureOfExperts),
    Case(SharedModules),
    Case(InPlace),
    Case(FunctionalWeights, roles={"x": "tokens"}),
    Case(TorchTransformer, roles={"src_mask": "unknown", "src_key_padding_mask": "mask"}),
    Case(WithPositions, roles={"position_ids": "positions"}),
    Case(BertStyle, layout="bert"),
    Case(Multimodal, "refused", "forward needs pixel_values"),
    Case(
        Multimodal, bind={"roles": {"pixel_values": "option"}}, call={"pixel_values": torch.ones(3)}
    ),
]
