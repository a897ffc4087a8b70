"""A term that keeps weight matrices near orthogonal ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from domainformer.errors import RuleError
from domainformer.training.rules.auxiliary.base import AuxiliaryLoss, exact
from domainformer.training.rules.base import Seen, Site, State


class Orthogonality(AuxiliaryLoss):
    """Orthogonal weight matrices: ``w·mean over matrices of ‖G − I‖²/n``, G [n, n].

    G holds the products of the rows of W with each other, or of its columns where those are
    fewer. ``free_lengths``: of rows brought to length 1, so that only their angles count.

    Source: arXiv 1810.09102, section 3.1 (soft orthogonality); free lengths: arXiv 1609.07093,
    section 3.3.

    Args:
        sites: Modules whose ``weight`` is a matrix.
        weight: w.
        free_lengths: Whether rows may have any length.

    Example:
        >>> rule = Orthogonality(sites=("0",))
        >>> float(rule.deviation(torch.eye(2, 3))), float(rule.deviation(2 * torch.eye(2)))
        (0.0, 9.0)
    """

    name: ClassVar[str] = "orthogonality"
    sites: tuple[str, ...] = ("blocks.*.attention.*_proj", "blocks.*.mlp.*_proj")
    weight: float = Field(default=1e-3, ge=0)
    free_lengths: bool = False

    def init(self, model: nn.Module, sites: Sequence[Site]) -> State:
        """The paths of the matrices.

        Raises:
            RuleError: A site has none.
        """
        for site in sites:
            weight = getattr(site.module, "weight", None)
            if not isinstance(weight, torch.Tensor) or weight.ndim != 2:
                raise RuleError(
                    f"the rule {self.name!r} needs weight matrices",
                    where=site.path,
                    why=f"{type(site.module).__name__} has no weight of two dimensions",
                    next_step="choose projections, such as blocks.*.mlp.*_proj",
                )
        return {"matrices": [site.path for site in sites]}

    def term(self, seen: Seen, state: State) -> torch.Tensor:
        """The mean deviation."""
        weights = [seen.model.get_submodule(path).weight for path in state["matrices"]]
        return torch.stack([self.deviation(weight) for weight in weights]).mean()

    def deviation(self, weight: torch.Tensor) -> torch.Tensor:
        """``‖G − I‖²/n`` of one matrix."""
        rows = exact(weight if weight.shape[0] <= weight.shape[1] else weight.T)
        if self.free_lengths:
            rows = F.normalize(rows, dim=-1)
        with torch.autocast(rows.device.type, enabled=False):  # it would multiply in bf16
            gram = rows @ rows.T
        return (gram - torch.eye(len(gram), device=gram.device)).square().sum() / len(gram)
