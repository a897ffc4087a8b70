"""Orthogonal factors against the SVD, Muon against a slow twin and against torch's."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from domainformer.training.rules.update import Muon, MuonOptimizer, orthogonalise, polar_express
from domainformer.training.rules.update.orthogonal import _runs

SHAPES = [(16, 16), (16, 20), (12, 40), (40, 12), (1, 9), (9, 1)]


def exact(x):
    u, _, v = torch.linalg.svd(x.double(), full_matrices=False)
    return u @ v


def slow(x, coefficients):
    """One matrix, in double precision, with a plain loop; scaled by the bound of the singular
    values that the fast form uses."""
    x = x.double()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / torch.linalg.svdvals(x).pow(8).sum().pow(1 / 8)
    for a, b, c in coefficients:
        gram = x @ x.T
        x = a * x + b * gram @ x + c * gram @ gram @ x
    return x.T if tall else x


def stack(shape, n=3, scale=1.0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1)) * scale


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_equals_the_slow_twin(shape, scale):
    x = stack(shape, scale=scale)
    coefficients = polar_express(3, 0.03)
    expected = torch.stack([slow(matrix, coefficients) for matrix in x])
    torch.testing.assert_close(orthogonalise(x.double(), coefficients), expected)
    torch.testing.assert_close(orthogonalise(x, coefficients).double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_many_iterations_reach_the_factor_of_the_svd(shape):
    x = stack(shape)
    found = orthogonalise(x, polar_express(12, 0.01)).double()
    torch.testing.assert_close(found, exact(x), rtol=0, atol=2e-3)


def test_the_best_interval_is_reached():
    """What the coefficients promise: [smallest, 1] ends within one number of one."""
    points = torch.linspace(0.03, 1, 2001, dtype=torch.float64)
    errors = []
    for iterations in (1, 2, 3, 4):
        x = points.clone()
        for a, b, c in polar_express(iterations, 0.03):
            x = a * x + b * x**3 + c * x**5
        errors.append((x - 1).abs().max().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.05
    jordan = points.clone()
    for _ in range(3):
        jordan = 3.4445 * jordan - 4.7750 * jordan**3 + 2.0315 * jordan**5
    assert (jordan - 1).abs().max() > 5 * errors[2]


def spectra(rows, columns):
    k = torch.arange(rows)
    shapes = {
        "flat": torch.ones(rows),
        "decaying": torch.exp(-6 * k / rows),
        "power": 1 / (1.0 + k),
        "one": (k < 1) + 1e-6,
        "few": (k < 4) + 1e-6,
        "few over many": torch.where(k < 5, 1.0, 0.03),
    }
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(len(shapes), rows, columns, generator=generator)
    u, _, v = torch.linalg.svd(x, full_matrices=False)
    return u * torch.stack([*shapes.values()])[:, None] @ v


@pytest.mark.parametrize(("iterations", "smallest"), [(2, 0.1), (3, 0.03), (4, 0.01), (12, 0.01)])
@pytest.mark.parametrize("shape", [(64, 64), (64, 256)])
def test_half_precision_never_diverges(iterations, smallest, shape):
    x = spectra(*shape)
    found = orthogonalise(x.bfloat16() * 1e-6, polar_express(iterations, smallest))
    largest = torch.linalg.matrix_norm(found.float(), 2)
    assert largest.max() < 1.3


def test_half_precision_on_one_gram_matrix_does_diverge(monkeypatch):
    """The twin of the test above: without meeting the matrix in between."""
    monkeypatch.setattr("domainformer.training.rules.update.orthogonal._HALF_GROWTH", math.inf)
    coefficients = polar_express(12, 0.01)
    assert _runs(coefficients, half=True) == [coefficients]
    x = spectra(64, 256)
    found = orthogonalise(x.bfloat16(), coefficients).float()
    assert not found.norm(dim=(1, 2)).max() < 1.3 * 64**0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_zeros_stay_zeros(dtype):
    x = torch.zeros(2, 6, 12, dtype=dtype)
    assert not orthogonalise(x, polar_express(3, 0.03)).any()


# The optimizer


def matrices():
    generator = torch.Generator().manual_seed(3)
    shapes = [(6, 6), (6, 6), (12, 4), (4, 12), (6, 6)]
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def give_gradients(parameters, step):
    generator = torch.Generator().manual_seed(step)
    for p in parameters:
        p.grad = torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("scale", ["shape", "adamw"])
def test_muon_against_a_slow_twin(nesterov, scale):
    fast, twin = matrices(), matrices()
    group = {"params": fast, "lr": 0.05, "weight_decay": 0.2, "method": "muon"}
    optimizer = MuonOptimizer(
        [group], momentum=0.9, nesterov=nesterov, scale=scale, iterations=12, precision="fp32"
    )
    momenta = [torch.zeros_like(p) for p in twin]
    for step in range(3):
        give_gradients(fast, step)
        give_gradients(twin, step)
        optimizer.step()
        for i, p in enumerate(twin):
            momenta[i] = 0.9 * momenta[i] + 0.1 * p.grad
            update = 0.1 * p.grad + 0.9 * momenta[i] if nesterov else momenta[i]
            rows, columns = p.shape
            factor = max(1, rows / columns) ** 0.5
            factor = 0.2 * max(rows, columns) ** 0.5 if scale == "adamw" else factor
            p.data = p.data * (1 - 0.05 * 0.2) - 0.05 * factor * exact(update).float()
    for p, q in zip(fast, twin, strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=5e-3)


@pytest.mark.parametrize("scale", ["shape", "adamw"])
def test_muon_against_torch(scale):
    fast, twin = matrices(), matrices()
    group = {"params": fast, "lr": 0.02, "weight_decay": 0.1, "method": "muon"}
    ours = MuonOptimizer([group], iterations=12, scale=scale)
    theirs = torch.optim.Muon(  # in bf16, with the classical coefficients until they converge
        twin,
        lr=0.02,
        weight_decay=0.1,
        ns_coefficients=(15 / 8, -10 / 8, 3 / 8),
        ns_steps=40,
        adjust_lr_fn="match_rms_adamw" if scale == "adamw" else "original",
    )
    start = [p.detach().clone() for p in fast]
    for step in range(3):
        give_gradients(fast, step)
        give_gradients(twin, step)
        ours.step()
        theirs.step()
    for p, q, s in zip(fast, twin, start, strict=True):
        assert (p - q).norm() < 0.03 * (p - s).norm()


def test_tables_heads_and_vectors_are_adamws():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    rule = Muon(embedding_learning_rate=0.3, vector_learning_rate=0.2, learning_rate=0.1)
    optimizer = rule.optimizer(model, learning_rate=1e-3, weight_decay=0.5)
    found = [
        (g["method"], g["lr"], g["weight_decay"], len(g["params"])) for g in optimizer.param_groups
    ]
    assert found == [("adamw", 0.3, 0.0, 1), ("muon", 0.1, 0.5, 1), ("adamw", 0.2, 0.0, 3)]
    twin = nn.Parameter(model[0].weight.detach().clone())
    reference = torch.optim.AdamW([twin], lr=0.3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for step in range(3):
        give_gradients(model.parameters(), step)
        twin.grad = model[0].weight.grad.clone()
        optimizer.step()
        reference.step()
    assert torch.equal(model[0].weight, twin)


def test_with_the_scale_of_adamw_the_rate_is_the_runs():
    model = nn.Linear(4, 4, bias=False)
    (group,) = Muon(scale="adamw").optimizer(model, learning_rate=1, weight_decay=0).param_groups
    assert group["lr"] == 1


def test_a_transposed_layer_moves_like_its_twin():
    linear, transposed = nn.Linear(4, 12, bias=False), Conv1D(12, 4)
    transposed.weight.data = linear.weight.data.T.clone()
    gradient = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    for layer, own in ((linear, gradient), (transposed, gradient.T.contiguous())):
        optimizer = Muon(precision="fp32").optimizer(layer, learning_rate=1e-3, weight_decay=0)
        layer.weight.grad = own
        optimizer.step()
    torch.testing.assert_close(linear.weight, transposed.weight.T)


def test_matrices_take_turns():
    parameters = [nn.Parameter(torch.eye(4)) for _ in range(5)]
    group = {"params": parameters, "lr": 0.1, "method": "muon"}
    optimizer = MuonOptimizer([group], every=2, precision="fp32")
    counts = torch.zeros(5, dtype=torch.int64)
    for step in range(4):
        before = [p.detach().clone() for p in parameters]
        give_gradients(parameters, step)
        optimizer.step()
        moved = [not torch.equal(p, b) for p, b in zip(parameters, before, strict=True)]
        assert sum(moved) in (2, 3)
        counts += torch.tensor(moved)
    assert counts.tolist() == [2] * 5
    # Twice as far as a step of 0.1 with singular values of about one.
    moves = [p - b for p, b in zip(parameters, before, strict=True)]
    largest = torch.linalg.matrix_norm(torch.stack(moves), 2).max()
    assert 0.1 < largest < 0.22


def test_the_step_of_adamw_is_loaded_onto_the_device_of_its_weights():
    """A checkpoint is read onto the processor; the fused kernel wants everything in one place."""

    def optimizer(device):
        vector = nn.Parameter(torch.ones(3, device=device))
        return MuonOptimizer([{"params": [vector], "method": "adamw"}]), vector

    (trained, vector), (other, elsewhere) = optimizer("cpu"), optimizer("meta")
    vector.grad = torch.ones(3)
    trained.step()
    other.load_state_dict(trained.state_dict())
    assert {name: value.device.type for name, value in other.state[elsewhere].items()} == {
        "step": "meta",
        "exp_avg": "meta",
        "exp_avg_sq": "meta",
    }
