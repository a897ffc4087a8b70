"""The parts of a domain transformer: rotary positions, attention, MLP, norm, block.

Shapes are in the names: x_BLW is batch, tokens of a row, width; q_BHLD has heads and the width of
a head.

This file travels with every saved model: it imports torch, transformers and its neighbour.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_domain_transformer import DomainTransformerConfig

_SHORT = 512 * 32  # tokens × width of a head


def rotary_angles(
    positions_BL: torch.Tensor, head_dim: int, theta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every position's angles, float32 [B, 1, L, D] (arXiv 2104.09864)."""
    exponents = torch.arange(0, head_dim, 2, device=positions_BL.device) / head_dim
    angles = positions_BL[:, None, :, None].float() * theta**-exponents
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x_BHLD: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn each pair (i, i + D/2) of numbers by its angle."""
    left, right = x_BHLD.chunk(2, dim=-1)
    turned = x_BHLD * cos + torch.cat((-right, left), dim=-1) * sin
    return turned.to(x_BHLD.dtype)


@contextlib.contextmanager
def fast_precision(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    boundaries: torch.Tensor | None = None,
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Queries, keys and values in the precision in which a training step attends fastest.

    On a processor, the backward pass of PyTorch's attention kernel is slow in bf16 where documents
    are short: 10.6 ms against 2.6 ms in float32 for 48 heads of 64 tokens by 32, even at 512
    tokens by 32, and 0.8 times at 512 by 64. There these three become float32, and
    autocast, which would take it back, is off inside.

    Args:
        query: [B, H, L, D].
        key: As query.
        value: As query.
        boundaries: Of documents in packed rows, [documents + 1] over B × L tokens.
    """
    tokens = query.shape[2]
    if boundaries is not None:
        tokens = query.shape[0] * tokens // max(1, len(boundaries) - 1)  # of a mean document
    short = tokens * query.shape[3] <= _SHORT
    trains = query.device.type == "cpu" and query.requires_grad
    if not (trains and short and query.dtype == torch.bfloat16):
        yield query, key, value
        return
    with torch.autocast("cpu", enabled=False):
        yield query.float(), key.float(), value.float()


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out, for those who want to see the weights [B, H, L, keys]."""
    weights = query @ key.transpose(2, 3) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    weights = F.dropout(weights, p=dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class DomainTransformerAttention(nn.Module):
    """Causal multi-head attention through transformers' attention interface."""

    def __init__(self, config: DomainTransformerConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.head_dim
        self.scaling = config.head_dim**-0.5
        self.is_causal = True
        width = config.hidden_size
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, width, bias=False)
        self.v_proj = nn.Linear(width, width, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.o_proj.adds_to_stream = True  # drawn smaller, see _init_weights

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_embeddings: tuple[torch.Tensor, torch.Tensor] | None = None,
        past_key_values: Cache | None = None,
        attention_backend: str | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend; returns what is added to the stream [B, L, W] and the weights, if any."""
        x_BLW = hidden_states
        by_head = (*x_BLW.shape[:-1], -1, self.head_dim)
        q_BHLD = self.q_proj(x_BLW).view(by_head).transpose(1, 2)
        k_BHLD = self.k_proj(x_BLW).view(by_head).transpose(1, 2)
        v_BHLD = self.v_proj(x_BLW).view(by_head).transpose(1, 2)
        if position_embeddings is not None:
            q_BHLD = rotate(q_BHLD, *position_embeddings)
            k_BHLD = rotate(k_BHLD, *position_embeddings)
        if past_key_values is not None:
            k_BHLD, v_BHLD = past_key_values.update(k_BHLD, v_BHLD, self.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            attention_backend or self.config._attn_implementation, eager_attention_forward
        )
        with fast_precision(q_BHLD, k_BHLD, v_BHLD, kwargs.get("cu_seq_lens_q")) as qkv:
            out, weights = attend(
                self,
                *qkv,
                attention_mask,
                dropout=self.config.attention_dropout if self.training else 0.0,
                scaling=self.scaling,
                **kwargs,
            )
        return self.o_proj(out.to(q_BHLD.dtype).reshape(x_BLW.shape)), weights


class DomainTransformerMLP(nn.Module):
    """gelu: down(gelu(up(x))); swiglu: down(silu(gate(x)) · up(x)) (arXiv 2002.05202)."""

    def __init__(self, config: DomainTransformerConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.gate_proj = nn.Linear(width, inner, bias=False) if config.mlp == "swiglu" else None
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.activation = nn.GELU() if config.mlp == "gelu" else nn.SiLU()
        self.down_proj = nn.Linear(inner, width, bias=False)
        self.down_proj.adds_to_stream = True  # drawn smaller, see _init_weights

    def forward(self, x_BLW: torch.Tensor) -> torch.Tensor:
        """Transform each token by itself."""
        up = self.up_proj(x_BLW)
        if self.gate_proj is None:
            return self.down_proj(self.activation(up))
        return self.down_proj(self.activation(self.gate_proj(x_BLW)) * up)


def make_norm(config: DomainTransformerConfig) -> nn.Module:
    """The norm that the configuration asks for."""
    norm = nn.LayerNorm if config.norm == "layernorm" else nn.RMSNorm
    return norm(config.hidden_size, eps=config.norm_eps)


class DomainTransformerBlock(GradientCheckpointingLayer):
    """One pre-norm block: attention and MLP, each added to the residual stream."""

    def __init__(self, config: DomainTransformerConfig, layer_idx: int) -> None:
        super().__init__()
        self.attention_norm = make_norm(config)
        self.self_attn = DomainTransformerAttention(config, layer_idx)
        self.mlp_norm = make_norm(config)
        self.mlp = DomainTransformerMLP(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden_states: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        """[B, L, W] to [B, L, W]."""
        x_BLW = hidden_states
        attended, _ = self.self_attn(self.attention_norm(x_BLW), **kwargs)
        x_BLW = x_BLW + self.dropout(attended)
        return x_BLW + self.dropout(self.mlp(self.mlp_norm(x_BLW)))


__all__ = [
    "DomainTransformerAttention",
    "DomainTransformerBlock",
    "DomainTransformerMLP",
    "make_norm",
    "rotary_angles",
]
