"""The linear layer at a site, for rules that put another operation in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from domainformer.errors import RuleError
from domainformer.training.rules.base import Site


def linear_at(site: Site, original: Callable[..., Any], *, rule: str) -> nn.Module:
    """The linear layer at a site that no other rule has replaced yet.

    Args:
        site: The site.
        original: What would be called there.
        rule: Who asks, for errors.

    Raises:
        RuleError: The site is no linear layer, or its operation is another rule's already.

    Example:
        >>> layer = nn.Linear(2, 3)
        >>> linear_at(Site("head", layer, 0), layer.forward, rule="feedback_alignment") is layer
        True
    """
    module = site.module
    if not isinstance(module, nn.Linear | Conv1D):
        raise RuleError(
            f"the rule {rule!r} acts on linear layers",
            where=site.path,
            why=f"there is a {type(module).__name__}",
            next_step="name layers, such as blocks.*.mlp.*_proj or blocks.*.attention.*_proj",
        )
    if getattr(original, "__func__", None) is not type(module).forward:
        raise RuleError(
            f"the rule {rule!r} cannot replace what another rule has replaced",
            where=site.path,
            why="the other rule's operation would never be called",
            next_step="give the two rules different sites",
        )
    return module


def weight_of(layer: nn.Module) -> torch.Tensor:
    """The weight [out, in] of a linear layer; GPT-2 keeps its transpose.

    Example:
        >>> weight_of(Conv1D(3, 2)).shape  # 2 in, 3 out
        torch.Size([3, 2])
    """
    weight: torch.Tensor = layer.weight
    return weight.transpose(0, 1) if isinstance(layer, Conv1D) else weight
