import pytest
import torch
from torch import nn

from domainformer.errors import AdapterError
from domainformer.models.universal import bind
from domainformer.models.universal.probes import (
    probe_batch_invariance,
    probe_cache,
    probe_causality,
    probe_determinism,
    probe_gradients,
    probe_modules_called,
    probe_padding_invariance,
    probe_shapes,
)
from domainformer.models.universal.probing import at_rest, draw_tokens, other_tokens, stirred
from domainformer.models.universal.verification import verify

V = 30
TABLE = torch.randn(V, V, generator=torch.Generator().manual_seed(0))


def sums(ids, mask=None):
    return TABLE[ids].cumsum(1)


def constant(ids, mask=None):
    return torch.ones(*ids.shape, V)


def falls(ids, mask=None):
    raise RuntimeError("sizes of tensors must match\nand more")


BY_RUNNER = [
    probe_shapes,
    probe_determinism,
    probe_causality,
    probe_batch_invariance,
    probe_padding_invariance,
]


@pytest.mark.parametrize("probe", BY_RUNNER)
def test_what_a_model_raises_is_a_failure_that_says_so(probe):
    result = probe(falls, vocab_size=V)
    assert result.failed
    assert "RuntimeError: sizes of tensors must match" in result.reason
    assert result.name == probe.__name__.removeprefix("probe_")
    assert result.seconds is not None


def test_our_own_errors_keep_their_next_step():
    def refuses(ids, mask=None):
        raise AdapterError("no logits", next_step="name them")

    assert probe_shapes(refuses, vocab_size=V).remedy == "name them"


@pytest.mark.parametrize("probe", [probe_causality, probe_batch_invariance])
def test_a_model_that_ignores_its_tokens_shows_nothing(probe):
    assert probe(constant, vocab_size=V).status == "skip"
    assert probe_padding_invariance(constant, vocab_size=V).status == "skip"


@pytest.mark.parametrize("leak", [1e-3, 1e-2, 1.0])
def test_small_leaks_are_found(leak):
    assert probe_causality(
        lambda i, m: sums(i) + leak * TABLE[i].mean(1, True), vocab_size=V
    ).failed
    assert probe_batch_invariance(
        lambda i, m: sums(i) + leak * sums(i).mean(0), vocab_size=V
    ).failed


def test_rounding_is_no_leak():
    def noisy(ids, mask=None):
        place = torch.arange(ids.shape[1])[None, :, None] * ids.shape[1] * ids.shape[0]
        return sums(ids) * (1 + 1e-7 * torch.sin(place + ids.sum()))

    assert probe_causality(noisy, vocab_size=V).passed
    assert probe_batch_invariance(noisy, vocab_size=V).passed


def test_what_all_tokens_have_in_common_does_not_drown_a_leak():
    loud = 1000 * torch.randn(V, generator=torch.Generator().manual_seed(1))
    assert probe_causality(
        lambda i, m: TABLE[i] + TABLE[i].mean(1, True) + loud, vocab_size=V
    ).failed


def test_context_that_is_never_read_is_told():
    assert "its own token alone" in probe_causality(lambda i, m: TABLE[i], vocab_size=V).reason


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda i, m: sums(i)[:, -1:], "logits (2, 1, 30)"),
        (lambda i, m: sums(i)[..., :20], "scores 20 ids"),
        (lambda i, m: sums(i) / 0, "not finite"),
        (lambda i, m: sums(i) + torch.zeros(2, 16, V), "(1, 16)"),
    ],
)
def test_shapes_that_are_refused(run, says):
    result = probe_shapes(run, vocab_size=V)
    assert result.failed
    assert says in result.reason


def test_a_wider_head_is_named_and_passes():
    result = probe_shapes(lambda i, m: torch.cat([sums(i), sums(i)], -1), vocab_size=V)
    assert result.passed
    assert "the vocabulary has 30" in result.reason


def test_padding_that_shifts_positions_is_a_warning_only():
    def placed(ids, mask=None):
        seen = ids * mask if mask is not None else ids
        rows = TABLE[seen] * (1 if mask is None else mask[..., None])
        return rows.cumsum(1) + torch.arange(ids.shape[1])[None, :, None] * TABLE[0]

    result = probe_padding_invariance(placed, vocab_size=V)
    assert result.status == "warn", result
    assert "left" in result.reason


def test_a_model_without_a_mask_is_asked_the_right_side_alone():
    assert probe_padding_invariance(sums, vocab_size=V, takes_mask=False).status == "skip"

    def mean(ids, mask):
        return sums(ids) + TABLE[ids].mean(1, True)

    assert probe_padding_invariance(mean, vocab_size=V, takes_mask=False).failed


def test_caches_of_all_kinds():
    def counts(ids, cache):
        found = sums(ids) + (0 if cache is None else cache)
        return found, found[:, -1:]

    def whole(ids, cache):
        ids = ids if cache is None else torch.cat([cache, ids], 1)
        return sums(ids), ids

    assert probe_cache(sums, counts, vocab_size=V).passed
    assert probe_cache(sums, lambda i, c: (counts(i, None)[0], 1), vocab_size=V).failed
    assert "new tokens alone" in probe_cache(sums, whole, vocab_size=V).remedy
    assert probe_cache(sums, None, vocab_size=V).status == "skip"
    assert probe_cache(sums, lambda i, c: (sums(i), None), vocab_size=V).status == "skip"


class Experts(nn.Module):
    """Two of four experts per token, and a tied head that is never called."""

    def __init__(self, shared=False):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(V, 8)
        self.gate = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
        self.head = nn.Linear(8, V, bias=False)
        self.head.weight = self.table.weight
        self.rest = nn.Dropout(0.1)

    def forward(self, ids):
        x = self.table(ids)
        share, chosen = self.gate(x).softmax(-1).topk(2, -1)
        parts = [
            (share * (chosen == n)).sum(-1, keepdim=True) * expert(x)
            for n, expert in enumerate(self.experts)
            if bool((chosen == n).any())
        ]
        return sum(parts) @ self.head.weight.T


def test_experts_get_their_turn_and_tied_weights_count_as_use():
    model = Experts()

    def run(ids, mask):
        return model(ids)

    assert probe_gradients(model, run, vocab_size=V).passed
    result = probe_modules_called(model, run, vocab_size=V)
    assert result.passed
    assert "1 dropouts" in result.reason


def test_frozen_parameters_are_not_asked_for_a_gradient():
    model = Experts()
    model.gate.requires_grad_(False)
    assert probe_gradients(model, lambda i, m: model(i), vocab_size=V).passed
    model.requires_grad_(False)
    assert probe_gradients(model, lambda i, m: model(i), vocab_size=V).status == "skip"


def test_logits_that_are_cut_off_are_told():
    model = Experts()
    result = probe_gradients(model, lambda i, m: model(i).detach(), vocab_size=V)
    assert result.reason == "the logits are cut off from every parameter"


def test_batch_statistics_do_not_move_while_asked():
    model = nn.Sequential(nn.Embedding(V, 8), nn.BatchNorm1d(8), nn.Linear(8, V))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def run(ids, mask):
        return model[2](model[1](model[0](ids).transpose(1, 2)).transpose(1, 2))

    assert probe_gradients(model, run, vocab_size=V).passed
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training


def test_stirring_touches_constants_alone_and_puts_them_back():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    nn.init.zeros_(model[0].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyError), stirred(model):
        assert bool((model[0].weight != 0).all())
        assert torch.equal(model[0].bias, before["0.bias"])
        raise KeyError
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_rest_keeps_what_a_forward_registers_anew():
    model = nn.Sequential(nn.BatchNorm1d(3))
    kept = model[0].running_mean
    with at_rest(model, training=True):
        model(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
    assert model[0].running_mean is kept
    assert bool((kept == 0).all())


@pytest.mark.parametrize("vocab_size", [2, 5, 15, 16, 17, 50_000])
def test_other_tokens_are_others(vocab_size):
    ids = draw_tokens(4, 32, vocab_size, seed=0)
    changed = other_tokens(ids, vocab_size)
    assert bool((ids != changed).all())
    assert int(changed.max()) < vocab_size
    assert int(changed.min()) >= 0


def test_an_encoder_runs_and_is_no_causal_language_model():
    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table = nn.Embedding(V, 16)
            self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
            self.head = nn.Linear(16, V)

        def forward(self, input_ids):
            return self.head(self.layer(self.table(input_ids)))

    verdict = verify(bind(Encoder()), vocab_size=V)
    assert verdict.runs
    assert not verdict.is_causal_language_model
    assert verdict["modules_called"].passed


def test_a_model_that_does_not_run_is_not_asked_further():
    class Broken(nn.Module):
        def forward(self, input_ids):
            return self.missing(input_ids)

    verdict = verify(bind(Broken()), vocab_size=V)
    assert not verdict.runs
    assert verdict["shapes"].failed
    assert {one.status for one in verdict} == {"fail", "skip"}
