"""One healthy model, and one wrong line at a time: verification names the very line."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from domainformer.models.universal import bind
from domainformer.models.universal.verification import verify

V, WIDTH, CONTEXT = 40, 16, 48


class Block(nn.Module):
    """Attention with a cache of keys and values, and a feed-forward layer; width 16, two heads."""

    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        self.norm, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)
        # As many trainers begin: the branch adds nothing yet, and hides whatever is wrong in it.
        nn.init.zeros_(self.out.weight)

    def forward(self, x, mask, past):
        batch, length, _ = x.shape
        q, k, v = (
            part.view(batch, length, 2, -1).transpose(1, 2)
            for part in self.qkv(self.norm(x)).chunk(3, -1)
        )
        if past is not None and self.fault != "forgotten cache":
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        total = k.shape[2]
        allowed = torch.ones(length, total, dtype=torch.bool).tril(total - length)
        if self.fault == "non-causal mask":
            allowed = torch.ones_like(allowed)
        if self.fault == "mask off by one":
            allowed = torch.ones(length, total, dtype=torch.bool).tril(total - length + 1)
        if self.fault == "leak in training" and self.training:
            allowed = torch.ones_like(allowed)
        if self.fault == "leak at one place" and total > 6 and length > 6:
            allowed[5, 6] = True
        if mask is not None and self.fault == "mask of the first row":
            mask = mask[:1].expand(batch, -1)
        if mask is not None and past is not None and self.fault == "mask forgotten with a cache":
            mask = torch.ones_like(mask)
        if mask is not None and self.fault not in ("ignored padding mask", "mask of vectors alone"):
            allowed = allowed & mask[:, None, None, :].bool()
            # A padded query sees itself: softmax over nothing is not a number.
            itself = torch.ones(length, total, dtype=torch.bool).tril(total - length)
            allowed = allowed | itself.triu(
                0 if self.fault == "eye of the cache" else total - length
            )
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~allowed, -1e9)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, WIDTH)
        x = x + self.out(mixed)
        weight = self.up.weight.detach() if self.fault == "detached parameter" else self.up.weight
        hidden = F.gelu(F.linear(self.norm2(x), weight, self.up.bias))
        if self.fault == "NaN gradient":
            hidden = hidden + torch.where(hidden > 9, (hidden - 9).sqrt(), torch.zeros(()))
        return x + self.down(hidden), (k, v)


class Tiny(nn.Module):
    def __init__(self, fault=None):
        super().__init__()
        torch.manual_seed(0)
        self.fault = fault
        self.tokens, self.places = nn.Embedding(V, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.block = Block(fault)
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, V)
        if fault == "uncalled submodule":
            self.spare = nn.Linear(WIDTH, WIDTH)
        if fault == "kept state":
            self.register_buffer("seen", torch.zeros(WIDTH))

    def forward(self, input_ids, attention_mask=None, position_ids=None, past_key_values=None):
        before = 0 if past_key_values is None else past_key_values[0].shape[2]
        if position_ids is None:
            offset = 0 if self.fault == "ignored cache offset" else before
            position_ids = torch.arange(input_ids.shape[1])[None] + offset
        if self.fault == "positions from the end":
            position_ids = position_ids.flip(-1)
        x = self.tokens(input_ids) + self.places(position_ids)
        if self.fault == "mask of vectors alone" and attention_mask is not None:
            x = x * attention_mask[:, -x.shape[1] :, None]
        if self.fault == "hidden randomness":
            x = x + 0.01 * torch.randn_like(x)
        if self.fault == "seeds itself":
            torch.manual_seed(1)
        if self.fault == "leak of the batch mate":
            x = x - 0.1 * x.mean(0, keepdim=True)
        if self.fault == "kept state":
            x = x + self.seen
            self.seen.copy_(x.detach()[0, -1] * 0.1)
        x, cache = self.block(x, attention_mask, past_key_values)
        return {"logits": self.head(self.norm(x)), "past_key_values": cache}


MUTANTS = {
    "non-causal mask": ("causality", "fail"),
    "mask off by one": ("causality", "fail"),
    "positions from the end": ("causality", "fail"),
    "leak at one place": ("causality", "fail"),
    "leak in training": ("causality_in_training", "fail"),
    "ignored padding mask": ("padding_invariance", "fail"),
    "mask of the first row": ("padding_invariance", "fail"),
    "mask of vectors alone": ("padding_invariance", "fail"),
    "mask forgotten with a cache": ("cache", "fail"),
    "eye of the cache": ("cache", "fail"),
    "ignored cache offset": ("cache", "fail"),
    "forgotten cache": ("cache", "fail"),
    "detached parameter": ("gradients", "fail"),
    "NaN gradient": ("gradients", "fail"),
    "hidden randomness": ("determinism", "fail"),
    "kept state": ("determinism", "fail"),
    "seeds itself": ("determinism", "warn"),
    "leak of the batch mate": ("batch_invariance", "fail"),
    "uncalled submodule": ("modules_called", "fail"),
}


def test_the_healthy_twin_passes_everything():
    verdict = verify(bind(Tiny()), vocab_size=V)
    assert {one.name: one.status for one in verdict} == dict.fromkeys(
        [
            "shapes",
            "determinism",
            "gradients",
            "modules_called",
            "causality",
            "causality_in_training",
            "batch_invariance",
            "padding_invariance",
            "cache",
        ],
        "pass",
    )
    assert verdict.runs
    assert verdict.is_causal_language_model


@pytest.mark.parametrize("fault", MUTANTS)
def test_a_mutant_is_caught_by_the_check_that_is_about_it(fault):
    name, status = MUTANTS[fault]
    verdict = verify(bind(Tiny(fault)), vocab_size=V)
    assert verdict.runs
    assert verdict[name].status == status, verdict.to_json()
    assert verdict[name].remedy
    assert verdict.passed == (status != "fail")


@pytest.mark.parametrize("fault", ["non-causal mask", "mask off by one", "leak in training"])
def test_what_leaks_is_no_causal_language_model(fault):
    assert not verify(bind(Tiny(fault)), vocab_size=V).is_causal_language_model


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_catching_does_not_hang_on_the_seed(seed):
    for fault in ("non-causal mask", "ignored padding mask", "ignored cache offset"):
        assert verify(bind(Tiny(fault)), vocab_size=V, seed=seed)[MUTANTS[fault][0]].failed
    assert verify(bind(Tiny()), vocab_size=V, seed=seed).passed


def test_a_projection_that_begins_at_zero_hides_a_leak_unless_stirred(monkeypatch):
    import contextlib

    import domainformer.models.universal.verification as module

    monkeypatch.setattr(module, "stirred", lambda *_, **__: contextlib.nullcontext())
    assert not verify(bind(Tiny("non-causal mask")), vocab_size=V)["causality"].failed


def test_a_projection_that_begins_near_zero_hides_nothing_either():
    model = Tiny("non-causal mask")
    nn.init.normal_(model.block.out.weight, std=1e-7)
    assert verify(bind(model), vocab_size=V)["causality"].failed


def test_buffers_are_as_before_even_where_evaluation_writes_into_them():
    model = Tiny("kept state").eval()
    verify(bind(model), vocab_size=V)
    assert bool((model.seen == 0).all())


def test_verification_leaves_no_trace():
    model = Tiny().train()
    model.block.eval()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [part.training for part in model.modules()]
    state = torch.get_rng_state()
    verify(bind(model), vocab_size=V)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [part.training for part in model.modules()]
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model.head.weight.grad, torch.ones_like(model.head.weight))
    assert model.tokens.weight.grad is None
