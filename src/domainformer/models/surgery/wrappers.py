"""What every operation asks of a model first: its own part, its names, its configurations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers import PreTrainedConfig


def inner(model: nn.Module) -> nn.Module:
    """The user's own model inside wrappers: what has all of its weights in its ``.module``.

    So are our ``BoundModel`` and ``UniversalForCausalLM``, and ``DistributedDataParallel``.

    Example:
        >>> wrapper = nn.Module()
        >>> wrapper.module = nn.Linear(2, 2)
        >>> inner(wrapper)
        Linear(in_features=2, out_features=2, bias=True)
    """
    while isinstance(found := getattr(model, "module", None), nn.Module):
        if {id(weight) for weight in model.parameters()} - {id(w) for w in found.parameters()}:
            break
        model = found
    return model


def inner_prefix(model: nn.Module) -> str:
    """What stands before the inner model's names in the outer one's: ``""`` or ``"module."``."""
    own = inner(model)
    path = next(name for name, part in model.named_modules() if part is own)
    return f"{path}." if path else ""


def named_weights(model: nn.Module) -> dict[int, tuple[nn.Parameter, tuple[str, ...]]]:
    """Each parameter once, in the order of the model, with all names that lead to it (ties).

    Example:
        >>> model = nn.ModuleDict({"embed": nn.Embedding(3, 2), "head": nn.Linear(2, 3, False)})
        >>> model["head"].weight = model["embed"].weight
        >>> [names for _, names in named_weights(model).values()]
        [('embed.weight', 'head.weight')]
    """
    found: dict[int, tuple[nn.Parameter, tuple[str, ...]]] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        names = found[id(weight)][1] if id(weight) in found else ()
        found[id(weight)] = weight, (*names, name)
    return found


def configurations(model: nn.Module) -> Iterator[Any]:
    """Each Hugging Face configuration that some part of the model reads, with those in it, once."""
    seen: set[int] = set()

    def walk(value: Any) -> Iterator[Any]:
        if isinstance(value, PreTrainedConfig) and id(value) not in seen:
            seen.add(id(value))
            yield value
            for part in list(vars(value).values()):
                yield from walk(part)

    for module in model.modules():
        for value in list(vars(module).values()):
            yield from walk(value)


def described(model: nn.Module) -> str:
    """The name of a model's class, for errors."""
    return type(inner(model)).__name__
