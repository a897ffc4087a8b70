import subprocess
import sys

import numpy as np
import pytest
import torch

from domainformer.errors import InputError
from domainformer.tokenizers.semantic import RQVAESettings
from domainformer.tokenizers.semantic.quantizer import usage
from domainformer.tokenizers.semantic.rqvae import (
    RQVAE,
    _export,
    _move_unused,
    _start_codebooks,
    train_rqvae,
)

SMALL = RQVAESettings(hidden=(16,), latent=4, epochs=40, batch_size=64, reset_every=5)


def features(count=256, width=12, seed=0):
    random = np.random.default_rng(seed)
    mixed = random.normal(size=(count, 4)) @ random.normal(size=(4, width))
    return (mixed - mixed.mean(axis=0)) / mixed.std(axis=0)


def model_of(x, levels=3, codes=8, start=True):
    torch.manual_seed(0)
    model = RQVAE(x.shape[1], levels, codes, SMALL)
    if start:
        _start_codebooks(model, torch.from_numpy(x).float(), 0)
    return model


def test_the_loss_is_the_formula():
    """Entity by entity and level by level: ‖x − x̂‖² + Σ (‖sg r − e‖² + β ‖r − sg e‖²)."""
    x = features(20)
    model = model_of(x)
    step = model(torch.from_numpy(x).float())
    total = 0.0
    model.requires_grad_(False)
    for row in torch.from_numpy(x).float():
        residual = model.encoder(row)
        chosen = torch.zeros_like(residual)
        for book in model.codebooks_LKZ:
            code = book[((residual - book) ** 2).sum(dim=1).argmin()]
            total += float(((residual - code) ** 2).sum()) * (1 + 0.25)
            chosen, residual = chosen + code, residual - code
        total += float(((model.decoder(chosen) - row) ** 2).sum())
    assert step.loss.item() == pytest.approx(total / 20, rel=1e-5)


def test_gradients_go_where_the_formula_sends_them():
    """Codebooks learn from their own term alone, the decoder from the reconstruction alone."""
    x = torch.from_numpy(features(20)).float()
    model = model_of(x.numpy().astype(np.float64))
    step = model(x)
    step.loss.backward()
    books = model.codebooks_LKZ.grad.clone()
    expected = torch.zeros_like(books)
    residual = model.encoder(x).detach()
    for level, book in enumerate(model.codebooks_LKZ.detach()):
        code = step.codes[:, level]
        expected[level].index_add_(0, code, 2 * (book[code] - residual) / len(x))
        residual = residual - book[code]
    torch.testing.assert_close(books, expected, atol=1e-6, rtol=1e-4)
    # Straight through: the encoder hears the decoder, though the codes stand between.
    model.zero_grad()
    model(x).reconstruction.backward()
    assert model.encoder[0].weight.grad.abs().sum() > 0
    assert model.codebooks_LKZ.grad is None or not model.codebooks_LKZ.grad.any()


def test_codebooks_start_as_k_means_of_the_latents():
    x = features()
    cold, warm = model_of(x, start=False), model_of(x)
    rows = torch.from_numpy(x).float()
    with torch.no_grad():
        error = [
            sum((model.encoder(rows) - z).square().sum().item() for z in [quantized(model, rows)])
            for model in (cold, warm)
        ]
        assert error[1] < error[0] / 4
    codes = _export(warm).codes(x)
    assert min(usage(codes, 8)) == 1.0


def quantized(model, rows):
    return torch.from_numpy(_export(model).quantized(_export(model).codes(rows.double().numpy())))


def test_unused_codes_move_and_used_ones_stay():
    x = features()
    model, rows = model_of(x, levels=1), torch.from_numpy(x).float()
    optimizer = torch.optim.AdamW(model.parameters())
    model(rows).loss.backward()
    optimizer.step()
    with torch.no_grad():
        model.codebooks_LKZ[0, 5] = 1e6
    before = model.codebooks_LKZ.detach().clone()
    moved = _move_unused(model, rows, optimizer, torch.Generator().manual_seed(0))
    changed = (model.codebooks_LKZ != before).any(dim=2)[0].nonzero().ravel().tolist()
    assert (moved, changed) == (1, [5])
    assert not optimizer.state[model.codebooks_LKZ]["exp_avg"][0, 5].any()
    assert 5 in model(rows).codes[:, 0]


def test_training_learns_and_exports_what_torch_computes():
    x = features()
    trained = train_rqvae(x, codes=8, settings=SMALL)
    errors = [epoch["reconstruction"] for epoch in trained.history]
    assert errors[-1] < 0.7 * errors[0]
    assert 0 < trained.unexplained < 0.5
    assert all(epoch["moved"] == 0 for epoch in trained.history[28:])  # the last 30 % are settled
    codes = trained.quantizer.codes(x)
    assert min(usage(codes, 8)) >= 0.9
    model = model_of(x)
    exported = _export(model)
    with torch.no_grad():
        latent = model.encoder(torch.from_numpy(x).float()).numpy()
    np.testing.assert_allclose(exported.latent(x), latent, atol=1e-5)
    agree = exported.codes(x) == model(torch.from_numpy(x).float()).codes.numpy()
    assert agree.mean() > 0.99


def test_the_seed_decides_and_torchs_own_state_stays():
    x = features(64)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    settings = RQVAESettings(hidden=(8,), latent=2, epochs=3)
    first, again, other = (train_rqvae(x, codes=4, settings=settings, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    np.testing.assert_array_equal(first.quantizer.codebooks, again.quantizer.codebooks)
    assert not np.array_equal(first.quantizer.codebooks, other.quantizer.codebooks)


def test_inputs_that_are_not_standardised_collapse():
    """The sabotage twin of standardising: vectors of length 1 that all point one way."""
    random = np.random.default_rng(0)
    raw = 1.0 + 0.01 * features(400)
    raw /= np.linalg.norm(raw, axis=1, keepdims=True)
    standard = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    settings = RQVAESettings(hidden=(16,), latent=4, epochs=30, reset_every=100)
    spread = []
    for inputs in (raw, standard):
        codes = train_rqvae(
            inputs, codes=16, settings=settings, seed=int(random.integers(9))
        ).quantizer.codes(inputs)
        spread.append(len(np.unique(codes, axis=0)))
    assert spread[0] < spread[1] / 2


def test_progress_and_settings_out_of_range():
    told = []
    settings = RQVAESettings(hidden=(), latent=2, epochs=2)
    train_rqvae(features(32), codes=2, settings=settings, progress=lambda *n: told.append(n[:2]))
    assert told == [(1, 2), (2, 2)]
    for wrong in ({"epochs": 0}, {"settled": 2.0}, {"latent": 0}, {"hidden": (0,)}, {"beta": -1.0}):
        with pytest.raises(InputError, match="must be"):
            RQVAESettings(**wrong)


def test_using_codes_loads_no_torch():
    program = """
import sys
import polars as pl
from domainformer.schema import FieldSpec
from domainformer.tokenizers import fit_semantic_ids
spec = FieldSpec("p", "categorical_entity", semantic_levels=2, semantic_codes=4)
items = pl.DataFrame({"p": range(64), "x": [float(i) for i in range(64)]})
ids = fit_semantic_ids(None, spec, items=items, method="kmeans").tokenizer
ids.with_entities(pl.DataFrame({"p": [99], "x": [3.5]})).encode(pl.Series([99]))
assert not {"torch", "transformers"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
