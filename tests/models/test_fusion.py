"""The fusion model: crosses as defined, the last real token, missing parts, several targets."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModel

from domainformer.errors import DataError
from domainformer.models import DomainTransformerConfig, JointFusionConfig, JointFusionModel
from domainformer.models.fusion import DCNv2CrossLayer, TabularEncoder, fusion_loss

BACKBONE = DomainTransformerConfig.preset(
    "tiny", vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2
)
TWO = [
    {"name": "late", "kind": "binary", "outputs": 1},
    {"name": "next", "kind": "multiclass", "outputs": 3, "weight": 0.5},
    {"name": "sum", "kind": "regression", "outputs": 1, "center": 10.0, "scale": 4.0},
]


def joint(**values):
    torch.manual_seed(0)
    config = {"backbone": BACKBONE, "n_numbers": 2, "category_sizes": [4], **values}
    return JointFusionModel(JointFusionConfig(**config)).eval()


def inputs(rows=3):
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(3, 30, (rows, 5), generator=generator),
        "numbers": torch.randn(rows, 2, generator=generator, dtype=torch.float64),
        "codes": torch.randint(0, 4, (rows, 1), generator=generator),
    }


def test_a_feature_is_left_out_with_all_its_columns_while_training():
    config = {"n_numbers": 3, "category_sizes": [5], "numeric_width": 4, "backbone": None}
    encoder = joint(**config, feature_dropout=0.5).tabular
    x0, owners = torch.ones(200, 12 + 5), encoder.feature_of_column
    assert torch.equal(encoder._left_out(x0), x0)  # not while predicting
    encoder.train()
    left = encoder._left_out(x0)
    assert set(left.unique().tolist()) == {0.0, 2.0}
    assert left.mean() == pytest.approx(1.0, abs=0.1)
    for feature in range(4):
        columns = left[:, owners == feature]
        assert (columns == columns[:, :1]).all()
    assert not (left[:, owners == 0][:, 0] == left[:, owners == 1][:, 0]).all()
    twin = joint(**config).tabular.train()
    assert torch.equal(twin._left_out(x0), x0)


def test_a_full_cross_layer_is_the_formula():
    layer = DCNv2CrossLayer(5)
    x0, x = torch.randn(4, 5), torch.randn(4, 5)
    wanted = x0 * (x @ layer.linear.weight.T + layer.linear.bias) + x
    assert torch.allclose(layer(x0, x), wanted, atol=1e-6)


def test_a_low_rank_layer_equals_the_full_one_of_its_product():
    low, full = DCNv2CrossLayer(5, rank=2), DCNv2CrossLayer(5)
    with torch.no_grad():
        full.linear.weight.copy_(low.linear.weight @ low.reduce.weight)
        full.linear.bias.copy_(low.linear.bias)
    x0, x = torch.randn(4, 5), torch.randn(4, 5)
    assert torch.allclose(low(x0, x), full(x0, x), atol=1e-6)


def test_dropout_of_a_cross_layer_spares_what_it_adds_to():
    layer = DCNv2CrossLayer(200, dropout=0.5).train()
    x = torch.randn(1, 200)
    unchanged = (layer(x, x) == x).float().mean()
    assert 0.3 < float(unchanged) < 0.7


@pytest.mark.parametrize(
    ("width", "rank", "wanted"),
    [(100, "auto", None), (513, "auto", 64), (9999, "full", None), (10, 3, 3)],
)
def test_the_rank_follows_the_width(width, rank, wanted):
    assert JointFusionConfig(n_numbers=1, cross_rank=rank).rank(width) == wanted


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_nothing(side):
    model, given = joint(), inputs()
    padding = torch.zeros(3, 4, dtype=torch.long)
    ids, ones = given["input_ids"], torch.ones(3, 5, dtype=torch.long)
    parts = [padding, ids] if side == "left" else [ids, padding]
    mask = [padding, ones] if side == "left" else [ones, padding]
    padded = {
        **given,
        "input_ids": torch.cat(parts, dim=1),
        "attention_mask": torch.cat(mask, dim=1),
    }
    with torch.no_grad():
        assert torch.allclose(model(**padded).logits, model(**given).logits, atol=1e-5)
        unmasked = model(**{**padded, "attention_mask": None}).logits
    if side == "right":  # the sabotage: without a mask the last token is padding
        assert not torch.allclose(unmasked, model(**given).logits, atol=1e-5)


def test_either_branch_may_be_absent():
    given = inputs()
    alone = joint(backbone=None)
    assert alone.backbone is None
    assert alone(**given).embedding.shape == (3, 64)
    history = joint(n_numbers=0, category_sizes=[])
    assert history.tabular is None
    assert history(input_ids=given["input_ids"]).embedding.shape == (3, 16)
    with pytest.raises(StrictDataclassError, match="nothing to read"):
        joint(backbone=None, n_numbers=0, category_sizes=[])


def test_a_part_that_is_not_given_is_told():
    with pytest.raises(DataError, match="reads input_ids and codes, and none was given"):
        joint()(numbers=inputs()["numbers"])


def test_the_loss_is_the_weighted_sum_over_known_labels():
    logits = torch.randn(4, 5)
    nan = float("nan")
    labels = torch.tensor([[1, 2, 12.0], [0, nan, 6.0], [nan, 0, nan], [nan, nan, nan]])
    binary = torch.nn.functional.binary_cross_entropy_with_logits(logits[:2, 0], labels[:2, 0])
    classes = torch.nn.functional.cross_entropy(logits[[0, 2], 1:4], torch.tensor([2, 0]))
    value = ((logits[:2, 4] - torch.tensor([0.5, -1.0])) ** 2).mean()
    wanted = binary + 0.5 * classes + value
    assert torch.allclose(fusion_loss(logits, labels, TWO), wanted)
    nothing = fusion_loss(logits, torch.full((4, 3), nan), TWO)
    assert float(nothing) == 0


def test_every_part_gets_gradients():
    model = joint(targets=TWO).train()
    labels = torch.tensor([[1, 2, 12.0], [0, 1, 6.0], [1, 0, 9.0]])
    given = inputs()
    given["numbers"][0] = float("nan")  # else the vectors of missing numbers have no part in it
    model(**given, labels=labels).loss.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert silent == []


def test_unknown_is_trained_now_and_then_and_never_used_otherwise():
    encoder = TabularEncoder(JointFusionConfig(category_sizes=[3], cross_dropout=0, deep_dropout=0))
    codes = torch.full((2000, 1), 2)
    encoder.train()(None, codes).sum().backward()
    assert float(encoder.categories[0].weight.grad[1].abs().sum()) > 0
    encoder.zero_grad()
    encoder.eval()(None, codes).sum().backward()
    assert float(encoder.categories[0].weight.grad[1].abs().sum()) == 0


@pytest.mark.parametrize("embedding", ["plr", "piecewise"])
@pytest.mark.parametrize("backbone", [BACKBONE, None])
def test_a_saved_model_opens_with_its_scaler(tmp_path, embedding, backbone):
    model = joint(backbone=backbone, numeric_embedding=embedding)
    model.tabular.numbers.fit(torch.randn(50, 2).mul(9).add(5).numpy())
    model.save_pretrained(tmp_path)
    other = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(other, JointFusionModel)
    ours, theirs = model.state_dict(), other.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    with torch.no_grad():
        assert torch.allclose(model(**inputs()).logits, other(**inputs()).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cross_rank": "half"}, "a number, auto or full"),
        ({"cross_rank": 0}, "at least 1"),
        ({"cross_layers": 0, "deep_layers": []}, "cross_layers, deep_layers or both"),
        ({"head_dropout": 1.0}, "head_dropout must be in"),
        ({"frequency_scale": 0}, "frequency_scale must be positive"),
        ({"targets": []}, "no target"),
        ({"targets": [{"name": "y", "kind": "ordinal", "outputs": 1}]}, "binary, multiclass"),
        ({"targets": [{"name": "y", "kind": "multiclass", "outputs": 1}]}, "do not fit"),
    ],
)
def test_settings_that_do_not_fit_are_told(values, message):
    with pytest.raises(StrictDataclassError, match=message):
        JointFusionConfig(n_numbers=1, **values)
