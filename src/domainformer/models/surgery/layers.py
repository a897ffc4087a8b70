"""Fewer layers, more layers: the list of blocks in another order, and everything that counts it."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from domainformer.errors import SurgeryError
from domainformer.models.surgery.rebuild import proven
from domainformer.models.surgery.stacks import COUNTS, DECODER_COUNTS, Stack, stack_of
from domainformer.models.surgery.wrappers import configurations, described, inner

# Lists of a configuration that hold the indices of some layers; all others hold one entry for each.
_INDEX_LISTS = ("mlp_only_layers", "cross_attention_layers", "attn_layer_indices")


def drop_layers(model: nn.Module, layers: Sequence[int], *, path: str | None = None) -> nn.Module:
    """Take layers out.

    Args:
        model: Any module with a list of blocks, changed in place.
        layers: Their places from 0; negative ones count from the last.
        path: Of the list, where there are several (an encoder and a decoder).

    Returns:
        The same model.

    Raises:
        SurgeryError: There is no such layer, none would be left, or the model's configuration
            cannot describe the result.

    Source: Fan et al., "Reducing transformer depth on demand", ICLR 2020; Gromov et al., "The
    unreasonable ineffectiveness of the deeper layers", ICLR 2025.

    Example:
        >>> from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
        >>> config = DomainTransformerConfig.preset("tiny", vocab_size=20, num_hidden_layers=3)
        >>> model = drop_layers(DomainTransformerForCausalLM(config), [1])
        >>> len(model.model.layers), model.config.num_hidden_layers
        (2, 2)
    """
    stack = stack_of(model, path)
    gone = _places(model, stack, layers)
    return arrange_layers(model, [i for i in range(len(stack)) if i not in gone], path=path)


def duplicate_layers(
    model: nn.Module, layers: Sequence[int], *, path: str | None = None
) -> nn.Module:
    """Put a copy of each of some layers right after it; the copies have weights of their own.

    Args:
        model: Any module with a list of blocks, changed in place.
        layers: Their places from 0; negative ones count from the last.
        path: Of the list, where there are several.

    Returns:
        The same model.

    Raises:
        SurgeryError: As for :func:`drop_layers`.

    Source: Kim et al., "SOLAR 10.7B: depth up-scaling", NAACL 2024 (whole ranges at once are
    :func:`arrange_layers`).

    Example:
        >>> blocks = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3))
        >>> model = duplicate_layers(nn.ModuleDict({"h": blocks}), [0, -1])
        >>> len(model["h"]), model["h"][0][0].weight is model["h"][1][0].weight
        (5, False)
    """
    stack = stack_of(model, path)
    chosen = _places(model, stack, layers)
    order = [place for i in range(len(stack)) for place in [i] * (2 if i in chosen else 1)]
    return arrange_layers(model, order, path=path)


def arrange_layers(model: nn.Module, order: Sequence[int], *, path: str | None = None) -> nn.Module:
    """Bring the layers into an order; a layer that stands in it twice is copied.

    The layer count, lists with an entry for each layer (``layer_types``), and the place that each
    attention knows itself by (``layer_idx``, by which caches are kept) follow. Weights that a layer
    shares with the rest of the model, and layers that are one module used several times, stay
    shared.

    Args:
        model: Any module with a list of blocks, changed in place.
        order: Old places, at least one.
        path: Of the list, where there are several.

    Returns:
        The same model.

    Raises:
        SurgeryError: There is no such layer, or the model's configuration cannot describe the
            result; the model is as it was.

    Example:
        >>> blocks = nn.ModuleList(nn.Sequential(nn.Linear(2, 2), nn.ReLU()) for _ in range(3))
        >>> model = arrange_layers(nn.ModuleDict({"h": blocks}), [2, 0])
        >>> [model["h"][0] is blocks[0], len(blocks)]
        [True, 2]
    """
    stack = stack_of(model, path)
    order = [_place(model, stack, index) for index in order]
    if not order:
        raise SurgeryError(f"no layer of {described(model)} would be left")
    with proven(model):
        _describe(model, stack, order)
        _rearrange(model, stack, order)
    return model


def _places(model: nn.Module, stack: Stack, layers: Sequence[int]) -> set[int]:
    return {_place(model, stack, index) for index in layers}


def _place(model: nn.Module, stack: Stack, index: int) -> int:
    if not isinstance(index, int):
        raise SurgeryError(f"{index!r} is no place of a layer", next_step="give whole numbers")
    place = index + len(stack) if index < 0 else index
    if not 0 <= place < len(stack):
        raise SurgeryError(
            f"{described(model)} has no layer {index}",
            where=stack.path,
            why=f"it has {len(stack)}: 0 to {len(stack) - 1}",
        )
    return place


def _rearrange(model: nn.Module, stack: Stack, order: Sequence[int]) -> None:
    old = list(stack.blocks)
    shared = {id(block) for place, block in enumerate(old) if block in old[:place]}
    bias = _RelativeBias(old)
    new: list[nn.Module] = []
    for index in order:
        block = old[index]
        again = any(block is one for one in new) and id(block) not in shared
        new.append(_copied(model, block) if again else block)
    stack.blocks._modules.clear()
    for place, (index, block) in enumerate(zip(order, new, strict=True)):
        stack.blocks._modules[str(place)] = block
        for part in block.modules():
            if vars(part).get("layer_idx") == index and id(block) not in shared:
                part.layer_idx = place
    bias.give_to(new)


def _copied(model: nn.Module, block: nn.Module) -> nn.Module:
    """A copy whose weights are its own, except those that the rest of the model has, too."""
    outside = {id(weight): weight for weight in _weights_beside(model, block)}
    found: nn.Module = copy.deepcopy(block, dict(outside))
    return found


def _weights_beside(module: nn.Module, block: nn.Module) -> Iterator[nn.Parameter]:
    """All weights that some way leads to which is not through the block."""
    yield from module.parameters(recurse=False)
    for child in module.children():
        if child is not block:
            yield from _weights_beside(child, block)


class _RelativeBias:
    """T5 keeps the bias of relative positions, which all of its layers use, in the first one."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        holders = [part for block in blocks for part in _attentions(block)]
        self._table = next((one.relative_attention_bias for one in holders if _has(one)), None)

    def give_to(self, blocks: Sequence[nn.Module]) -> None:
        if self._table is None:
            return
        for place, block in enumerate(blocks):
            for part in _attentions(block):
                part.has_relative_attention_bias = place == 0
                part._modules.pop("relative_attention_bias", None)
                if place == 0:
                    part.relative_attention_bias = self._table


def _attentions(block: nn.Module) -> list[Any]:
    """The first attention of a block that knows of a relative bias; cross-attention has none."""
    return [part for part in block.modules() if "has_relative_attention_bias" in vars(part)][:1]


def _has(attention: Any) -> bool:
    return bool(attention.has_relative_attention_bias)


def _describe(model: nn.Module, stack: Stack, order: Sequence[int]) -> None:
    """Let the configurations count the layers that there will be."""
    count = len(stack)
    for config, names in _counting(model, stack):
        for name in names:
            if getattr(config, name, None) == count:
                setattr(config, name, len(order))
        for name, value in list(vars(config).items()):
            if name in _INDEX_LISTS and value:
                chosen = [place for place, index in enumerate(order) if index in value]
                setattr(config, name, type(value)(chosen))
            elif _per_layer(name, value, count):
                setattr(config, name, type(value)(value[index] for index in order))


def _counting(model: nn.Module, stack: Stack) -> list[tuple[Any, tuple[str, ...]]]:
    """The configurations that count a list, with the names by which they may."""
    own = inner(model)
    main = getattr(own, "config", None)
    holder = getattr(stack.owner, "config", None)
    if getattr(main, "is_encoder_decoder", False):
        decodes = "decoder" in stack.path.split(".")
        names = DECODER_COUNTS if decodes and _counts_apart(main) else COUNTS
        found: list[tuple[Any, tuple[str, ...]]] = [(main, names)]
        if holder is not None and holder is not main:
            found.append((holder, (*COUNTS, *DECODER_COUNTS) if decodes else COUNTS))
        return found
    wrappers = [config for config in configurations(model) if config is not holder]
    known = [holder] if holder is not None else []
    return [(config, COUNTS) for config in [*known, *wrappers] if config is not None]


def _counts_apart(config: Any) -> bool:
    return any(hasattr(config, name) for name in DECODER_COUNTS)


def _per_layer(name: str, value: Any, count: int) -> bool:
    if not isinstance(value, (list, tuple)) or len(value) != count or "layer" not in name:
        return False
    return all(isinstance(entry, str) or entry in (0, 1) for entry in value)
