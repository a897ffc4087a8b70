"""How rules reach inside attention: transformers' own attention interface.

A model of transformers looks its attention function up by the name in
``config._attn_implementation``. While a rule is attached, that name is another one, whose function
runs the rules' changes in their order::

    queries, keys ─▶ heads ─▶ q·kᵀ·scaling ─▶ scores ─▶ mask ─▶ softmax ─▶ · values
                                                        the model's, and visible

Scores are only written out where a rule changes them, or the model wrote them out before
(``eager``); otherwise PyTorch's fused kernel runs. On leaving, the configuration has its old name,
and the new one is no longer registered.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from domainformer.errors import RuleError
from domainformer.training.rules.base import LearningRule, Moment, Site, Slot

_NUMBERS = itertools.count()
_ACTIVE: dict[str, RuledAttention] = {}


class AttentionRule(LearningRule):
    """Base of rules that act inside attention; a subclass overrides what it changes.

    The model must look its attention up in transformers' interface, as all current families do.
    """

    changes_function: ClassVar[bool] = True
    exact_gradient: ClassVar[bool] = True
    compiles: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*.attention",)

    @property
    def neutral(self) -> bool:
        """Whether its settings change nothing; then the model is left alone."""
        return False

    def heads(self, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Change queries [B, H, Lq, D] and keys [B, Hk, Lk, D], after their positions."""
        return query, key

    def scores(self, scores: torch.Tensor) -> torch.Tensor:
        """Change scores [B, H, Lq, Lk], before they are masked."""
        return scores

    def visible(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor | None:
        """Which keys stay visible: bool, by the indices of queries and keys; None is all."""
        return None

    @contextlib.contextmanager
    def around(
        self, model: nn.Module, sites: Sequence[Site], slot: Slot, moment: Moment
    ) -> Iterator[None]:
        """Put the rule into the attention of its sites, for a while."""
        if self.neutral:
            yield
            return
        with ruled_attention(model, sites, self):
            yield


@dataclass(frozen=True)
class RuledAttention:
    """The attention function of a model with rules.

    Args:
        changes: Rules in order, each with the modules (by id) that it acts on.
        written_out: Whether the model wrote scores out before.
    """

    changes: tuple[tuple[frozenset[int], AttentionRule], ...]
    written_out: bool

    def __call__(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        softcap: float | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend.

        Args:
            module: The attention layer.
            query: [B, H, Lq, D].
            key: [B, Hk, Lk, D], Hk divides H.
            value: [B, Hk, Lk, D].
            attention_mask: bool (true is visible) or added to scores, [B, 1, Lq, Lk]; None is
                causal.
            scaling: Of scores; 1/√D by default.
            dropout: Of weights.
            softcap: The model's own, as in Gemma 2.
            **kwargs: What models hand to any attention function.

        Returns:
            Mixed values [B, Lq, H, D], and weights [B, H, Lq, Lk] where they were written out.

        Raises:
            RuleError: The model wants scores with terms that are not known here.
        """
        _refuse_terms(kwargs, module)
        rules = [rule for modules, rule in self.changes if id(module) in modules]
        for rule in rules:
            query, key = rule.heads(query, key)
        mask = _restrict(attention_mask, query, key, rules)
        ours = any(type(rule).scores is not AttentionRule.scores for rule in rules)
        if not (ours or self.written_out or softcap is not None):
            return sdpa_attention_forward(
                module, query, key, value, mask, dropout=dropout, scaling=scaling, **kwargs
            )
        groups = query.shape[1] // key.shape[1]
        key, value = (x.repeat_interleave(groups, dim=1) for x in (key, value))
        scores = query @ key.transpose(2, 3) * (scaling or query.shape[-1] ** -0.5)
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        for rule in rules:
            scores = rule.scores(scores)
        weights = _softmax(scores, _causal(query, key) if mask is None else mask)
        weights = F.dropout(weights, p=dropout, training=module.training)
        return (weights @ value).transpose(1, 2).contiguous(), weights


@contextlib.contextmanager
def ruled_attention(model: nn.Module, sites: Sequence[Site], rule: AttentionRule) -> Iterator[None]:
    """A rule in the attention of its sites, for the duration of a ``with`` block.

    Raises:
        RuleError: The model does not use transformers' interface, or does not attend causally.
    """
    _check(model, sites, rule)
    configs = list({id(site.module.config): site.module.config for site in sites}.values())
    before = [config._attn_implementation for config in configs]
    earlier = _ACTIVE.get(before[0])
    mine = (frozenset(id(site.module) for site in sites), rule)
    attention = RuledAttention(
        changes=(*(earlier.changes if earlier else ()), mine),
        written_out=earlier.written_out if earlier else before[0] == "eager",
    )
    name = f"learning_rules_{next(_NUMBERS)}"
    _ACTIVE[name] = attention
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, sdpa_mask)
    try:
        for config in configs:
            config._attn_implementation = name
        yield
    finally:
        for config, old in zip(configs, before, strict=True):
            config._attn_implementation = old
        del _ACTIVE[name]
        del AttentionInterface._global_mapping[name]
        del AttentionMaskInterface._global_mapping[name]


def _check(model: nn.Module, sites: Sequence[Site], rule: AttentionRule) -> None:
    supported = getattr(model, "_supports_attention_backend", False)
    for site in sites:
        if not supported or not hasattr(getattr(site.module, "config", None), "to_dict"):
            raise RuleError(
                f"the rule {rule.name!r} cannot reach into this attention",
                where=site.path,
                why="it does not look its attention function up in transformers' interface",
                next_step="choose attention layers as sites, in a model that does",
            )
        if not getattr(site.module, "is_causal", True):
            raise RuleError(
                f"the rule {rule.name!r} is for causal attention",
                where=site.path,
                next_step="leave this site out",
            )


def _refuse_terms(kwargs: dict[str, Any], module: nn.Module) -> None:
    found = [name for name in ("position_bias", "s_aux") if kwargs.get(name) is not None]
    if found:
        raise RuleError(
            "rules of attention do not know all terms of this model's scores",
            where=type(module).__name__,
            why=f"it adds {', '.join(found)}",
            next_step="train it without rules of attention",
        )


def _softmax(scores: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    if mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    else:
        scores = scores + mask
    exact = torch.promote_types(scores.dtype, torch.float32)
    return scores.softmax(dim=-1, dtype=exact).to(scores.dtype)


def _causal(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    queries, keys = _indices(query, key)
    return keys <= queries


def _indices(query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of queries [Lq, 1] and keys [1, Lk] where the model gave no mask.

    It gives none where queries are the first so many keys, or one query sees all keys.
    """
    lengths = query.shape[2], key.shape[2]
    first = 0 if lengths[0] > 1 else lengths[1] - 1
    queries = torch.arange(lengths[0], device=query.device) + first
    return queries[:, None], torch.arange(lengths[1], device=query.device)[None]


def _restrict(
    mask: torch.Tensor | None,
    query: torch.Tensor,
    key: torch.Tensor,
    rules: Sequence[AttentionRule],
) -> torch.Tensor | None:
    """The mask, without what rules make invisible."""
    if all(type(rule).visible is AttentionRule.visible for rule in rules):
        return mask
    queries, keys = _indices(query, key)
    allowed = mask
    if mask is None:
        allowed = keys <= queries
    else:
        seen = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
        # A query's own key is the last that it sees: so it is with caches of any kind, too.
        queries = (seen * keys).amax(dim=-1, keepdim=True)
    visible = [seen for rule in rules if (seen := rule.visible(queries, keys)) is not None]
    if not visible:
        return mask
    return functools.reduce(_without, visible, allowed)


def _without(mask: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    if mask.dtype == torch.bool:
        return mask & visible
    return mask.masked_fill(~visible, torch.finfo(mask.dtype).min)
