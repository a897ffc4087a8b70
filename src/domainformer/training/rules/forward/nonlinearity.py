"""Another activation function in place of the model's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch.nn import functional as F

from domainformer.training.rules.base import LearningRule, Moment, Site, State


def squared_relu(x: torch.Tensor) -> torch.Tensor:
    """``max(x, 0)²`` (arXiv 2109.08668, section 3).

    Example:
        >>> squared_relu(torch.tensor([-1.0, 3.0])).tolist()
        [0.0, 9.0]
    """
    return F.relu(x).square()


FUNCTIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "squared_relu": squared_relu,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "identity": torch.Tensor.clone,
}


class ReplaceActivation(LearningRule):
    """Another activation function at chosen sites.

    Squared ReLU, ``max(x, 0)²``, reached the same loss in fewer steps in the search that found it,
    and it is sparse and cheap. The sites are the modules that hold the function: ``activation``
    in our models, ``act_fn`` in Llama's and Qwen's, ``act`` in GPT-2's.

    Source: arXiv 2109.08668 (Primer), section 3 and figure 5; an overview: arXiv 2402.03804.

    Args:
        function: Its name.

    Example:
        >>> from domainformer.training.rules import attach
        >>> model = torch.nn.Sequential(torch.nn.GELU())
        >>> with attach(ReplaceActivation(sites=("0",)), model):
        ...     model(torch.tensor([-1.0, 3.0])).tolist()
        [0.0, 9.0]
    """

    name: ClassVar[str] = "replace_activation"
    changes_function: ClassVar[bool] = True
    exact_gradient: ClassVar[bool] = True
    compiles: ClassVar[bool] = True

    sites: tuple[str, ...] = ("blocks.*.mlp.act*",)
    function: Literal[
        "squared_relu",
        "relu",
        "leaky_relu",
        "elu",
        "gelu",
        "silu",
        "mish",
        "softplus",
        "tanh",
        "identity",
    ] = "squared_relu"

    def replace(
        self, at: Site, original: Callable[..., Any], state: State, moment: Moment
    ) -> Callable[..., Any]:
        """The function of that name."""
        return FUNCTIONS[self.function]
