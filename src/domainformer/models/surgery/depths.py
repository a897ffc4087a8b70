"""How deep each weight lies: what gradual unfreezing and layer-wise rates go by.

::

    0  embeddings, and what comes before the first block
    1  the first block                                      … of the encoder, where there are two
    n  the last block, and what follows it before the next list
    n + 1  final norm, pooler, head
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from domainformer.errors import SurgeryError
from domainformer.models.surgery.patterns import Weight, select
from domainformer.models.surgery.stacks import stacks_of
from domainformer.models.surgery.wrappers import inner, inner_prefix, named_weights


@dataclass(frozen=True)
class DepthGroup:
    """Weights of one depth.

    Args:
        name: What lies there: ``embeddings``, the path of a block, ``head``.
        weights: Each weight of the model is in one group exactly.
    """

    name: str
    weights: tuple[Weight, ...]


def depth_groups(model: nn.Module, order: Sequence[str] | None = None) -> tuple[DepthGroup, ...]:
    """All weights of a model in groups, from the input to the output.

    A weight that is used in several places (ties, shared blocks) lies at the lowest of them. A
    model without a list of blocks is taken part by part, in the order in which it defines them.

    Args:
        model: Any module.
        order: Patterns from the input to the output, where the model's own order is not meant;
            together they must take each weight, and none twice.

    Raises:
        SurgeryError: The patterns leave a weight out, or take one twice.

    Example:
        >>> model = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 2), nn.Linear(2, 1))
        >>> [(group.name, len(group.weights)) for group in depth_groups(model)]
        [('0', 1), ('1', 2), ('2', 2)]
    """
    weights = [Weight(names, weight) for weight, names in named_weights(model).values()]
    if order is not None:
        return _as_told(model, weights, order)
    own, prefix = inner(model), inner_prefix(model)
    names, depths = _by_blocks(own) if stacks_of(own) else _by_parts(own)
    places: list[list[Weight]] = [[] for _ in names]
    for weight in weights:
        known = (depths.get(name.removeprefix(prefix)) for name in weight.names)
        places[min((depth for depth in known if depth is not None), default=0)].append(weight)
    return tuple(DepthGroup(name, tuple(found)) for name, found in zip(names, places, strict=True))


def _by_blocks(model: nn.Module) -> tuple[list[str], dict[str, int]]:
    names, first = ["embeddings"], {}
    for stack in stacks_of(model):
        first[f"{stack.path}."] = len(names)
        names += [f"{stack.path}.{place}" for place in range(len(stack))]
    head = len(names)
    names.append("head")
    embeddings = {
        f"{path}.weight" for path, part in model.named_modules() if isinstance(part, nn.Embedding)
    }
    depths, reached = {}, 0
    for name, _ in model.named_parameters(remove_duplicate=False):
        prefix = next((prefix for prefix in first if name.startswith(prefix)), None)
        if prefix is not None:
            block = name.removeprefix(prefix).partition(".")[0]
            depths[name] = reached = first[prefix] + _place(model, prefix, block)
        elif name in embeddings:
            depths[name] = 0
        else:
            depths[name] = head if reached == head - 1 else reached
    return names, depths


def _place(model: nn.Module, prefix: str, key: str) -> int:
    """Which block of a list has that key (lists may have names for their parts)."""
    return list(model.get_submodule(prefix.removesuffix("."))._modules).index(key)


def _by_parts(model: nn.Module) -> tuple[list[str], dict[str, int]]:
    path, part = "", model
    while True:  # down to where the model has more than one part
        parts = [name for name, child in part.named_children() if _has_weights(child)]
        if len(parts) != 1 or any(True for _ in part.parameters(recurse=False)):
            break
        path, part = f"{path}{parts[0]}.", part.get_submodule(parts[0])
    if not parts:
        return ["all"], {}
    depths = {
        name: parts.index(top)
        for name, _ in model.named_parameters(remove_duplicate=False)
        if (top := name.removeprefix(path).partition(".")[0]) in parts
    }
    return [f"{path}{name}" for name in parts], depths


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _as_told(
    model: nn.Module, weights: Sequence[Weight], order: Sequence[str]
) -> tuple[DepthGroup, ...]:
    groups = [DepthGroup(str(pattern), select(model, [pattern])) for pattern in order]
    takers: dict[str, list[str]] = {weight.names[0]: [] for weight in weights}
    for group in groups:
        for weight in group.weights:
            takers[weight.names[0]].append(group.name)
    for wrong, say in ((0, "no pattern of the order takes"), (2, "two patterns of the order take")):
        compare = operator.eq if wrong == 0 else operator.ge
        found = [name for name, by in takers.items() if compare(len(by), wrong)]
        if found:
            raise SurgeryError(
                f"{say} {len(found)} of {len(weights)} weights",
                why=", ".join(found[:6]) + (", …" if len(found) > 6 else ""),
                next_step="each weight needs one pattern exactly, from the input to the output",
            )
    return tuple(groups)
