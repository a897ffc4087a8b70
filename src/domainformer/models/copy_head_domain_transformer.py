"""Copying from the past: a pointer beside the output layer.

The next value of a field is often one that the history has just shown: the same unit, the same
merchant, the same test. A small model spends most of its training on learning to repeat; the
pointer can do it from the start. It is a pointer sentinel mixture (Merity et al., "Pointer
Sentinel Mixture Models", arXiv 1609.07843, section 2) whose keys are the states that *predicted*
earlier tokens, as in the continuous cache (Grave et al., arXiv 1612.04426)::

    p(next = v | t) = a_t(sentinel) · softmax(logits_t)[v]  +  Σ_{s < t, x_{s+1} = v} a_t(s)

    a_t = softmax over [ w·h_t  |  log Σ_j exp((Q_j h_t)·(K_j h_s)/√D − m_j·(t − s))  for s < t ]

A state that was about to predict a field's value looks for states that were about to predict the
same field. Each of the heads j has a learned slope m_j ≥ 0 (as in ALiBi, arXiv 2108.12409): a
steep one repeats what came last, a gentle one finds what came often, or in like circumstances.

This file travels with every saved model: it imports torch, transformers and its neighbours.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from .packed_attention import locate_documents, number_documents

_NEVER = -1e30  # finite: a row without candidates must not turn gradients into NaN
_FIRST_SENTINEL = 2.0  # before it has learned anything, the model mostly trusts its vocabulary
# Per token, from the steepest head to the gentlest: one event of ten tokens back costs 3 nats, so
# that all but the last is out of sight, or a fifth of one.
_FIRST_SLOPES = (0.3, 0.02)


class DomainTransformerCopyHead(nn.Module):
    """Mix the vocabulary's distribution with copies of earlier tokens.

    Shapes: B rows, L new tokens, S = past + L tokens in all, W model width, J heads of width D.

    Args:
        hidden_size: Width W of the hidden states.
        width: Width D of a head's queries and keys.
        heads: Number of heads J.
        layer_index: Place of its memory in the cache: after the last block.

    Example:
        >>> head = DomainTransformerCopyHead(8, width=4, heads=2, layer_index=1)
        >>> hidden, ids = torch.randn(1, 3, 8), torch.tensor([[1, 5, 6]])
        >>> mixed = head(hidden, ids, torch.zeros(1, 3, 10))
        >>> mixed.shape, bool(torch.allclose(mixed.exp().sum(-1), torch.ones(1, 3)))
        (torch.Size([1, 3, 10]), True)
    """

    def __init__(self, hidden_size: int, *, width: int, heads: int, layer_index: int) -> None:
        super().__init__()
        self.width, self.heads, self.layer_index = width, heads, layer_index
        self.query = nn.Linear(hidden_size, heads * width, bias=False)
        self.key = nn.Linear(hidden_size, heads * width, bias=False)
        self.sentinel = nn.Linear(hidden_size, 1)
        self.slope = nn.Parameter(torch.empty(heads))
        self.reset_extra_parameters()

    @torch.no_grad()
    def reset_extra_parameters(self) -> None:
        """Set what a normal draw would not: the sentinel's bias and the slopes."""
        init.constant_(self.sentinel.bias, _FIRST_SENTINEL)
        steepest, gentlest = map(math.log, _FIRST_SLOPES)
        slopes = torch.linspace(steepest, gentlest, self.heads).exp()
        init.copy_(self.slope, slopes.expm1().log())  # the inverse of softplus

    def forward(
        self,
        hidden: torch.Tensor,
        input_ids: torch.Tensor,
        logits: torch.Tensor,
        *,
        keep: slice | torch.Tensor = slice(None),
        attention_mask: torch.Tensor | None = None,
        documents: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
    ) -> torch.Tensor:
        """Log-probabilities of the next token, which serve as logits.

        Args:
            hidden: Normed hidden states [B, L, W].
            input_ids: Ids of the same tokens [B, L].
            logits: Of the output layer at the positions of ``keep``, [B, K, V].
            keep: Which of the L positions are asked for.
            attention_mask: 1 at real tokens [B, S].
            documents: For packed rows, the number of each token's document [B, L].
            past_key_values: Cache that also holds this head's memory.

        Returns:
            float32 [B, K, V], each row's exponentials summing to 1.
        """
        attention, following = self._attend(
            hidden, input_ids, keep, attention_mask, documents, past_key_values
        )
        return self.mix(attention, following[:, None].expand(-1, logits.shape[1], -1), logits)

    @staticmethod
    def mix(attention: torch.Tensor, following: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        """The mixture itself.

        Args:
            attention: Log-weights of the sentinel and of S states [..., 1 + S].
            following: The id that each state was followed by [..., S].
            logits: Of the output layer [..., V].

        Returns:
            Log-probabilities, float32 [..., V].
        """
        own = F.log_softmax(logits.float(), dim=-1) + attention[..., :1]
        copied = torch.zeros_like(own).scatter_add_(-1, following, attention[..., 1:].exp())
        return torch.logaddexp(own, copied.clamp_min(1e-38).log())

    def target_log_probabilities(
        self,
        hidden: torch.Tensor,
        input_ids: torch.Tensor,
        logits: torch.Tensor,
        targets: torch.Tensor,
        *,
        attention_mask: torch.Tensor | None = None,
        documents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Log-probability of one target per position, without the mixture over the vocabulary.

        Args:
            hidden: Normed hidden states [B, L, W].
            input_ids: Ids [B, L].
            logits: Of the output layer [B, L, V].
            targets: The id that follows each position [B, L]; where it is negative, the result
                means nothing.
            attention_mask: 1 at real tokens [B, L].
            documents: For packed rows, the number of each token's document [B, L].

        Returns:
            float32 [B, L].
        """
        attention, following = self._attend(
            hidden, input_ids, slice(None), attention_mask, documents, None
        )
        wanted = targets.clamp_min(0)
        own = -F.cross_entropy(
            logits.float().flatten(0, 1), wanted.flatten(), reduction="none"
        ).view_as(targets)
        elsewhere = following[:, None, :] != wanted[..., None]
        copied = attention[..., 1:].masked_fill(elsewhere, _NEVER).logsumexp(dim=-1)
        return torch.logaddexp(own + attention[..., 0], copied)

    def loss(
        self,
        hidden: torch.Tensor,
        input_ids: torch.Tensor,
        logits: torch.Tensor,
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
        **scope: torch.Tensor | None,
    ) -> torch.Tensor:
        """Mean negative log-probability of the labels.

        Args:
            hidden: Normed hidden states [B, L, W].
            input_ids: Ids [B, L].
            logits: Of the output layer [B, L, V].
            labels: As ``input_ids``, shifted here; −100 is not scored [B, L].
            num_items_in_batch: What to divide the sum by; None: the labels that are scored.
            **scope: As :func:`copy_scope` gives it.
        """
        targets = F.pad(labels[:, 1:], (0, 1), value=-100)
        scored = targets != -100
        log_probabilities = self.target_log_probabilities(
            hidden, input_ids, logits, targets, **scope
        )
        total = -log_probabilities.masked_fill(~scored, 0.0).sum()
        return total / (scored.sum() if num_items_in_batch is None else num_items_in_batch)

    def _attend(
        self,
        hidden: torch.Tensor,
        input_ids: torch.Tensor,
        keep: slice | torch.Tensor,
        attention_mask: torch.Tensor | None,
        documents: torch.Tensor | None,
        past_key_values: Cache | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-weights [B, K, 1 + S], the sentinel first, and the id that follows each state [B, S].

        What follows the newest state is not known; no query is later than it, so it is masked.
        """
        keys, ids = self._remember(self.key(hidden), input_ids, past_key_values)
        steps = torch.arange(ids.shape[1], device=ids.device)
        asked = steps[ids.shape[1] - input_ids.shape[1] :][keep]
        distance = asked[:, None] - steps[None, :]
        allowed = (distance > 0)[None]
        if attention_mask is not None:
            allowed = allowed & attention_mask[:, None, -ids.shape[1] :].bool()
        if documents is not None:
            allowed = allowed & (documents[:, keep, None] == documents[:, None, :])
        asking = hidden[:, keep]
        scores = self.scores(asking, keys, distance, allowed)
        attention = torch.cat([self.sentinel(asking).float(), scores], dim=-1).log_softmax(dim=-1)
        return attention, ids.roll(-1, dims=1)

    def scores(
        self,
        asking: torch.Tensor,
        keys: torch.Tensor,
        distance: torch.Tensor,
        allowed: torch.Tensor,
    ) -> torch.Tensor:
        """How well earlier states match, before the softmax.

        Args:
            asking: Hidden states that look for a match [B, Q, W].
            keys: Of the earlier states [B, S, J · D].
            distance: Tokens between the two, [Q, S] or [B, Q, S].
            allowed: Which may be copied from, of the same shapes or [1, Q, S].

        Returns:
            float32 [B, Q, S], the heads summed up.
        """
        queries_BJQD = self.query(asking).unflatten(-1, (self.heads, self.width)).transpose(1, 2)
        keys_BJDS = keys.unflatten(-1, (self.heads, self.width)).permute(0, 2, 3, 1)
        matches = (queries_BJQD @ keys_BJDS).float() / math.sqrt(self.width)
        slopes = F.softplus(self.slope.float())[:, None, None]
        far = distance[:, None] if distance.ndim == 3 else distance
        scores = (matches - slopes * far).logsumexp(dim=1)
        return scores.masked_fill(~allowed, _NEVER)

    def _remember(
        self, keys: torch.Tensor, input_ids: torch.Tensor, cache: Cache | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put new keys and ids into the cache; give those of all tokens, [B, S, J · D] and [B, S].

        Ids travel as numbers in the place of attention values: float32 holds them exactly.
        """
        if cache is None:
            return keys, input_ids
        if not isinstance(cache, DynamicCache):
            raise TypeError("a model that copies needs a DynamicCache, which grows with its use")
        while len(cache.layers) <= self.layer_index:
            cache.layers.append(DynamicLayer())
        all_keys, all_ids = cache.update(
            keys[:, None], input_ids[:, None, :, None].float(), self.layer_index
        )
        return all_keys[:, 0], all_ids[:, 0, :, 0].long()


def copy_scope(
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    position_ids: torch.Tensor | None,
    past: int,
    boundaries: torch.Tensor | None,
) -> dict[str, torch.Tensor | None]:
    """Which tokens may be copied: real ones, of the same document.

    Args:
        input_ids: Ids [B, L].
        attention_mask: 1 at real tokens [B, past + L].
        position_ids: Positions [B, L]; where they restart, a new document begins.
        past: Number of tokens in the cache.
        boundaries: Document boundaries over the flattened tokens.

    Returns:
        ``attention_mask`` and ``documents`` for :class:`DomainTransformerCopyHead`.
    """
    if past:
        return {"attention_mask": attention_mask, "documents": None}
    _, mask, boundaries = locate_documents(
        input_ids[..., None], attention_mask, position_ids, None, boundaries
    )
    if boundaries is None:
        return {"attention_mask": mask, "documents": None}
    return {"attention_mask": None, "documents": number_documents(boundaries, *input_ids.shape)}


__all__ = ["DomainTransformerCopyHead", "copy_scope"]
