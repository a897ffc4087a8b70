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


@pytest.mark.parametrize(
    "boundaries", [None, torch.tensor([0, 5, 16, 32])], ids=["plain", "packed"]
)
def test_training_in_bf16_attends_in_the_faster_precision(boundaries):
    from domainformer.models.layers_domain_transformer import fast_precision

    def attend(given, dtype):
        qkv = [x.detach().to(dtype).requires_grad_() for x in given]
        with torch.autocast("cpu", torch.bfloat16), fast_precision(*qkv, boundaries) as used:
            out = torch.nn.functional.scaled_dot_product_attention(*used, is_causal=True)
        out.float().sin().sum().backward()
        return used[0].dtype, out, [x.grad for x in qkv]

    torch.manual_seed(0)
    given = torch.randn(3, 2, 4, 16, 8).bfloat16()
    dtype, out, gradients = attend(given, torch.bfloat16)
    exact, expected, slow = attend(given, torch.float32)
    assert (dtype, out.dtype) == (torch.float32, torch.float32)
    # The twin enters in float32, and autocast makes bf16 of it: so do all steps of the kernel.
    assert exact == torch.float32
    assert expected.dtype == torch.bfloat16
    assert torch.allclose(out, expected.float(), atol=0.05)
    for gradient, other in zip(gradients, slow, strict=True):
        assert gradient.dtype == torch.bfloat16
        assert torch.allclose(gradient.float(), other, atol=0.05)


@pytest.mark.parametrize("why", ["evaluation", "long", "float32"])
def test_elsewhere_the_precision_stays(why):
    from domainformer.models.layers_domain_transformer import fast_precision

    shape = (1, 1, 1024, 64) if why == "long" else (1, 1, 8, 8)
    given = torch.zeros(shape, dtype=torch.float32 if why == "float32" else torch.bfloat16)
    given.requires_grad_(why != "evaluation")
    with fast_precision(given, given, given) as used:
        assert all(one is given for one in used)
