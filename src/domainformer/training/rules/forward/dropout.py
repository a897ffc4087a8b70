"""Dropout at any site: of elements, tokens, features, whole branches, heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from domainformer.errors import RuleError
from domainformer.training.rules.base import Moment, Site, State
from domainformer.training.rules.forward.depth import count_blocks, depth_of, is_block
from domainformer.training.rules.forward.timing import TimedRule


def drop(
    value: torch.Tensor, shape: Sequence[int], rate: float, generator: torch.Generator
) -> torch.Tensor:
    """Set parts of a value to zero, and the rest up by 1/(1 − rate): the mean stays.

    Args:
        value: Any tensor.
        shape: Of the mask; broadcast over the value.
        rate: Share that is dropped, 0 to 1 (1 drops all).
        generator: On the value's device.
    """
    if rate >= 1:
        return value * 0
    kept = torch.rand(tuple(shape), generator=generator, device=value.device) >= rate
    return value * (kept.to(value.dtype) / (1 - rate))


class ActivationDropout(TimedRule):
    """Dropout of elements, whole tokens, or whole features of a value.

    ::

        element   each number by itself                 token     all numbers of a token
        feature   one column, for all tokens of a row

    ``y = x·m/(1 − p)``, ``m ~ Bernoulli(1 − p)``. ``first_step`` and ``last_step`` make it early
    or late dropout.

    Source: N. Srivastava et al., JMLR 15 (2014), section 4; features: arXiv 1411.4280, section
    3.2; early and late: arXiv 2303.01500.

    Args:
        rate: p, the share that is dropped.
        unit: What is dropped as one.

    Example:
        >>> from domainformer.training.rules.base import Clock
        >>> rule = ActivationDropout(rate=0.5, unit="token")
        >>> site = Site("mlp", nn.Identity(), 0)
        >>> y, _ = rule.forward(torch.ones(1, 6, 2), site, {}, Moment(Clock(seed=1)))
        >>> bool((y[..., 0] == y[..., 1]).all()), sorted(set(y.flatten().tolist()))
        (True, [0.0, 2.0])
    """

    name: ClassVar[str] = "activation_dropout"
    exact_gradient: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*.mlp",)
    rate: float = Field(default=0.1, ge=0, lt=1)
    unit: Literal["element", "token", "feature"] = "element"

    def forward(
        self, value: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """Drop."""
        if self.rate == 0 or not self.acts(moment):
            return value, state
        shapes = {
            "element": value.shape,
            "token": (*value.shape[:-1], 1),
            "feature": (value.shape[0], *(1,) * (value.ndim - 2), value.shape[-1]),
        }
        generator = moment.generator(at, value.device)
        return drop(value, shapes[self.unit], self.rate, generator), state


class StochasticDepth(TimedRule):
    """Skip whole branches of a block, row by row: the network is shallower while it trains.

    Block l of N is skipped with probability ``p·l/N`` (``grows``), or p. Its residual stream goes
    on, so the sites are branches (attention, MLP), never blocks.

    Source: arXiv 1603.09382, section 3 (equation 4 for the growth with depth).

    Args:
        rate: p, of the last block.
        grows: Whether the rate grows with depth, as in the paper.

    Example:
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> from domainformer.training.rules.sites import find_sites
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=9, num_hidden_layers=2)
        >>> model = DomainTransformerForCausalLM(config)
        >>> rule = StochasticDepth(rate=0.2, sites=("blocks.*.mlp",))
        >>> rule.init(model, find_sites(model, rule.sites, rule=rule.name))
        {'rates': {'model.layers.0.mlp': 0.1, 'model.layers.1.mlp': 0.2}}
    """

    name: ClassVar[str] = "stochastic_depth"
    exact_gradient: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*.attention", "blocks.*.mlp")
    rate: float = Field(default=0.1, ge=0, lt=1)
    grows: bool = True

    def init(self, model: nn.Module, sites: Sequence[Site]) -> State:
        """The rate of each site.

        Raises:
            RuleError: A site is a whole block, or in none though the rate grows with depth.
        """
        for site in sites:
            if is_block(model, site):
                raise RuleError(
                    f"the rule {self.name!r} would drop the residual stream itself",
                    where=site.path,
                    why="the output of a block is the stream, not a branch that is added to it",
                    next_step="choose branches: blocks.*.attention, blocks.*.mlp",
                )
        if not self.grows:
            return {"rates": {site.path: self.rate for site in sites}}
        blocks = count_blocks(model)
        return {"rates": {s.path: self.rate * depth_of(s, rule=self.name) / blocks for s in sites}}

    def forward(
        self, value: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """Skip the branch in some rows."""
        rate = state["rates"][at.path]
        if rate == 0 or not self.acts(moment):
            return value, state
        shape = (value.shape[0], *(1,) * (value.ndim - 1))
        return drop(value, shape, rate, moment.generator(at, value.device)), state


class HeadDropout(TimedRule):
    """Drop whole attention heads, row by row, before the output projection mixes them.

    Keeps a few heads from doing all the work. Kept heads are scaled by 1/(1 − p), where the paper
    scales by all heads over kept heads: the same in the mean, and heads stay independent.

    Source: arXiv 2004.13342 (DropHead), section 3.

    Args:
        sites: Output projections of attention, ``o_proj`` or ``c_proj``.
        rate: p, the share of heads that is dropped.

    Example:
        >>> from domainformer.training.rules.base import Clock
        >>> site = Site("o_proj", nn.Identity(), 0)
        >>> rule = HeadDropout(rate=0.5)
        >>> state, moment = {"heads": 4}, Moment(Clock(seed=1))
        >>> y, _ = rule.forward(torch.ones(1, 2, 8), site, state, moment)
        >>> y[0, 0].view(4, 2).std(dim=1).sum().item(), bool((y[0, 0] == y[0, 1]).all())
        (0.0, True)
    """

    name: ClassVar[str] = "head_dropout"
    tap: ClassVar[Literal["output", "input"]] = "input"
    exact_gradient: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*.attention.[oc]_proj",)
    rate: float = Field(default=0.1, ge=0, lt=1)

    def init(self, model: nn.Module, sites: Sequence[Site]) -> State:
        """The number of heads.

        Raises:
            RuleError: The model's configuration does not tell it.
        """
        config = getattr(model, "config", None)
        heads = getattr(config, "num_attention_heads", None)
        if heads is None:
            raise RuleError(
                f"the rule {self.name!r} needs the number of heads",
                why="the model's configuration has no num_attention_heads",
                next_step="use activation_dropout with unit: feature",
            )
        return {"heads": int(heads)}

    def forward(
        self, value: torch.Tensor, at: Site, state: State, moment: Moment
    ) -> tuple[torch.Tensor, State]:
        """Drop heads; the value is [B, L, heads × width of a head]."""
        if self.rate == 0 or not self.acts(moment):
            return value, state
        heads = value.unflatten(-1, (state["heads"], -1))
        shape = (heads.shape[0], *(1,) * (heads.ndim - 3), heads.shape[-2], 1)
        dropped = drop(heads, shape, self.rate, moment.generator(at, value.device))
        return dropped.flatten(-2), state
