"""Each check of tier 3, at tiny sizes: a healthy model passes, one wrong line does not."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from domainformer.evaluation.checks import CHECKS, check
from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.kinds import subject_of
from domainformer.evaluation.checks.tier3.baselines import counted
from domainformer.evaluation.checks.training import train

FAST = {"steps": 60, "length": 12, "trials": 2, "export_format": "pt2"}
SABOTAGE = {
    "flat logits": {
        "learning_rates": "fail",
        "short_training": "fail",
        "baselines": "fail",
    },
    "panics at new pairs": {"robustness": "fail"},
    "branch on data": {"export_parity": "fail"},
    "row by row": {"throughput": "warn"},
}


@pytest.mark.parametrize(("fault", "caught"), SABOTAGE.items())
def test_a_wrong_line_fails_the_check_that_is_about_it(tiny, fault, caught):
    report = check(tiny(fault), only=list(caught), **FAST)
    assert {one.name: one.status for one in report} == caught, report.results
    assert all(one.remedy for one in report)


def test_a_healthy_model_passes_all(tiny):
    report = check(tiny(), only=list(CHECKS[3]), **{**FAST, "steps": 100})
    assert all(one.passed for one in report), report.results
    loss = report["baselines"].value
    assert loss < report["baselines"].limit


@pytest.mark.parametrize("name", ["bert", "classifier"])
def test_other_kinds_are_asked_what_they_can_be_asked(pretrained, name):
    options = {**FAST, "steps": 20}
    report = check(pretrained(name), only=["learning_rates", "baselines", "robustness"], **options)
    statuses = {one.name: one.status for one in report}
    assert statuses.pop("learning_rates") in ("pass", "warn")
    assert statuses == {"baselines": "skip", "robustness": "skip"}


class Short(nn.Module):
    """Has places for 12 tokens, and says so."""

    def __init__(self):
        super().__init__()
        self.embed, self.places = nn.Embedding(40, 8), nn.Embedding(12, 8)

    def forward(self, input_ids):
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        return (self.embed(input_ids) + self.places(places)) @ self.embed.weight.T


def test_exports_are_compared_within_the_context(pretrained, one):
    model = Short()
    model.config = SimpleNamespace(vocab_size=40, max_position_embeddings=12)
    assert one(model, "export_parity", export_format="pt2").passed
    assert one(pretrained("classifier"), "export_parity", export_format="pt2").passed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "bert", "t5", "domain", "classifier"])
def test_models_of_transformers_through_all_tiers(pretrained, name):
    report = check(pretrained(name), tier=3, trials=3, export_format="pt2")
    assert not report.failures, report.failures


def test_a_training_is_the_same_twice_and_leaves_the_model_alone(tiny):
    subject = subject_of(tiny())
    context = Context(subject, rows=4, length=8)
    before = subject.model.head.weight.clone()
    runs = [
        train(subject, context.training_batch, steps=5, learning_rate=1e-2).losses for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert before.equal(subject.model.head.weight)


def test_time_ends_a_training_and_it_says_so(tiny):
    subject = subject_of(tiny())
    context = Context(subject, rows=4, length=8)
    found = train(subject, context.training_batch, steps=50, learning_rate=1e-2, seconds=0.0)
    assert found.cut
    assert found.how == "1 steps, cut short by its time"


def test_pairs_are_better_than_single_tokens_and_no_better_than_can_be(tiny):
    context = Context(subject_of(tiny()), steps=60)
    single, pairs = counted(context)
    assert context.markov.entropy_rate - 0.05 < pairs < single
    assert single == pytest.approx(context.markov.unigram_entropy, abs=0.1)
