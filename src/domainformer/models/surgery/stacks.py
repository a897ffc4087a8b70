"""Where the layers of a model are: its lists of blocks, from the input to the output."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from domainformer.errors import SurgeryError, nearest
from domainformer.models.surgery.wrappers import configurations, described, inner

COUNTS = ("num_hidden_layers", "num_layers", "n_layer", "encoder_layers")
DECODER_COUNTS = ("num_decoder_layers", "decoder_layers")


@dataclass(frozen=True, eq=False)
class Stack:
    """A list of blocks.

    Args:
        path: Its dotted path in the (inner) model.
        blocks: The list itself.
        owner: The module that holds it.
    """

    path: str
    blocks: nn.ModuleList | nn.Sequential
    owner: nn.Module

    def __len__(self) -> int:
        return len(self.blocks)


def stacks_of(model: nn.Module) -> tuple[Stack, ...]:
    """The lists of blocks in the order of the model; an encoder-decoder has two.

    A block is a module of several; a list holds blocks of one class. Where a configuration counts
    layers, only lists of such a length count. Lists inside blocks (experts) are not looked at.

    Example:
        >>> blocks = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3))
        >>> model = nn.ModuleDict({"embed": nn.Embedding(5, 2), "h": blocks})
        >>> [(stack.path, len(stack)) for stack in stacks_of(model)]
        [('h', 3)]
    """
    own = inner(model)
    found = list(_lists(own, ""))
    counts = {
        value
        for config in configurations(own)
        for name in (*COUNTS, *DECODER_COUNTS)
        if isinstance(value := getattr(config, name, None), int)
    }
    counted = [stack for stack in found if len(stack) in counts]
    return tuple(counted or found)


def stack_of(model: nn.Module, path: str | None) -> Stack:
    """The list of blocks at a path; without one, the only one that there is.

    Raises:
        SurgeryError: There is none, or there are several and none was named.
    """
    stacks = {stack.path: stack for stack in stacks_of(model)}
    if path is None and len(stacks) == 1:
        return next(iter(stacks.values()))
    if path is None:
        raise SurgeryError(
            f"{described(model)} has {len(stacks) or 'no'} lists of layers",
            why=f"they are {', '.join(stacks)}" if stacks else "no list holds modules of one class",
            next_step=f"name one: path={next(iter(stacks))!r}" if stacks else None,
        )
    if path not in stacks:
        raise SurgeryError(
            f"{described(model)} has no list of layers at {path!r}",
            next_step=nearest(path, stacks),
        )
    return stacks[path]


def _lists(module: nn.Module, prefix: str) -> Iterator[Stack]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if _is_stack(child):
            yield Stack(path, child, module)
        else:
            yield from _lists(child, f"{path}.")


def _is_stack(module: Any) -> bool:
    least = {nn.ModuleList: 1, nn.Sequential: 2}.get(type(module), 0)
    if not least or len(module) < least or len({type(block) for block in module}) > 1:
        return False
    return all(
        any(True for _ in block.children()) and any(True for _ in block.parameters())
        for block in module
    )
