import numpy as np
import pytest

from domainformer.tokenizers.semantic.kmeans import kmeans, residual_kmeans
from domainformer.tokenizers.semantic.quantizer import Quantizer, collision_rate, usage


def blobs(count=400, centres=8, seed=0):
    random = np.random.default_rng(seed)
    middles = random.normal(size=(centres, 3)) * 10
    owner = random.integers(centres, size=count)
    return middles[owner] + random.normal(size=(count, 3)) * 0.1, owner


def slow_codes(quantizer, features):
    """Row by row, level by level, from the definition."""
    codes = []
    for row in features:
        residual, own = row.copy(), []
        for book in quantizer.codebooks:
            distances = [((residual - centre) ** 2).sum() for centre in book]
            own.append(int(np.argmin(distances)))
            residual = residual - book[own[-1]]
        codes.append(own)
    return np.array(codes)


def test_codes_equal_the_slow_ones():
    features, _ = blobs()
    quantizer = residual_kmeans(features, levels=3, codes=7)
    codes = quantizer.codes(features)
    np.testing.assert_array_equal(codes, slow_codes(quantizer, features))
    order = quantizer.last_level_order(features)
    np.testing.assert_array_equal(order[:, 0], codes[:, -1])
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(7), (400, 1)))


def test_separate_clusters_are_found():
    features, owner = blobs()
    codes = residual_kmeans(features, levels=1, codes=8).codes(features)[:, 0]
    assert len({(a, b) for a, b in zip(owner.tolist(), codes.tolist(), strict=True)}) == 8


def test_centres_are_means_and_every_level_explains_more():
    features, _ = blobs()
    centres = kmeans(features, 5, np.random.default_rng(0), iterations=100)
    owner = ((features[:, None] - centres) ** 2).sum(axis=2).argmin(axis=1)
    for index in range(5):
        np.testing.assert_allclose(centres[index], features[owner == index].mean(axis=0))
    quantizer = residual_kmeans(features, levels=4, codes=5)
    codes = quantizer.codes(features)
    errors = [
        ((features - Quantizer((), quantizer.codebooks[:n]).quantized(codes[:, :n])) ** 2).sum()
        for n in (1, 2, 3, 4)
    ]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_fewer_rows_than_centres(count):
    features = np.arange(count, dtype=float)[:, None]
    quantizer = residual_kmeans(features, levels=2, codes=8)
    assert collision_rate(quantizer.codes(features)) == 0
    assert np.isfinite(quantizer.codebooks).all()


def test_equal_rows_and_a_sample_of_many():
    assert np.isfinite(residual_kmeans(np.ones((9, 2)), levels=2, codes=4).codebooks).all()
    features, _ = blobs(count=2000, centres=2)
    codes = residual_kmeans(features, levels=1, codes=2).codes(features)
    assert usage(codes, 2) == [1.0]


def test_the_seed_decides():
    features, _ = blobs()
    first, again, other = (residual_kmeans(features, codes=9, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.codebooks, again.codebooks)
    assert not np.array_equal(first.codebooks, other.codebooks)


def test_progress_and_arrays():
    told = []
    features, _ = blobs()
    quantizer = residual_kmeans(features, codes=4, progress=lambda *news: told.append(news))
    assert told == [(0, 3, "k-means"), (1, 3, "k-means"), (2, 3, "k-means")]
    layers = ((np.eye(3), np.ones(3)), (np.eye(3)[:, :2], np.zeros(2)))
    encoder = Quantizer(layers, quantizer.codebooks[:, :, :2])
    restored = Quantizer.from_arrays(encoder.arrays())
    np.testing.assert_array_equal(restored.codes(features), encoder.codes(features))
    hidden = np.maximum(features + 1, 0)[:, :2]
    np.testing.assert_allclose(encoder.latent(features), hidden)


def test_the_share_that_collides():
    assert collision_rate(np.empty((0, 3), np.int32)) == 0
    assert collision_rate(np.array([[1, 2], [1, 2], [1, 3]])) == pytest.approx(1 / 3)
