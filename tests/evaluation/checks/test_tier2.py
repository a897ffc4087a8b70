"""Each check of tier 2: a healthy model passes it, and a model with one wrong line does not."""

import itertools
import math

import pytest
import torch
from torch import nn

from domainformer.evaluation.checks import CHECKS, check
from domainformer.evaluation.checks.kinds import subject_of
from domainformer.evaluation.checks.tier2.attention import attention_weights
from domainformer.evaluation.checks.tier2.cost import multiplying_weights

FAST = {"steps": 40, "length": 12}
SABOTAGE = {
    "ignored mask": ("padding_invariance", "fail"),
    "vanishing gradients": ("gradient_flow", "fail"),
    "dead units": ("dead_units", "fail"),
    "sees the next token": ("source_entropy", "fail"),
    "flat logits": ("source_entropy", "warn"),
    "keeps its states": ("memory", "fail"),
    "works twice": ("flops", "warn"),
    "cancellation": ("precision", "fail"),
}


@pytest.mark.parametrize(("fault", "caught"), SABOTAGE.items())
def test_a_wrong_line_fails_the_check_that_is_about_it(tiny, one, fault, caught):
    name, status = caught
    result = one(tiny(fault), name, **FAST)
    assert result.status == status, result
    assert result.remedy


def test_a_healthy_model_passes_all(tiny):
    report = check(tiny(), only=list(CHECKS[2]), **FAST)
    skipped = {one.name for one in report if one.status == "skip"}
    assert skipped == {"attention", "text_entropy"}
    assert all(one.passed for one in report if one.name not in skipped), report.results


def test_a_model_of_transformers_passes_all(pretrained):
    names = [name for name in CHECKS[2] if name != "source_entropy"]
    report = check(pretrained("gpt2"), only=names)
    assert not report.failures, report.failures
    assert report["attention"].passed
    assert report["flops"].value == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_attention_of_other_kinds(pretrained, one, name):
    assert one(pretrained(name), "attention").passed


class Attending(nn.Module):
    """One layer of torch's attention, its scores and mask as they are told."""

    def __init__(self, scale=1.0, *, masked=True):
        super().__init__()
        self.masked = masked
        self.embed = nn.Embedding(400, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.head = nn.Linear(16, 400)
        self.attention.in_proj_weight.data *= scale

    def forward(self, input_ids):
        x, length = self.embed(input_ids), input_ids.shape[1]
        future = torch.ones(length, length, dtype=torch.bool).triu(1) if self.masked else None
        return self.head(x + self.attention(x, x, x, attn_mask=future, need_weights=False)[0])


def test_attention_of_torch_is_read_and_its_leaks_are_seen(one):
    assert one(Attending(), "attention").passed
    assert one(Attending(masked=False), "attention").failed
    assert one(Attending(masked=False), "attention", causal=False).passed
    narrow = one(Attending(scale=40.0), "attention")
    assert narrow.status == "warn"
    assert "look at one token alone" in narrow.reason


def test_weights_of_attention_sum_to_one(pretrained):
    layers = attention_weights(subject_of(pretrained("gpt2")), 9, seed=0)
    assert [tuple(one.shape) for one in layers] == [(4, 2, 9, 9)] * 2
    torch.testing.assert_close(layers[0].sum(-1), torch.ones(4, 2, 9))


class Placed(nn.Module):
    """Has places for 20 tokens, and states 40."""

    def __init__(self):
        super().__init__()
        self.config = {"vocab_size": 40}
        self.embed, self.places = nn.Embedding(40, 8), nn.Embedding(20, 8)
        self.head = nn.Linear(8, 40)

    def forward(self, input_ids):
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.head(self.embed(input_ids) + self.places(places))


def test_a_row_that_is_shorter_than_stated_fails(one, pretrained):
    model = Placed()
    assert one(model, "lengths", vocab_size=40).status == "warn"
    model.config = type("Config", (), {"vocab_size": 40, "max_position_embeddings": 40})()
    assert one(model, "lengths").failed
    model.config.max_position_embeddings = 20
    assert one(model, "lengths").reason.endswith("one more is refused")
    assert "goes on beyond" not in one(pretrained("gpt2"), "lengths").reason


def test_what_multiplies_is_counted_and_what_is_looked_up_is_not(pretrained, tiny):
    model = tiny()
    looked_up = model.embed.weight.numel()
    matrices = sum(one.numel() for one in model.parameters() if one.dim() == 2)
    assert multiplying_weights(subject_of(model)) == matrices - looked_up
    gpt2 = pretrained("gpt2")
    tied = sum(one.numel() for one in gpt2.parameters() if one.dim() == 2)
    assert multiplying_weights(subject_of(gpt2)) == tied - gpt2.transformer.wpe.weight.numel()


def words(text, add_special_tokens=True):
    """A tokenizer of single letters."""
    return {"input_ids": [4 + ord(letter) - ord("a") for letter in text if letter != " "]}


def test_the_loss_on_a_text_is_held_against_its_counts(one):
    text = "the cat sat on the mat " * 120
    ids = torch.tensor(words(text)["input_ids"])
    table = torch.full((40, 40), -6.0)
    for first, second in itertools.pairwise(ids):
        table[first, second] = math.log(10)
    asked = {"text": text, "tokenizer": words, "roles": {"input": "tokens"}}
    good = one(nn.Embedding.from_pretrained(table), "text_entropy", **asked)
    assert good.passed, good
    noise = torch.randn(40, 40, generator=torch.Generator().manual_seed(0))
    random = nn.Embedding.from_pretrained(noise)
    assert one(random, "text_entropy", **asked).status == "warn"
    assert one(random, "text_entropy", trained=True, **asked).failed
