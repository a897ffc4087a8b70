"""Undo: everything that an operation can change, remembered and put back.

::

    with undo_point(model):          point = undo_point(model)
        …                            …
    # as it was                      point.undo()
"""

from __future__ import annotations

import copy
from types import TracebackType
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedConfig

_PLAIN_CONTAINERS = (dict, list, set)


class UndoPoint:
    """The state of a model at one moment; it can be put back any number of times.

    Kept are the values of all weights and buffers (a copy: as much memory as they need), which of
    them learn, the structure (modules are the same objects afterwards), hooks, modes, attributes
    of the modules, and every configuration. Gradients are dropped. An optimizer that was made in
    between is not changed: make a new one.

    Args:
        model: Any module.
        weights: Copy the values. Without a copy only what was *replaced* can be put back: enough
            for operations that write into no weight.
    """

    def __init__(self, model: nn.Module, *, weights: bool = True) -> None:
        self._modules = [(module, type(module), dict(vars(module))) for module in model.modules()]
        values = [value for _, _, state in self._modules for value in state.values()]
        self._containers = [
            (value, copy.copy(value)) for value in values if isinstance(value, _PLAIN_CONTAINERS)
        ]
        self._tensors = [_Kept(tensor, weights) for tensor in _tensors_of(model)]
        self._settings = _Settings(values)

    def undo(self) -> None:
        """Put the model back."""
        for module, kind, state in self._modules:
            module.__class__ = kind
            module.__dict__.clear()
            module.__dict__.update(state)
        for container, content in self._containers:
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(content)
        for kept in self._tensors:
            kept.put_back()
        self._settings.put_back()

    def __enter__(self) -> UndoPoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.undo()


def undo_point(model: nn.Module) -> UndoPoint:
    """Remember a model: as a context manager, or as a token with ``undo()``.

    Args:
        model: Any module; operations that change it in place can then be undone. (A head of
            another Hugging Face class is a new model, and leaves the given one as it is.)

    Example:
        >>> from domainformer.models import surgery
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> with undo_point(model):
        ...     _ = surgery.freeze(model, "0")
        ...     _ = surgery.replace_head(model, 5, path="1")
        >>> model[1].out_features, all(weight.requires_grad for weight in model.parameters())
        (1, True)
    """
    return UndoPoint(model)


class _Kept:
    """One tensor with its value, or with the memory that it looks at."""

    def __init__(self, tensor: torch.Tensor, value: bool) -> None:
        self._tensor, self._learns = tensor, tensor.requires_grad
        self._value = tensor.detach().clone() if value else tensor.data
        self._copied = value

    def put_back(self) -> None:
        tensor, value = self._tensor, self._value
        tensor.grad = None
        alike = tensor.shape == value.shape and tensor.dtype == value.dtype
        if not self._copied:
            tensor.data = value
        elif alike and tensor.device == value.device:
            with torch.no_grad():
                tensor.copy_(value)  # into the same memory: others may look at it
        else:
            tensor.data = value.clone()
        if tensor.is_leaf:
            tensor.requires_grad_(self._learns)


class _Settings:
    """Every configuration among some values, and those in them."""

    def __init__(self, values: list[Any]) -> None:
        self._kept: dict[int, tuple[Any, dict[str, Any]]] = {}
        for value in values:
            self._keep(value)

    def _keep(self, value: Any) -> None:
        if not isinstance(value, (PreTrainedConfig, GenerationConfig)) or id(value) in self._kept:
            return
        self._kept[id(value)] = value, {}
        for part in vars(value).values():
            self._keep(part)
        # Configurations in it stay the objects that they are: they are kept by themselves.
        memo = {key: one for key, (one, _) in self._kept.items()}
        state = {name: copy.deepcopy(part, memo) for name, part in vars(value).items()}
        self._kept[id(value)] = value, state

    def put_back(self) -> None:
        for value, state in self._kept.values():
            memo = {key: one for key, (one, _) in self._kept.items()}
            value.__dict__.clear()
            value.__dict__.update(copy.deepcopy(state, memo))


def _tensors_of(model: nn.Module) -> list[torch.Tensor]:
    """Parameters, buffers, and tensors that are plain attributes, each once."""
    found: dict[int, torch.Tensor] = {}
    for module in model.modules():
        attributes = [value for value in vars(module).values() if isinstance(value, torch.Tensor)]
        own = [*module._parameters.values(), *module._buffers.values(), *attributes]
        found |= {id(tensor): tensor for tensor in own if tensor is not None}
    return list(found.values())
