"""The way of knowing that reads the question: which tokens does it ask about?

Shape legend: N images, K tokens, D features, Q words, E query features, W width, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from domainformer.errors import ConfigError
from domainformer.models.vision.layout import CENTRE, OFFSETS, TokenLayout, standardise
from domainformer.models.vision.reading import Normed, Read
from domainformer.models.vision.scorers import Scorer

FLOOR: Final = -4.0
"""Log-odds below which the conditions of a question are failed, and hardly further."""
LEAK: Final = 0.05
"""How much further: without it a condition that all tokens fail has hardly a gradient."""


def sinusoids(positions: Tensor, width: int, longest: float = 100.0) -> Tensor:
    """Sines and cosines of integer positions, ``[..., width]``.

    ::

        sin(p / longest^(2i / width)),  cos(p / longest^(2i / width))

    Grids and questions are short, so the wavelengths end at 2π · 100 and not at 2π · 10 000: more
    of them tell row 3 from row 4.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.5.
    """
    rates = longest ** -(torch.arange(0, width, 2, device=positions.device) / width)
    angles = positions.unsqueeze(-1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def place_table(count: int, width: int, like: Tensor) -> Tensor:
    """The :func:`sinusoids` of 0, 1, 2, …, ``[count, width]``, on the device and of the type."""
    room = max(64, 1 << (count - 1).bit_length())  # questions of all lengths share few tables
    return _place_table(room, width, like.device, like.dtype)[:count]


@lru_cache(maxsize=16)
def _place_table(count: int, width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    # As with layouts: a table first asked for in inference must serve a training, too.
    with torch.inference_mode(False):
        return sinusoids(torch.arange(count, device=device), width).to(dtype)


class QueryEncoder(nn.Module):
    """The question's words, each in the light of the others: ``[N, Q, E] -> [N, Q, W]``.

    One pre-norm layer of self-attention over words that know their position and the word before
    them: "red on blue" is another question than "blue on red", and in "row 3, column 5" each
    number belongs to the word before it.

    Args:
        query_size: E, of the language model's text embeddings.
        width: W.
        heads: of the attention; divides W.
        use_query: False builds the control that never sees the question: the same network, whose
            question is one learned vector.
    """

    def __init__(self, query_size: int, width: int, heads: int, *, use_query: bool = True) -> None:
        super().__init__()
        self.width, self.heads = width, heads
        self.constant = None if use_query else nn.Parameter(torch.randn(1, query_size))
        self.project = nn.Sequential(nn.LayerNorm(query_size), nn.Linear(query_size, width))
        self.previous = nn.Linear(width, width, bias=False)
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.attention_output = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, query_NQE: Tensor, query_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The encoded words and their mask; a question of padding alone has one empty word.

        Args:
            query_NQE: the words.
            query_mask: ``[N, Q]`` bool, False on padding; None: there is none.
        """
        if self.constant is not None:
            query_NQE, query_mask = self.constant.expand(len(query_NQE), 1, -1), None
        words = self.project(query_NQE)
        if query_mask is not None:
            words = words.masked_fill(~query_mask.unsqueeze(-1), 0.0)
        places = place_table(words.shape[1], self.width, words)
        x_NQW = words + places + self.previous(_shifted(words))
        x_NQW = x_NQW + self._attend(self.attention_norm(x_NQW), query_mask)
        return self.norm(x_NQW + self.mlp(x_NQW)), query_mask

    def _attend(self, x_NQW: Tensor, query_mask: Tensor | None) -> Tensor:
        count, words, width = x_NQW.shape
        parts = self.query_key_value(x_NQW).view(count, words, 3, self.heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        seen = None
        if query_mask is not None:
            # Without this a question of padding alone would divide zero by zero.
            seen = (query_mask | ~query_mask.any(-1, keepdim=True))[:, None, None, :]
        mixed = F.scaled_dot_product_attention(query, key, value, seen)
        return self.attention_output(mixed.transpose(1, 2).reshape(count, words, width))


def _shifted(words: Tensor) -> Tensor:
    """The word before each word; zero before the first."""
    return F.pad(words[:, :-1], (0, 0, 1, 0))


def importance_pool(x_NQW: Tensor, logits_NQH: Tensor, query_mask: Tensor | None) -> Tensor:
    """One mean of the words per head, weighted by a softmax of ``logits``: ``[N, H, W]``."""
    if query_mask is not None:
        floor = torch.finfo(logits_NQH.dtype).min
        logits_NQH = logits_NQH.masked_fill(~query_mask.unsqueeze(-1), floor)
    return logits_NQH.softmax(dim=1).mT @ x_NQW


class CouplingScorer(Scorer):
    """How much the question asks about a token: learned, and the only scorer that reads it.

    ::

        words  ─ QueryEncoder ─▶ q_w      α_hw = softmax over words, one distribution per head
        tokens ─ f + row + column ─▶ f_k
        match_hk = Σ_w α_hw ⟨W_h f_k, U_h q_w⟩ / √(W / H)
        met_k = 4 + Σ_h log σ(match_hk)
        score_k = log(1 + exp(met_k)) + 0.05 met_k
        then a 3×3 kernel made from the question, over the grid of standardised scores

    A head is a condition, and a token has to meet them all: beyond a good match more adds nothing,
    so that the brightest red is not taken for "red on blue" where its ground is green. Tokens that
    fail (below odds of e⁻⁴) are nearly alike however much they fail, so that those that meet all
    stand out once scores are standardised. Rows and columns are embedded each on its own, and
    "row 3, column 5" is two conditions. The kernel starts at the identity; it lets "the right-hand
    neighbour of" also keep the token beside the match.

    Args:
        feature_size: D.
        query_size: E.
        width: W.
        heads: H, divides W.
        use_query: False builds the control: the question is replaced by one learned vector.

    Raises:
        ConfigError: a width that the heads do not divide, or that is odd.

    Example:
        >>> scorer = CouplingScorer(16, 8, width=16, heads=2)
        >>> scorer(torch.randn(6, 16), torch.randn(3, 8), grid=(2, 3)).shape
        torch.Size([6])

    Source: late interaction of words and tokens as in ColBERT (Khattab and Zaharia, SIGIR 2020),
        with a learned importance of words in place of the maximum; probabilities of conditions
        are multiplied as in products of experts (Hinton, Neural Computation 2002).
    """

    def __init__(
        self,
        feature_size: int,
        query_size: int,
        width: int = 64,
        heads: int = 4,
        *,
        use_query: bool = True,
    ) -> None:
        super().__init__()
        if width < 2 or heads < 1 or width % heads or width % 2:
            raise ConfigError(
                "the width of a coupling scorer must be even and divisible by its heads",
                why=f"width={width}, heads={heads}",
            )
        self.feature_size, self.width, self.heads = feature_size, width, heads
        self.query_encoder = QueryEncoder(query_size, width, heads, use_query=use_query)
        self.importance = nn.Linear(width, heads + 1, bias=False)  # the last is the kernel's
        self.feature_projection = nn.Sequential(
            nn.LayerNorm(feature_size), nn.Linear(feature_size, width)
        )
        self.row_projection = nn.Linear(width, width, bias=False)
        self.column_projection = nn.Linear(width, width, bias=False)
        self.token_mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )
        self.token_heads = nn.Linear(width, width, bias=False)
        self.query_heads = nn.Linear(width, width)
        self.kernel = nn.Linear(width, len(OFFSETS))
        with torch.no_grad():  # near the identity, yet every question has its own kernel
            self.kernel.weight.mul_(0.1)
            self.kernel.bias.zero_()
            self.kernel.bias[CENTRE] = 1.0

    def reads(self) -> list[Read]:
        """See the class."""
        norm, linear = self.feature_projection
        return [Normed(norm, linear)]

    def judge(
        self,
        read: Sequence[Tensor],
        query_NQE: Tensor,
        query_mask: Tensor | None,
        layout: TokenLayout,
    ) -> Tensor:
        """See the class."""
        x_NQW, query_mask = self.query_encoder(query_NQE, query_mask)
        pooled = importance_pool(x_NQW, self.importance(x_NQW), query_mask)  # [N, H + 1, W]
        # U_h is linear, so the words are averaged before it: one vector per head, not per word.
        asked = self._per_head(pooled[:, :-1])
        scale = (self.width / self.heads) ** 0.5
        # W_h f · u = f · Wᵀ_h u: the one question is projected, and not its hundreds of tokens.
        weight_HVW = self.token_heads.weight.unflatten(0, (self.heads, -1))
        wanted_NHW = torch.einsum("nhv,hvw->nhw", asked, weight_HVW) / scale
        matches_NKH = self._matches(self._placed(read[0], layout), wanted_NHW.mT)
        met_NK = F.logsigmoid(matches_NKH).sum(-1) - FLOOR
        scores = standardise(F.softplus(met_NK) + LEAK * met_NK, layout.padding_mask)
        return self.shift(scores, pooled[:, -1], layout)

    def tokens(self, features_NKD: Tensor, layout: TokenLayout) -> Tensor:
        """Features that know their row and column, ``[N, K, W]``."""
        x_NKW = self._placed(self.feature_projection(features_NKD), layout)
        out: Tensor = x_NKW + self.token_mlp(x_NKW)
        return out

    def _placed(self, x_NKW: Tensor, layout: TokenLayout) -> Tensor:
        """Projected features and where they stand; a place is projected once, not per token."""
        places = place_table(layout.extent, self.width, x_NKW)
        rows, columns = self.row_projection(places), self.column_projection(places)
        if layout.grid is not None:
            height, width = layout.grid
            grid = (rows[:height, None] + columns[None, :width]).flatten(0, 1)
            return x_NKW + grid.to(x_NKW.dtype)
        row, column = layout.positions.unbind(-1)
        return x_NKW + rows[row] + columns[column]

    def _matches(self, x_NKW: Tensor, wanted_NWH: Tensor) -> Tensor:
        """``tokens · wanted``, ``[N, K, H]``; the last layer turns to the one question instead."""
        norm, widen, gelu, narrow = self.token_mlp
        last = cast("nn.Linear", narrow)
        matches = x_NKW @ wanted_NWH + gelu(widen(norm(x_NKW))) @ (last.weight.mT @ wanted_NWH)
        return matches + (last.bias @ wanted_NWH).unsqueeze(1)

    def shift(self, scores_NK: Tensor, asked_NW: Tensor, layout: TokenLayout) -> Tensor:
        """Each score becomes a sum over its 3×3, weighted by the question's kernel."""
        kernel_N9 = self.kernel(asked_NW)
        return (layout.around(scores_NK) @ kernel_N9.unsqueeze(-1)).squeeze(-1)

    def _per_head(self, pooled_NHW: Tensor) -> Tensor:
        """Head h's own slice of U applied to head h's mean: ``[N, H, W / H]``."""
        each = self.query_heads(pooled_NHW).unflatten(-1, (self.heads, -1))  # [N, H, H, W / H]
        return each.diagonal(dim1=1, dim2=2).mT
