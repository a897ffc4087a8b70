import pytest
import torch
from torch.nn import functional as F

from domainformer.models import DomainTransformerConfig
from domainformer.models.layers_domain_transformer import (
    DomainTransformerMLP,
    eager_attention_forward,
    make_norm,
    rotary_angles,
    rotate,
)


def test_rotary_scores_depend_on_distance_alone():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64).unbind(0)

    def score(at_q, at_k):
        turned = [
            rotate(x, *rotary_angles(torch.tensor([[at]]), 8, 10000.0))
            for x, at in ((q, at_q), (k, at_k))
        ]
        return (turned[0] * turned[1]).sum().item()

    assert score(7, 3) == pytest.approx(score(107, 103), rel=1e-4)
    assert score(7, 3) != pytest.approx(score(7, 4), rel=1e-2)


def test_rotary_turns_each_pair_by_position_over_wavelength():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    turned = rotate(x, *rotary_angles(torch.tensor([[5]]), 4, 100.0)).flatten()
    for i, angle in enumerate((5.0, 5.0 / 10)):  # 100^(-0/4), 100^(-2/4)
        pair = torch.complex(x.flatten()[i], x.flatten()[i + 2])
        expected = pair * torch.exp(torch.tensor(1j * angle))
        torch.testing.assert_close(turned[i], expected.real)
        torch.testing.assert_close(turned[i + 2], expected.imag)


def test_eager_attention_equals_the_kernel():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 6, 8).unbind(0)
    allowed = torch.ones(6, 6, dtype=torch.bool).tril()
    mask = torch.zeros(6, 6).masked_fill(~allowed, torch.finfo(torch.float32).min)
    out, weights = eager_attention_forward(torch.nn.Module().eval(), q, k, v, mask, 8**-0.5)
    kernel = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(out, kernel)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 6))
    assert (weights[..., ~allowed] == 0).all()


def test_mlps_are_their_formulas():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 16)
    for kind in ("gelu", "swiglu"):
        mlp = DomainTransformerMLP(
            DomainTransformerConfig(hidden_size=16, num_attention_heads=2, mlp=kind)
        )
        up = x @ mlp.up_proj.weight.T
        inner = (
            up * 0.5 * (1 + torch.erf(up / 2**0.5))
            if kind == "gelu"
            else up * (gate := x @ mlp.gate_proj.weight.T) * torch.sigmoid(gate)
        )
        torch.testing.assert_close(mlp(x), inner @ mlp.down_proj.weight.T)


def test_norms_are_their_formulas():
    x = torch.randn(2, 3, 16)
    layer = make_norm(DomainTransformerConfig(hidden_size=16, norm="layernorm"))(x)
    root = make_norm(DomainTransformerConfig(hidden_size=16, norm="rmsnorm"))(x)
    centred = x - x.mean(-1, keepdim=True)
    torch.testing.assert_close(
        layer, centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    )
    torch.testing.assert_close(root, x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt())
