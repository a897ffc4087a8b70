"""Modules that take their inputs in every way that Python has."""

from __future__ import annotations

import functools
import types
from typing import Optional

import torch
import torch.nn.functional as F
from torch import nn

from .case import Base, Case, H, V


class PositionalOnly(Base):
    def forward(self, input_ids, attention_mask=None, /):
        h = self.emb(input_ids)
        if attention_mask is not None:
            h = h * attention_mask[..., None]
        return self.head(self.mix(h))


class KeywordOnly(Base):
    def forward(self, *, input_ids, attention_mask=None):
        del attention_mask
        return self.body(input_ids)


class StarArguments(Base):
    def forward(self, *tensors):
        return self.body(tensors[0])


class StarTokens(Base):
    def forward(self, *input_ids):
        return self.body(input_ids[0])


class Keywords(Base):
    def forward(self, **batch):
        h = self.emb(batch["input_ids"])
        if batch.get("attention_mask") is not None:
            h = h * batch["attention_mask"][..., None]
        return self.head(h)


class OpaqueKeywords(Base):
    def forward(self, **batch):
        return self.body(next(iter(batch.values())))


class OneDictionary(Base):
    def forward(self, batch):
        return self.body(batch["input_ids"])


class NeutralName(Base):
    def forward(self, x: torch.Tensor):
        return self.head(self.mix(self.emb(x)))


class OddName(Base):
    def forward(self, banana):
        return self.head(self.emb(banana))


class OddNamesTwice(Base):
    def __init__(self):
        super().__init__()
        self.kinds = nn.Embedding(4, H)

    def forward(self, things, sorts):
        return self.head(self.emb(things) + self.kinds(sorts))


class NeutralNameDeep(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = NeutralName()

    def forward(self, inputs):
        return self.inner(inputs)


class NestedForwardCalls(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = NeutralName()

    def forward(self, x):
        return self.inner.forward(x=x)


class FloatFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(H, V)

    def forward(self, x):
        return self.head(x)


class AmbiguousMaskOptional(Base):
    def forward(self, tokens, mask=None):
        h = self.emb(tokens)
        return self.head(h if mask is None else h * mask[..., None])


class AmbiguousMaskRequired(Base):
    def forward(self, tokens, mask):
        return self.head(self.emb(tokens) * mask[..., None])


class InvertedMask(Base):
    def forward(self, tokens, key_padding_mask=None):
        h = self.emb(tokens)
        if key_padding_mask is not None:
            if key_padding_mask.any():
                raise ValueError("True is padding, and this row has none")
            h = h.masked_fill(key_padding_mask[..., None], 0.0)
        return self.head(h)


class TwoTokenInputs(Base):
    def forward(self, input_ids, src_ids):
        return self.body(input_ids) + self.body(src_ids)


class SwitchesAndNumbers(Base):
    def forward(
        self,
        idx: torch.Tensor,
        scale: float = 1.0,
        deep: bool = False,
        kind: Optional[str] = None,  # noqa: UP045 - what users write
    ):
        out = self.body(idx) * scale
        return out if not deep and kind is None else out + 1


class NoDefaultSwitch(Base):
    def forward(self, idx, temperature):
        return self.body(idx) / temperature


class NanoGPT(Base):
    """The last position alone unless there are targets, which are one step ahead."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.ModuleDict({"wte": self.emb, "ln_f": nn.LayerNorm(H)})

    def forward(self, idx, targets=None):
        x = self.transformer.ln_f(self.transformer.wte(idx))
        if targets is not None:
            logits = self.head(self.mix(x))
            loss = F.cross_entropy(logits.view(-1, V), targets.view(-1), ignore_index=-1)
        else:
            logits, loss = self.head(self.mix(x[:, [-1], :])), None
        return logits, loss


def noisy(function):
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def polite(function):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class WrappedWithoutName(Base):
    @noisy
    def forward(self, input_ids):
        return self.body(input_ids)


class WrappedPolitely(Base):
    @polite
    def forward(self, input_ids):
        return self.body(input_ids)


class LambdaForward(Base):
    forward = lambda self, input_ids: self.head(self.emb(input_ids))  # noqa: E731


def instance_lambda():
    model = Base()
    model.forward = lambda input_ids: model.body(input_ids)
    return model


def instance_partial():
    model = SwitchesAndNumbers()
    model.forward = functools.partial(model.forward, scale=2.0)
    return model


def instance_hooked():
    """As accelerate does it: a partial of its own function that claims to be the old one."""
    model = Base()
    model.forward = types.MethodType(lambda self, idx, unused=None: self.body(idx), model)
    written = model.forward

    def hooked(module, *args, **kwargs):
        return written(*args, **kwargs)

    model.forward = functools.update_wrapper(functools.partial(hooked, model), written)
    return model


def scripted():
    with __import__("warnings").catch_warnings():
        __import__("warnings").simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(nn.Sequential(nn.Embedding(V, H), nn.Linear(H, V)))


def traced():
    with __import__("warnings").catch_warnings():
        __import__("warnings").simplefilter("ignore", DeprecationWarning)
        return torch.jit.trace(NeutralName(), torch.zeros(2, 3, dtype=torch.long))


def sequential():
    return nn.Sequential(nn.Embedding(V, H), nn.Linear(H, V))


def without_source():
    space = {"Base": Base}
    exec("class Made(Base):\n  def forward(self, input_ids): return self.body(input_ids)", space)
    return space["Made"]()


def parallel():
    return nn.DataParallel(KeywordOnly())


CASES = [
    Case(PositionalOnly, roles={"input_ids": "tokens", "attention_mask": "mask"}),
    Case(KeywordOnly, layout="standard"),
    Case(StarArguments, "refused", "roles={'tensors': 'tokens'}"),
    Case(StarTokens, roles={"input_ids": "tokens"}),
    Case(Keywords, roles={"input_ids": "tokens", "attention_mask": "mask", "batch": "option"}),
    Case(OpaqueKeywords, "refused", "no argument of forward is known to take token ids"),
    Case(OneDictionary, "refused", "roles={'batch': 'tokens'}"),
    Case(NeutralName, roles={"x": "tokens"}),
    Case(OddName, roles={"banana": "tokens"}),
    Case(OddNamesTwice, "refused", "things", roles={"things": "unknown", "sorts": "unknown"}),
    Case(NeutralNameDeep, roles={"inputs": "tokens"}),
    Case(NestedForwardCalls, roles={"x": "tokens"}),
    Case(FloatFeatures, "refused", "no embedding is seen that reads it"),
    Case(AmbiguousMaskOptional, roles={"mask": "unknown"}),
    Case(AmbiguousMaskRequired, "refused", "ambiguous: a mask of padding"),
    Case(InvertedMask, roles={"key_padding_mask": "mask"}),
    Case(TwoTokenInputs, "refused", "2 arguments of forward take token ids"),
    Case(SwitchesAndNumbers, roles={"scale": "option", "deep": "option", "kind": "option"}),
    Case(NoDefaultSwitch, "fails", "temperature=… in the call"),
    Case(NanoGPT, layout="gpt", roles={"idx": "tokens", "targets": "labels"}),
    Case(WrappedWithoutName, "refused", "no argument of forward is known"),
    Case(WrappedPolitely, roles={"input_ids": "tokens"}),
    Case(LambdaForward, roles={"input_ids": "tokens"}),
    Case(instance_lambda, roles={"input_ids": "tokens"}),
    Case(instance_partial, roles={"idx": "tokens", "scale": "option"}),
    Case(instance_hooked, roles={"idx": "tokens"}, dead=("unused",)),
    Case(scripted, "refused", "roles={'input': 'tokens'}", unknown="scripted"),
    Case(traced, bind={"roles": {"x": "tokens"}}, unknown="scripted"),
    Case(sequential, roles={"input": "tokens"}),
    Case(without_source, unknown="source cannot be read"),
    Case(parallel, roles={"input_ids": "tokens"}),
]
