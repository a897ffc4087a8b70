"""Each term of the loss against a slow formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from domainformer.errors import ConfigError, RuleError
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.training.rules import attach, make_rules
from domainformer.training.rules.auxiliary import (
    ActivationSparsity,
    ConfidencePenalty,
    LabelSmoothing,
    Orthogonality,
    ZLoss,
)
from domainformer.training.rules.base import Clock, Moment, Seen

V = 7


def seen(dtype=torch.float64, **values):
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, 5, V, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, V, (2, 5), generator=generator)
    targets[0, 2] = targets[1, 4] = -100
    return Seen(nn.Identity(), logits.to(dtype), targets, {}, values)


def probabilities(what):
    """Each scored position's probabilities as plain numbers, and its target."""
    for row in range(2):
        for i in range(5):
            target = int(what.targets[row, i])
            if target != -100:
                powers = [math.exp(float(x)) for x in what.logits[row, i]]
                yield [power / sum(powers) for power in powers], sum(powers), target


def added(rule, what, state=None):
    return rule.auxiliary_loss(what, state or {}, Moment(Clock()))


def test_z_loss():
    slow = [math.log(normaliser) ** 2 for _, normaliser, _ in probabilities(seen())]
    loss, state = added(ZLoss(weight=0.5), seen())
    assert float(loss) == pytest.approx(0.5 * sum(slow) / 8)
    assert ZLoss().metrics(state) == {"term": pytest.approx(sum(slow) / 8)}


def test_confidence_penalty():
    slow = [sum(p * math.log(p) for p in each) for each, _, _ in probabilities(seen())]
    assert float(added(ConfidencePenalty(weight=2), seen())[0]) == pytest.approx(2 * sum(slow) / 8)


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_label_smoothing_makes_the_loss_that_of_torch(epsilon):
    what = seen()
    logits, targets = what.scored()
    plain = F.cross_entropy(logits, targets)
    smooth = F.cross_entropy(logits, targets, label_smoothing=epsilon)
    assert float(plain + added(LabelSmoothing(weight=epsilon), what)[0]) == pytest.approx(
        float(smooth)
    )
    slow = [
        -sum(
            math.log(p) * ((1 - epsilon) * (v == target) + epsilon / V) for v, p in enumerate(each)
        )
        for each, _, target in probabilities(what)
    ]
    assert float(smooth) == pytest.approx(sum(slow) / 8)


@pytest.mark.parametrize("measure", ["l1", "hoyer"])
def test_activation_sparsity(measure):
    generator = torch.Generator().manual_seed(1)
    sites = {n: torch.randn(2, 3, 4, generator=generator, dtype=torch.float64) for n in "ab"}
    slow = []
    for value in sites.values():
        tokens = value.flatten(0, 1).tolist()
        if measure == "l1":
            slow.append(sum(abs(x) for token in tokens for x in token) / 24)
        else:
            ratios = [sum(map(abs, t)) / math.sqrt(sum(x * x for x in t)) for t in tokens]
            slow.append(sum((ratio - 1) / (2 - 1) for ratio in ratios) / 6)
    rule = ActivationSparsity(measure=measure, weight=1)
    assert float(added(rule, seen(**sites))[0]) == pytest.approx(sum(slow) / 2)


def test_hoyer_does_not_shrink_and_has_a_gradient_everywhere():
    rule = ActivationSparsity(measure="hoyer", weight=1)
    value = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    once, twice = (added(rule, seen(a=times * value))[0] for times in (1, 2))
    assert torch.isclose(once, twice)
    zeros = torch.zeros(1, 4, requires_grad=True)
    added(rule, seen(a=zeros))[0].backward()
    assert torch.isfinite(zeros.grad).all()


@pytest.mark.parametrize("shape", [(3, 5), (5, 3)])
@pytest.mark.parametrize("free", [False, True])
def test_orthogonality(shape, free):
    weight = torch.randn(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rows = (weight if shape[0] < shape[1] else weight.T).tolist()
    if free:
        rows = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in rows]
    slow = 0.0
    for i in range(3):
        for j in range(3):
            slow += (sum(a * b for a, b in zip(rows[i], rows[j], strict=True)) - (i == j)) ** 2
    rule = Orthogonality(sites=("0",), free_lengths=free)
    assert float(rule.deviation(weight)) == pytest.approx(slow / 3)


def test_orthogonality_moves_weights_towards_it():
    model = nn.Sequential(nn.Linear(4, 4, bias=False))
    rule = Orthogonality(sites=("0",), weight=1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with attach(rule, model) as attached:
        for _ in range(150):
            logits = model(torch.ones(1, 1, 4))
            optimizer.zero_grad()
            attached.add_auxiliary(
                torch.zeros(()), logits, torch.zeros(1, 1, dtype=torch.long), {}
            ).backward()
            optimizer.step()
    weight = model[0].weight
    assert torch.allclose(weight @ weight.T, torch.eye(4), atol=1e-2)
    with (
        pytest.raises(RuleError, match="no weight"),
        attach(Orthogonality(sites=("0",)), nn.Sequential(nn.ReLU())),
    ):
        pass


@pytest.mark.parametrize("rule", [ZLoss(), LabelSmoothing(), ConfidencePenalty()])
def test_nothing_is_scored_and_half_precision(rule):
    what = seen()
    nothing = Seen(what.model, what.logits, torch.full_like(what.targets, -100), {})
    assert float(added(rule, nothing)[0]) == 0
    coarse, fine = (added(rule, seen(dtype))[0] for dtype in (torch.bfloat16, torch.float64))
    assert coarse.dtype == torch.float32
    assert float(coarse) == pytest.approx(float(fine), rel=0.02)


def test_a_model_that_copies_is_refused():
    config = DomainTransformerConfig.preset(
        "tiny",
        vocab_size=V,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        copy_heads=1,
    )
    model = DomainTransformerForCausalLM(config).train()
    ids = torch.arange(6)[None]
    with attach(ZLoss(), model) as attached, pytest.raises(RuleError, match="copy_heads"):
        output = model(ids, labels=ids)
        attached.add_auxiliary(output.loss, output.logits, ids, {})


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="weight"):
        make_rules([{"label_smoothing": {"weight": 1.5}}])
    with pytest.raises(ConfigError, match="did you mean 'weight'"):
        make_rules([{"z_loss": {"wieght": 1}}])


def test_matrices_are_multiplied_in_full_precision_under_autocast():
    weight = torch.randn(8, 16, generator=torch.Generator().manual_seed(0))
    rule = Orthogonality()
    with torch.autocast("cpu", torch.bfloat16):
        found = rule.deviation(weight)
    assert torch.equal(found, rule.deviation(weight))
