"""Models that are right in ways that look wrong: verification must not fail them."""

import random

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from domainformer.errors import AdapterError
from domainformer.models.universal import bind, verify

V, WIDTH = 40, 16


class Sums(nn.Module):
    """Running means and a feed-forward layer: causal, whatever else is added."""

    def __init__(self, kind="plain"):
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.table, self.head = nn.Embedding(V, WIDTH), nn.Linear(WIDTH, V)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        if kind == "frozen helper":
            self.helper = nn.Module()
            self.helper.scale = nn.Parameter(torch.linspace(0.5, 1, WIDTH), requires_grad=False)
        if kind == "short context":
            self.places = nn.Embedding(8, WIDTH)
        if kind == "batch norm":
            self.norm = nn.BatchNorm1d(WIDTH)

    def forward(self, tokens):
        x = self.table(tokens)
        if self.kind == "frozen helper":
            x = x * self.helper.scale
        if self.kind == "short context":
            x = x + self.places(torch.arange(x.shape[1]))
        x = x + x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None].to(x)
        branch = self.down(F.gelu(self.up(x)))
        if self.kind == "batch norm":
            branch = self.norm(branch.transpose(1, 2)).transpose(1, 2)
        if self.kind == "dropped layers" and self.training and random.random() < 0.99:
            branch = branch * 0
        if self.kind == "dropout":
            branch = F.dropout(branch, 0.3, self.training)
        return self.head(x + branch).float()


class Routed(Sums):
    """Two of four experts per token; dropout within them draws by how many tokens they got."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(WIDTH, 4)
        self.experts = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, tokens):
        x = self.table(tokens)
        flat = (x + x.cumsum(1)).flatten(0, 1)
        share, chosen = self.gate(flat).softmax(-1).topk(2, -1)
        mixed = self.down(F.gelu(self.up(flat)))
        for number, expert in enumerate(self.experts):
            rows, which = (chosen == number).nonzero(as_tuple=True)
            found = F.dropout(expert(flat[rows]), 0.3, self.training) * share[rows, which][:, None]
            mixed = mixed.index_add(0, rows, found)
        return self.head(mixed).view(*tokens.shape, -1)


class Autocast(Sums):
    def forward(self, tokens):
        with torch.autocast("cpu", torch.bfloat16):
            return super().forward(tokens)


class Lecture(Sums):
    """Batch and length become one axis for the loss, as in many a tutorial."""

    def forward(self, idx, targets=None):
        logits = super().forward(idx)
        if targets is None:
            return logits, None
        logits = logits.view(-1, V)
        return logits, F.cross_entropy(logits, targets.view(-1))


@pytest.mark.parametrize(
    "model",
    [
        Sums(),
        Sums().bfloat16(),
        Sums("frozen helper"),
        Sums("dropped layers"),
        Sums("dropout"),
        Routed(),
        Autocast(),
        Lecture(),
    ],
    ids=lambda model: f"{type(model).__name__} {model.kind} {model.head.weight.dtype}",
)
def test_nothing_fails(model):
    state = random.getstate()
    verdict = verify(bind(model), vocab_size=V)
    random.setstate(state)
    assert verdict.passed, verdict.to_json()
    assert verdict.is_causal_language_model
    assert verdict["causality_in_training"].passed


def test_coarse_logits_in_a_fine_type_are_held_to_the_coarse_limit():
    class Long(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Embedding(V, 64), nn.Linear(64, V)).bfloat16()

        def forward(self, tokens):
            rounding = 0.004 * torch.sin(torch.tensor(float(tokens.shape[1])))
            return self.layers(tokens).float() * (1 + rounding)

    assert verify(bind(Long()), vocab_size=V)["causality"].passed


def test_batch_norm_is_causal_in_evaluation_and_warned_of_in_training():
    verdict = verify(bind(Sums("batch norm")), vocab_size=V)
    assert verdict.passed
    assert verdict.is_causal_language_model
    assert verdict["causality_in_training"].status == "warn"


def test_a_short_context_is_asked_at_its_own_length():
    verdict = verify(bind(Sums("short context")), vocab_size=V)
    assert verdict.passed
    assert "of 16 tokens it raised" in verdict["shapes"].reason


def test_rows_of_the_flattened_logits_stay_with_their_ids():
    model, ids = Lecture(), torch.tensor([[5, 6, 7], [8, 9, 10]])
    assert torch.equal(bind(model)(ids).logits, Sums.forward(model, ids))


def test_the_vocabulary_is_found_or_asked_for():
    assert verify(bind(Sums())).passed
    with pytest.raises(AdapterError, match="vocabulary"):
        verify(bind(Sums("short context")))
