"""Layer-wise learning rates: parameter groups that hold each weight that learns exactly once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn

from domainformer.errors import SurgeryError
from domainformer.models.surgery.depths import depth_groups
from domainformer.models.surgery.wrappers import described


def layerwise_learning_rates(
    model: nn.Module,
    learning_rate: float,
    decay: float = 0.95,
    *,
    weight_decay: float = 0.0,
    order: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Parameter groups for any optimizer, with rates that fall from the head to the embeddings.

    ::

        rate(depth) = learning_rate · decay^(top − depth)

    Every weight that learns is in one group exactly, a tied one at its lowest place. Matrices
    decay; embeddings, norms and biases do not. Schedules multiply: they keep the ratios.
    ``Trainer`` takes them as ``optimizers=(torch.optim.AdamW(groups), None)``.

    Args:
        model: Any module.
        learning_rate: Of the head.
        decay: Ratio of neighbouring depths, above 0 and at most 1.
        weight_decay: Of matrices.
        order: Patterns from the input to the output; None: as the model defines its layers.

    Raises:
        SurgeryError: Nothing learns, or a number is out of range.

    Source: Howard and Ruder, ACL 2018, section 3.1 (discriminative fine-tuning); Clark et al.,
    "ELECTRA", ICLR 2020, appendix B (one ratio for all layers).

    Example:
        >>> model = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> [(g["name"], g["lr"], g["weight_decay"], len(g["params"]))
        ...  for g in layerwise_learning_rates(model, 1.0, 0.5, weight_decay=0.1)]
        [('2', 1.0, 0.1, 1), ('2', 1.0, 0.0, 1), ('1', 0.5, 0.1, 1), ('1', 0.5, 0.0, 1), \
('0', 0.25, 0.0, 1)]
    """
    if not (0 < decay <= 1 and 0 < learning_rate < math.inf and weight_decay >= 0):
        raise SurgeryError(
            f"learning_rate={learning_rate}, decay={decay} and weight_decay={weight_decay} make no "
            "rates",
            next_step="give a positive rate, a decay above 0 and at most 1, a weight decay from 0",
        )
    depths = depth_groups(model, order)
    decayed = decayed_weights(model)
    groups = []
    for below, group in enumerate(reversed(depths)):
        learning = [one.parameter for one in group.weights if one.parameter.requires_grad]
        rate = learning_rate * decay**below
        for decays in (True, False):
            chosen = [one for one in learning if (id(one) in decayed) == decays]
            settings = {"lr": rate, "weight_decay": weight_decay if decays else 0.0}
            if chosen:
                groups.append({"params": chosen, **settings, "name": group.name})
    if not groups:
        raise SurgeryError(
            f"nothing in {described(model)} learns", next_step="unfreeze(model, …) something first"
        )
    return groups


def decayed_weights(model: nn.Module) -> set[int]:
    """The ``id`` of each weight that decays: matrices that are no embedding, tied or not.

    Example:
        >>> model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3), nn.LayerNorm(3))
        >>> decayed_weights(model) == {id(model[1].weight)}
        True
    """
    embeddings = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for weight in module.parameters(recurse=False)
    }
    return {
        id(weight)
        for weight in model.parameters()
        if weight.ndim >= 2 and id(weight) not in embeddings
    }
