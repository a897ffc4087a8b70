import pytest
import torch

from domainformer.errors import ConfigError
from domainformer.models.vision.coupling import CouplingScorer, QueryEncoder, sinusoids
from domainformer.models.vision.layout import OFFSETS, batch_layout, standardise


@pytest.fixture
def scorer():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CouplingScorer(16, 12, width=16, heads=2)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_every_head_is_a_condition_on_the_words(scorer):
    """The formula of the docstring, head by head and word by word, without its short cut."""
    features, query = drawn(6, 16), drawn(4, 12, seed=1)
    layout = batch_layout(features[None], None, None, (2, 3))
    words, _ = scorer.query_encoder(query[None], torch.ones(1, 4, dtype=torch.bool))
    importance = scorer.importance(words[0]).softmax(0)
    tokens = scorer.token_heads(scorer.tokens(features[None], layout))[0]
    asked = scorer.query_heads(words[0])
    expected = torch.zeros(6)
    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        match = torch.zeros(6)
        for word in range(4):
            match += importance[word, head] * (tokens[:, part] @ asked[word, part] / 8**0.5)
        expected += torch.log(1 / (1 + torch.exp(-match)))
    expected = torch.log(1 + torch.exp(4 + expected)) + 0.05 * (4 + expected)
    expected = standardise(expected, torch.ones(6, dtype=torch.bool))
    kernel = scorer.kernel((importance[:, 2:] * words[0]).sum(0))
    shifted = torch.zeros(6)
    for token in range(6):
        for offset, (down, right) in enumerate(OFFSETS):
            row, column = token // 3 + down, token % 3 + right
            if 0 <= row < 2 and 0 <= column < 3:
                shifted[token] += kernel[offset] * expected[row * 3 + column]
    found = scorer(features, query, grid=(2, 3))
    assert torch.allclose(found, shifted, atol=1e-4)


@torch.no_grad()
def test_the_order_of_words_matters(scorer):
    features, query = drawn(6, 16), drawn(4, 12, seed=1)
    swapped = query[[2, 1, 0, 3]]
    assert not torch.allclose(scorer(features, query), scorer(features, swapped), atol=1e-3)


@torch.no_grad()
def test_the_same_feature_scores_differently_in_another_row_or_column(scorer):
    features = torch.ones(1, 6, 16)
    tokens = scorer.tokens(features, batch_layout(features, None, None, (2, 3)))[0]
    assert torch.cdist(tokens, tokens)[~torch.eye(6, dtype=torch.bool)].min() > 1e-3


@torch.no_grad()
def test_the_kernel_starts_near_the_identity(scorer):
    layout = batch_layout(torch.ones(1, 20, 16), None, None, (4, 5))
    scores = drawn(1, 20)
    shifted = scorer.shift(scores, drawn(1, 16, seed=2), layout)
    assert torch.corrcoef(torch.cat([scores, shifted]))[0, 1] > 0.9


@torch.no_grad()
def test_the_control_never_sees_the_question(scorer):
    features = drawn(6, 16)
    blind = CouplingScorer(16, 12, width=16, heads=2, use_query=False)
    first, second = drawn(4, 12, seed=1), drawn(9, 12, seed=2)
    assert torch.equal(blind(features, first), blind(features, second))
    # Sabotage: the same check fails for a scorer that reads.
    assert not torch.allclose(scorer(features, first), scorer(features, second), atol=1e-3)


def test_a_question_of_padding_alone_gives_finite_words():
    encoder = QueryEncoder(12, 16, 2)
    words, _ = encoder(torch.zeros(1, 3, 12), torch.zeros(1, 3, dtype=torch.bool))
    assert torch.isfinite(words).all()


def test_sinusoids_tell_rows_apart():
    table = sinusoids(torch.arange(40), 64)
    assert table.shape == (40, 64)
    assert torch.cdist(table, table)[~torch.eye(40, dtype=torch.bool)].min() > 1.0


@pytest.mark.parametrize(("width", "heads"), [(16, 3), (9, 3), (0, 1)])
def test_impossible_sizes_are_refused(width, heads):
    with pytest.raises(ConfigError, match="even and divisible"):
        CouplingScorer(16, 12, width=width, heads=heads)
