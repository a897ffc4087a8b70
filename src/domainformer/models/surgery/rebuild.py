"""The proof after an operation: would the configuration build the very model that is there?

Names and shapes of all weights, and the plain attributes of the parts (``layer_idx``, kinds of
attention, widths), are held against a model that is built anew from the configuration, without
memory. What saving and loading would not bring back is refused before it can be saved.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from domainformer.errors import SurgeryError
from domainformer.models.surgery.stacks import stacks_of
from domainformer.models.surgery.undo import UndoPoint
from domainformer.models.surgery.wrappers import described, inner

# What a user switches, and says nothing of the architecture.
_SWITCHES = {"training", "gradient_checkpointing", "p", "dropout", "inplace"}


@contextlib.contextmanager
def proven(model: nn.Module) -> Iterator[None]:
    """Carry out an operation on a model in place; undo it where it fails or cannot be saved.

    Args:
        model: Any module; only a Hugging Face one can be held against its configuration. The
            operation may replace weights and parts, not write into them.

    Raises:
        SurgeryError: The configuration would build another model, or it has low-rank additions.
    """
    own = inner(model)
    if any("lora_A" in part._modules for part in own.modules()):
        raise SurgeryError(
            f"{described(model)} has low-rank additions, which its configuration does not know",
            next_step="merge_lora(model) first, or undo them",
        )
    point = UndoPoint(model, weights=False)
    before = _differences(own, _built(own))
    try:
        yield
        built = _built(own)
        _derive_anew(own, built)
        # What the user had changed before is no fault of the operation.
        wrong = sorted(_differences(own, built) - before)
        if wrong:
            raise SurgeryError(
                f"{described(model)} cannot be changed in this way",
                why=f"its configuration would build another one: {wrong[0]}"
                + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""),
                next_step="nothing was changed; take a head by its task where it is a head, or "
                "build the wanted model and copy the weights",
            )
    except BaseException:
        point.undo()
        raise


def _differences(model: nn.Module, built: nn.Module | None) -> set[str]:
    """In what a model is not what its configuration builds; nothing where that is not known."""
    if built is None:
        return set()
    here, there = _facts(model), _facts(built)
    names = here.keys() | there.keys()
    return {
        f"{name} is {here.get(name, 'missing')} here and {there.get(name, 'missing')} there"
        for name in names
        if here.get(name) != there.get(name)
    }


def _derive_anew(model: nn.Module, built: nn.Module | None) -> None:
    """Set what a model derives from its configuration, such as ``has_sliding_layers``.

    Only outside of the layers: what a layer does must follow from where it stands.
    """
    if built is None:
        return
    stacks = tuple(f"{stack.path}." for stack in stacks_of(model))
    parts = dict(built.named_modules())
    for path, part in model.named_modules():
        if path in parts and not path.startswith(stacks):
            wanted = vars(parts[path])
            for name, value in list(vars(part).items()):
                if _is_fact(name, value) and type(wanted.get(name)) is type(value):
                    setattr(part, name, wanted[name])


def _is_fact(name: str, value: Any) -> bool:
    return isinstance(value, (int, str)) and name not in _SWITCHES and name[0] != "_"


def _built(model: nn.Module) -> nn.Module | None:
    """What the configuration builds, without memory; None where it alone builds nothing."""
    if not isinstance(model, PreTrainedModel) or model.config.model_type == "universal":
        return None
    # Through plain data, as saving goes: what the configuration derives is derived again.
    config: Any = type(model.config).from_dict(model.config.to_dict())
    config._attn_implementation = model.config._attn_implementation
    kind: Any = type(model)
    try:
        with torch.device("meta"):
            return cast(nn.Module, kind(config))
    except (RuntimeError, NotImplementedError):  # some families compute with values at once
        with torch.random.fork_rng(devices=[]):
            return cast(nn.Module, kind(config))


def _facts(model: nn.Module) -> dict[str, Any]:
    facts: dict[str, Any] = {
        name: tuple(value.shape) for name, value in model.state_dict(keep_vars=True).items()
    }
    for path, part in model.named_modules():
        for name, value in vars(part).items():
            if _is_fact(name, value):
                facts[f"{path}.{name}"] = value
    return facts
