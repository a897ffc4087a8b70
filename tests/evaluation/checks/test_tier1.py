"""Each check of tier 1: a healthy model passes it, and a model with one wrong line fails it."""

import numpy as np
import pytest
import torch
from torch import nn

from domainformer.evaluation.checks import CHECKS, check
from domainformer.models import JointFusionConfig, JointFusionModel

SABOTAGE = {
    "NaN weight": ("shapes", "fail"),
    "hidden randomness": ("determinism", "fail"),
    "detached head": ("gradients", "fail"),
    "spare module": ("modules_called", "fail"),
    "sees the next token": ("causality", "fail"),
    "reads the answers while it learns": ("causality_in_training", "fail"),
    "mixes rows": ("batch_invariance", "fail"),
    "constant matrix": ("weights", "fail"),
    "twin layers": ("weights", "warn"),
    "large head": ("initial_loss", "warn"),
    "no spread": ("stability", "fail"),
    "flat logits": ("overfit_one_batch", "fail"),
    "layer in a list": ("save_load", "fail"),
    "plain tensor": ("save_load", "warn"),
}


@pytest.mark.parametrize(("fault", "caught"), SABOTAGE.items())
def test_a_wrong_line_fails_the_check_that_is_about_it(tiny, one, fault, caught):
    name, status = caught
    result = one(tiny(fault), name)
    assert result.status == status, result
    assert result.remedy


def test_a_healthy_model_passes_all(tiny):
    report = check(tiny())
    assert [one.name for one in report] == list(CHECKS[1])
    assert {one.name for one in report if not one.passed} == {"cache"}
    assert report["cache"].status == "skip"
    assert report.passed
    assert report.is_causal_language_model


def test_nothing_is_changed_by_checks(tiny):
    model = tiny().train()
    weights = {name: one.clone() for name, one in model.state_dict().items()}
    state = torch.get_rng_state()
    check(model, only=["gradients", "stability", "overfit_one_batch", "save_load"])
    assert torch.equal(state, torch.get_rng_state())
    assert model.training
    assert all(one.grad is None for one in model.parameters())
    assert all(torch.equal(weights[name], one) for name, one in model.state_dict().items())


def test_nan_weights_are_found_by_themselves(tiny, one):
    assert "layers.1.up.weight" in one(tiny("NaN weight"), "weights").reason


def test_large_logits_fail_an_untrained_model_and_no_trained_one(tiny, one):
    assert one(tiny("large head"), "initial_loss", trained=False).failed
    assert one(tiny("large head"), "initial_loss", trained=True).status == "skip"


def test_less_than_the_entropy_of_even_ids_is_a_leak(one):
    class Echo(nn.Embedding):
        def forward(self, input_ids):
            return 9.0 * super().forward(input_ids.roll(-1, 1))

    table = Echo.from_pretrained(torch.eye(50))
    result = one(table, "initial_loss")
    assert result.failed
    assert "sees what it is to predict" in result.reason


def test_a_bidirectional_model_says_so_and_is_not_failed(pretrained):
    report = check(pretrained("bert"))
    assert report.kind == "bidirectional"
    assert report["causality"].status == "skip"
    assert "fills in masked tokens" in report["causality"].reason
    assert report.passed, report.failures
    assert report["overfit_one_batch"].passed


def test_what_is_to_read_both_ways_and_does_not_is_told(tiny, one):
    assert one(tiny(), "causality", causal=False).status == "warn"
    assert one(tiny("sees the next token"), "causality", causal=False).status == "skip"


@pytest.mark.parametrize("name", ["gpt2", "t5", "domain"])
def test_models_of_transformers_and_ours_pass_all(pretrained, name):
    report = check(pretrained(name))
    assert not report.failures, report.failures
    assert report["causality"].passed
    assert report["cache"].passed
    assert report["save_load"].reason.endswith("save_pretrained and from_pretrained")


def test_a_classifier_is_asked_what_it_can_be_asked(pretrained):
    report = check(pretrained("classifier"))
    assert report.kind == "classifier"
    assert not report.failures, report.failures
    assert {one.name for one in report if one.status == "skip"} == {
        "causality",
        "causality_in_training",
        "cache",
    }
    assert report["overfit_one_batch"].passed


def test_a_fusion_model_is_one_and_its_unfitted_scaler_is_found():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = JointFusionModel(JointFusionConfig(n_numbers=3, category_sizes=[4, 5]))
    names = [
        "shapes",
        "determinism",
        "gradients",
        "batch_invariance",
        "overfit_one_batch",
    ]
    [failure] = check(model, only=names).failures
    assert "tabular.numbers.embed.frequencies is zero throughout" in failure.reason
    model.tabular.numbers.fit(np.random.default_rng(0).normal(size=(50, 3)))
    report = check(model, only=names)
    assert report.kind == "classifier"
    assert all(one.passed for one in report), report.failures
