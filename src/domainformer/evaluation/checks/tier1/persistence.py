"""Saving and loading: is all that decides the answer in the files?

::

    model ─▶ save ─▶ safetensors ─▶ load into a model with other weights ─▶ the same logits?

What lives outside ``state_dict`` (a layer in a plain Python list, a tensor as a plain attribute)
is lost without a word: the first is an error, the second a warning, as constructors may rebuild it.
"""

from __future__ import annotations

import inspect
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from torch import nn
from transformers import PreTrainedModel

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import Subject, Unanswerable
from domainformer.models.families.loading import without_progress_bar
from domainformer.models.universal.forward import unwrapped
from domainformer.models.universal.pretrained import UniversalForCausalLM
from domainformer.models.universal.probing import (
    at_rest,
    difference,
    draw_tokens,
    limit_of,
    listed,
)
from domainformer.models.universal.verdict import CheckResult


@torch.no_grad()
def check_persistence(context: Context) -> CheckResult:
    """Logits are the same after saving and loading, and nothing that learns is left outside."""
    subject = context.subject
    outside = [name for name, one in loose_tensors(subject.model) if one.requires_grad]
    if outside:
        return CheckResult(
            "save_load",
            "fail",
            f"weights that state_dict does not hold, so that saving loses them: {listed(outside)}",
            "hold layers in nn.ModuleList or nn.ModuleDict, weights in nn.Parameter",
            float(len(outside)),
            0.0,
        )
    ids = draw_tokens(
        2, context.length, subject.vocab_size, seed=context.seed, device=subject.device
    )
    with at_rest(subject), tempfile.TemporaryDirectory() as folder:
        before = subject(ids)
        again, how = _reloaded(subject, Path(folder))
        after = again(ids)
    limit = limit_of(before)
    value = difference(before, after, before) if before.shape == after.shape else float("inf")
    if not value <= limit:
        return CheckResult(
            "save_load",
            "fail",
            f"after {how} the logits are others",
            "register all that decides the answer: nn.Parameter or register_buffer; tie weights "
            "by the same object",
            value,
            limit,
        )
    plain = [name for name, _ in loose_tensors(subject.model)]
    if plain:
        return CheckResult(
            "save_load",
            "warn",
            f"the logits are the same after {how}, but plain tensors are not saved: "
            f"{listed(plain)}",
            "register_buffer, unless the constructor makes them again",
            value,
            limit,
        )
    return CheckResult(
        "save_load", "pass", f"the logits are the same after {how}", None, value, limit
    )


def _reloaded(subject: Subject, folder: Path) -> tuple[Subject, str]:
    """A copy whose weights come from files alone."""
    other = subject.copied()
    own: Any = unwrapped(subject.model)
    for weight in other.parameters():
        if weight.is_floating_point():
            weight.fill_(0.1234)
    loads = isinstance(own, PreTrainedModel) and not isinstance(own, UniversalForCausalLM)
    if loads and _constructs(own):
        with without_progress_bar():
            own.save_pretrained(folder)
            found = type(own).from_pretrained(folder, local_files_only=True, use_safetensors=True)
        state = found.to(subject.device, next(own.parameters()).dtype).state_dict()
        unwrapped(other.model).load_state_dict(state)
        return other, "save_pretrained and from_pretrained"
    try:
        save_model(subject.model, str(folder / "model.safetensors"))
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0][:200]
        raise Unanswerable(f"safetensors cannot hold it as it is: {line}") from error
    load_model(other.model, str(folder / "model.safetensors"))
    return other, "a round trip through safetensors"


def _constructs(own: nn.Module) -> bool:
    """Whether its class is made from a configuration alone, as ``from_pretrained`` does."""
    needed = [
        one
        for one in list(inspect.signature(type(own).__init__).parameters.values())[2:]
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    return not needed


def loose_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors that a model holds and ``state_dict`` does not know, with their names.

    Buffers are known, also those that are not saved: whoever made them said so.

    Example:
        >>> model = nn.Module()
        >>> model.layers, model.scale = [nn.Linear(2, 2)], torch.ones(())
        >>> [name for name, _ in loose_tensors(model)]
        ['layers.0.weight', 'layers.0.bias', 'scale']
    """
    known = {id(one) for one in [*model.parameters(), *model.buffers()]}
    registered = set(model.modules())
    for prefix, part in model.named_modules():
        for name, value in vars(part).items():
            if not name.startswith(("_parameters", "_buffers", "_modules")):
                path = f"{prefix}.{name}" if prefix else name
                yield from _tensors(path, value, known, registered, depth=0)


def _tensors(
    path: str, value: Any, known: set[int], registered: set[nn.Module], *, depth: int
) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        if id(value) not in known:
            known.add(id(value))
            yield path, value
    elif isinstance(value, nn.Module):
        if value not in registered:
            for name, one in [*value.named_parameters(), *value.named_buffers()]:
                yield from _tensors(f"{path}.{name}", one, known, registered, depth=depth)
    elif depth < 3 and isinstance(value, (list, tuple)):
        for place, one in enumerate(value):
            yield from _tensors(f"{path}.{place}", one, known, registered, depth=depth + 1)
    elif depth < 3 and isinstance(value, dict):
        for key, one in value.items():
            yield from _tensors(f"{path}.{key}", one, known, registered, depth=depth + 1)
