import pytest
import torch

from domainformer.errors import ConfigError, VisionError
from domainformer.models.vision.balancer import TensionBalancer

NAMES = ("information", "salience", "coupling")


@pytest.fixture
def balancer():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TensionBalancer(12, NAMES, width=16)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_the_formula(balancer):
    scores, query = 7 * drawn(3, 10) + 2, drawn(4, 12, seed=1)
    words = balancer.words(query)
    asked = (balancer.importance(words).softmax(0) * words).sum(0)
    weights = balancer.mixing(asked).softmax(0)
    scale, bias = balancer.scale_and_bias(asked)
    z = (scores - scores.mean(1, keepdim=True)) / scores.std(1, correction=0, keepdim=True)
    expected = scale.tanh().exp() * (weights @ z) + 16 * bias
    balanced = balancer(scores, query)
    assert torch.allclose(balanced.weights, weights, atol=1e-6)
    assert torch.allclose(balanced.scores, expected, atol=1e-5)


@torch.no_grad()
def test_it_starts_with_coupling_a_spread_of_one_and_half_open(balancer):
    scores, query = drawn(50, 3, 64), drawn(50, 6, 12, seed=1)
    balanced = balancer(scores, query)
    assert torch.allclose(balanced.weights.mean(0), torch.tensor([0.1, 0.1, 0.8]), atol=0.03)
    assert 0.7 < balanced.scores.std(-1).mean() < 1.2
    assert 0.4 < (balanced.scores > 0).float().mean() < 0.6


@torch.no_grad()
def test_units_of_a_scorer_do_not_matter(balancer):
    scores, query = drawn(3, 10), drawn(4, 12, seed=1)
    other = scores * torch.tensor([[1.0], [50.0], [3.0]]) + torch.tensor([[9.0], [0.0], [-2.0]])
    assert torch.allclose(balancer(scores, query).scores, balancer(other, query).scores, atol=1e-4)


@torch.no_grad()
def test_padding_of_tokens_and_words_changes_nothing(balancer):
    scores, query = drawn(3, 6), drawn(4, 12, seed=1)
    alone = balancer(scores, query)
    padded = balancer(
        torch.cat([scores, torch.full((3, 2), 1e3)], 1)[None],
        torch.cat([query, torch.full((3, 12), 1e3)])[None],
        mask=torch.tensor([[True] * 6 + [False] * 2]),
        query_mask=torch.tensor([[True] * 4 + [False] * 3]),
    )
    assert torch.allclose(padded.scores[0, :6], alone.scores, atol=1e-5)
    assert torch.equal(padded.scores[0, 6:], torch.zeros(2))


def test_gradient_reaches_every_score_and_every_parameter(balancer):
    scores = drawn(3, 10).requires_grad_()
    (balancer(scores, drawn(4, 12, seed=1)).scores * drawn(10, seed=2)).sum().backward()
    assert (scores.grad.abs().sum(1) > 0).all()
    assert scores.grad[2].norm() > scores.grad[0].norm()  # coupling-heavy
    assert all(parameter.grad.abs().max() > 0 for parameter in balancer.parameters())


@torch.no_grad()
def test_the_control_weighs_every_question_alike():
    blind = TensionBalancer(12, NAMES, use_query=False)
    scores = drawn(3, 10)
    first, second = drawn(4, 12, seed=1), drawn(9, 12, seed=2)
    assert torch.equal(blind(scores, first).scores, blind(scores, second).scores)


def test_what_is_refused(balancer):
    with pytest.raises(VisionError, match="3 scorers are balanced"):
        balancer(torch.zeros(2, 10), torch.zeros(4, 12))
    with pytest.raises(ConfigError, match="nothing to balance"):
        TensionBalancer(12, ())
