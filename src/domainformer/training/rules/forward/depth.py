"""Which block a site is in, read from its path."""

from __future__ import annotations

from torch import nn

from domainformer.errors import RuleError
from domainformer.training.rules.base import Site
from domainformer.training.rules.sites import blocks_path


def depth_of(site: Site, *, rule: str) -> int:
    """The number of the block that a site is in, from 1: the first number in its path.

    Args:
        site: The site.
        rule: Whose site it is, for errors.

    Raises:
        RuleError: The site is outside the blocks.

    Example:
        >>> depth_of(Site("model.layers.3.mlp", nn.Identity(), 0), rule="residual_scaling")
        4
    """
    for part in site.path.split("."):
        if part.isdigit():
            return int(part) + 1
    raise RuleError(
        f"the rule {rule!r} depends on depth, and the site is in no block",
        where=site.path,
        next_step="choose sites below blocks.*",
    )


def count_blocks(model: nn.Module) -> int:
    """How many blocks a model has; 0 where it has no list of them."""
    path = blocks_path(model)
    return len(list(model.get_submodule(path).children())) if path else 0


def is_block(model: nn.Module, site: Site) -> bool:
    """Whether a site is a whole block, whose output is the residual stream itself."""
    path = blocks_path(model)
    return path is not None and site.path.rpartition(".")[0] == path
