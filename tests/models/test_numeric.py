"""Numeric inputs against the authors' implementation, scikit-learn and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domainformer.errors import ConfigError, DataError
from domainformer.models.numeric import (
    NumericEncoder,
    NumericScaler,
    PeriodicLinearReLU,
    PiecewiseLinearEncoding,
)

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def numbers():
    return np.random.default_rng(0).lognormal(size=(500, 3))


def test_plr_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    plr = PeriodicLinearReLU(2, width=5, n_frequencies=3, frequency_scale=0.3)
    x = torch.randn(4, 2)
    for feature in range(2):
        angles = 2 * torch.pi * x[:, feature, None] * plr.frequencies[feature]
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        wanted = (waves @ plr.linear.weight[feature] + plr.linear.bias[feature]).clamp(min=0)
        assert torch.allclose(plr(x)[:, feature], wanted, atol=1e-6)
    assert float(plr.frequencies.detach().abs().max()) <= 0.9  # 3 σ


@pytest.mark.parametrize("lite", [False, True])
def test_plr_equals_the_authors_implementation(lite):
    oracle = pytest.importorskip("rtdl_num_embeddings")
    theirs = oracle.PeriodicEmbeddings(3, 8, n_frequencies=6, frequency_init_scale=0.05, lite=lite)
    ours = PeriodicLinearReLU(3, 8, n_frequencies=6, frequency_scale=0.05, lite=lite)
    with torch.no_grad():
        ours.frequencies.copy_(theirs.periodic.weight)
        ours.linear.weight.copy_(theirs.linear.weight)
        ours.linear.bias.copy_(theirs.linear.bias)
    x = torch.randn(20, 3)
    assert torch.allclose(ours(x), theirs(x), atol=1e-6)


def test_piecewise_encoding_equals_the_authors_implementation(numbers):
    oracle = pytest.importorskip("rtdl_num_embeddings")
    bins = oracle.compute_bins(torch.from_numpy(numbers), n_bins=7)
    theirs = oracle.PiecewiseLinearEncoding([edges.float() for edges in bins])
    ours = PiecewiseLinearEncoding(3, 7).fit(numbers)
    x = torch.cat([torch.from_numpy(numbers).float(), torch.tensor([[-3.0, 0.0, 99.0]])])
    assert torch.allclose(ours(x).flatten(1), theirs(x), atol=1e-4)


def test_quantile_scaling_equals_scikit_learn_inside(numbers):
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    theirs = preprocessing.QuantileTransformer(n_quantiles=500, output_distribution="normal")
    wanted = theirs.fit_transform(numbers)
    ours, _ = NumericScaler(3, "quantile", n_quantiles=500).fit(numbers)(torch.from_numpy(numbers))
    inside = np.abs(wanted) < 2  # the outermost differ: sklearn cuts at ±5.2, we half a row inside
    assert np.abs(ours.numpy() - wanted)[inside].max() < 0.02
    assert float(ours.abs().max()) < 3.1


@pytest.mark.parametrize("kind", ["standard", "quantile"])
def test_missing_infinite_constant_and_absent_numbers(kind):
    train = np.array([[1.0, 7.0, NAN], [2.0, 7.0, NAN], [NAN, 7.0, NAN], [INF, 7.0, NAN]])
    scaler = NumericScaler(3, kind, n_quantiles=8).fit(train)
    x = torch.tensor([[NAN, 7.0, 1.0], [INF, 9.0, -INF], [-INF, INF, NAN]], dtype=torch.float64)
    scaled, missing = scaler(x)
    assert missing.tolist() == torch.isnan(x).tolist()
    assert bool(torch.isfinite(scaled).all())
    assert float(scaled[0, 0]) == 0
    highest, _ = scaler(torch.tensor([[1e9, 7.0, 0.0]], dtype=torch.float64))
    assert float(scaled[1, 0]) == float(highest[0, 0]) > 0 > float(scaled[2, 0])
    assert scaled[:, 1].tolist() == [0, 0, 0], "a constant says nothing"


def test_large_numbers_keep_their_differences():
    times = 1.7e9 + np.arange(5.0)[:, None]
    scaled, _ = NumericScaler(1).fit(times)(torch.from_numpy(times))
    assert torch.allclose(scaled.diff(dim=0), scaled.diff(dim=0)[:1].expand(4, 1), rtol=1e-3)


def test_tied_values_share_the_middle_of_their_quantiles():
    values = np.array([[0.0]] * 7 + [[1.0]] * 3)
    scaler = NumericScaler(1, "quantile", n_quantiles=10).fit(values)
    scaled, _ = scaler(torch.tensor([[0.0], [1.0]]))
    assert scaled.flatten().tolist() == pytest.approx([-0.385, 1.036], abs=0.1)


@pytest.mark.parametrize("embedding", ["plain", "linear", "piecewise", "plr"])
def test_a_missing_number_is_its_own_vector_and_gets_gradients(embedding, numbers):
    encoder = NumericEncoder(3, embedding, width=4).fit(numbers)
    mean = torch.from_numpy(numbers.mean(axis=0, keepdims=True))
    gone = mean.clone()
    gone[0, 1] = NAN
    known, missing = encoder(mean), encoder(gone)
    assert known.shape == (1, encoder.out_features)
    assert not torch.equal(known, missing), "missing must not look like the mean"
    if encoder.missing is not None:
        (missing * torch.randn_like(missing)).sum().backward()
        assert encoder.missing.grad.abs().sum(dim=1).gt(0).tolist() == [False, True, False]
        assert all(bool(torch.isfinite(parameter.grad).all()) for parameter in encoder.parameters())


def test_the_scaler_is_saved_with_the_weights(numbers):
    encoder = NumericEncoder(3, "piecewise", scaling="quantile").fit(numbers)
    other = NumericEncoder(3, "piecewise", scaling="quantile")
    x = torch.from_numpy(numbers[:5])
    trained = dict(encoder.named_parameters())
    other.load_state_dict(trained, strict=False)
    assert not torch.equal(encoder(x), other(x)), "without its buffers it reads other numbers"
    other.load_state_dict(encoder.state_dict())
    assert torch.equal(encoder(x), other(x))


def test_wrong_requests_are_told():
    with pytest.raises(ConfigError, match="there is no scaling 'minmax'"):
        NumericScaler(1, "minmax")
    with pytest.raises(ConfigError, match="there is no numeric embedding 'fourier'"):
        NumericEncoder(1, "fourier")
    with pytest.raises(ConfigError, match="must be positive"):
        PeriodicLinearReLU(1, frequency_scale=0.0)
    with pytest.raises(DataError, match=r"shape \(0, 2\); \[rows, 2\] is needed"):
        NumericScaler(2).fit(np.empty((0, 2)))
