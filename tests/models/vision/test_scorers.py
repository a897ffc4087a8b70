"""Properties of all three scorers, and what each of the two without a question measures."""

import math

import pytest
import torch

from domainformer.errors import VisionError
from domainformer.models.vision.coupling import CouplingScorer
from domainformer.models.vision.layout import pad, raster_positions
from domainformer.models.vision.scorers import InformationScorer, SalienceScorer

GRIDS = ((3, 4), (2, 2), (5, 1), (1, 1))
WORDS = (5, 2, 7, 1)

SCORERS = {
    "information": lambda: InformationScorer(16, dimensions=8),
    "salience": lambda: SalienceScorer(16, width=8, dimensions=8),
    "coupling": lambda: CouplingScorer(16, 12, width=16, heads=2),
    "coupling without question": lambda: CouplingScorer(16, 12, 16, 2, use_query=False),
}


@pytest.fixture(params=SCORERS)
def scorer(request):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SCORERS[request.param]()


def images(seed=0):
    chance = torch.Generator().manual_seed(seed)
    features = [torch.randn(r * c, 16, generator=chance) for r, c in GRIDS]
    queries = [torch.randn(count, 12, generator=chance) for count in WORDS]
    return features, queries


def batch_scores(scorer, features, queries, padding=0.0):
    x, mask = pad(features)
    q, query_mask = pad(queries)
    positions, _ = pad([raster_positions(grid) for grid in GRIDS])
    x = x.masked_fill(~mask.unsqueeze(-1), padding)
    q = q.masked_fill(~query_mask.unsqueeze(-1), padding)
    return scorer(x, q, mask=mask, query_mask=query_mask, positions=positions), mask


@pytest.mark.parametrize("padding", [0.0, 1e3])
def test_an_image_scores_the_same_alone_and_among_others(scorer, padding):
    features, queries = images()
    scores, mask = batch_scores(scorer, features, queries, padding)
    for index, grid in enumerate(GRIDS):
        alone = scorer(features[index], queries[index], grid=grid)
        assert torch.allclose(scores[index, : len(alone)], alone, atol=1e-4)
    assert torch.equal(scores[~mask], torch.zeros(int((~mask).sum())))


def test_batch_independence_would_notice_shared_statistics(scorer):
    """The sabotage twin: one mean over the batch is told from one mean per image."""
    features, queries = images()
    mean = torch.cat(features).mean(0)
    moved = [feature + mean * index for index, feature in enumerate(features)]
    changed, _ = batch_scores(scorer, moved, queries)
    same, _ = batch_scores(scorer, features, queries)
    differs = (changed - same).abs().amax(1)
    assert differs[0] < 1e-5  # moved by nothing, whatever happens to the others
    if isinstance(scorer, CouplingScorer):
        assert differs[2] > 1e-3


def test_leading_dimensions_are_those_of_the_input(scorer):
    features, query = torch.randn(2, 3, 6, 16), torch.randn(2, 3, 4, 12)
    scores = scorer(features, query, grid=(2, 3))
    assert scores.shape == (2, 3, 6)
    one = scorer(features[1, 2], query[1, 2], grid=(2, 3))
    assert torch.allclose(scores[1, 2], one, atol=1e-4)


def test_equal_tokens_and_single_tokens_are_finite_with_their_gradients(scorer):
    for features in (torch.ones(6, 16), torch.zeros(1, 16)):
        features.requires_grad_()
        scores = scorer(features, torch.randn(3, 12))
        scores.sum().backward()
        assert torch.isfinite(scores).all()
        assert torch.isfinite(features.grad).all()


@pytest.mark.parametrize("name", ["salience", "coupling"])
def test_every_parameter_gets_a_gradient_at_the_first_step(name):
    scorer = SCORERS[name]()
    features, queries = images()
    scores, _ = batch_scores(scorer, features, queries)
    wanted = torch.randn(scores.shape, generator=torch.Generator().manual_seed(1))
    (scores * wanted).sum().backward()
    dead = [
        name
        for name, parameter in scorer.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert dead == []


def test_other_features_are_refused(scorer):
    with pytest.raises(VisionError, match="scorer for 16 features"):
        scorer(torch.zeros(4, 15), torch.zeros(2, 12))


def test_information_is_the_surprisal_under_the_images_own_gaussian():
    scorer = InformationScorer(16, dimensions=8)
    features, _ = images()
    z = (features[0] @ scorer.projection).double()
    count, size = z.shape
    covariance = torch.cov(z.T, correction=0)
    shrinkage = size / (count + size)
    spread = covariance.diagonal().mean()
    covariance = (1 - shrinkage) * covariance
    covariance += (shrinkage * spread + 1e-6 * spread + 1e-8) * torch.eye(size)
    gaussian = torch.distributions.MultivariateNormal(z.mean(0), covariance)
    scores = scorer(features[0], torch.zeros(1, 12))
    assert torch.allclose(scores.double(), -gaussian.log_prob(z), atol=1e-4)
    assert math.isfinite(float(scores.sum()))


def test_salience_contrast_is_the_distance_to_the_local_and_the_image_mean():
    scorer = SalienceScorer(16, width=8, dimensions=8)
    rows, columns = GRIDS[0]
    features, _ = images()
    z = features[0] @ scorer.projection
    z = z - z.mean(0)
    z = z / z.square().mean(0).sum().sqrt()
    expected = []
    for token in range(rows * columns):
        row, column = divmod(token, columns)
        near = [
            z[r * columns + c]
            for r in range(max(row - 1, 0), min(row + 2, rows))
            for c in range(max(column - 1, 0), min(column + 2, columns))
        ]
        local = (z[token] - torch.stack(near).mean(0)).norm()
        expected.append(local + z[token].norm() + scorer.mlp(features[0][token]).squeeze())
    found = scorer(features[0], torch.zeros(1, 12), grid=GRIDS[0])
    assert torch.allclose(found, torch.stack(expected), atol=1e-3)


def test_a_fixed_projection_is_the_same_in_every_process_and_is_not_trained():
    first, second = InformationScorer(16), InformationScorer(16)
    assert torch.equal(first.projection, second.projection)
    assert list(first.parameters()) == []
    assert "projection" in first.state_dict()
