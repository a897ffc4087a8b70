"""Finding logits ``[B, L, V]`` in whatever a model gives back.

::

    tensor │ tuple │ list │ dict │ dataclass │ ModelOutput
        ─▶ the value named logits ─▶ else the only float tensor [B, L, ·] ─▶ else AdapterError
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch

from domainformer.errors import AdapterError, nearest

Chooser = str | int | Callable[[Any], torch.Tensor]

LOGITS_NAMES = ("logits", "lm_logits", "prediction_scores", "prediction_logits", "scores")
CACHE_NAMES = (
    "past_key_values",
    "cache",
    "past",
    "mems",
    "state",
    "hidden",
    "hidden_state",
    "cache_params",
)
# Three-dimensional floats that are no logits: taking them would train a head that is none.
_HIDDEN_NAMES = (
    "last_hidden_state",
    "hidden_states",
    "attentions",
    "encoder_last_hidden_state",
    "embeddings",
    "features",
    "pooler_output",
)


def fields_of(raw: Any) -> dict[str | int, Any]:
    """The values of an output by name or number; a lone tensor is number 0.

    Example:
        >>> list(fields_of((1, 2))), list(fields_of({"logits": 3}))
        ([0, 1], ['logits'])
    """
    if isinstance(raw, Mapping):
        return dict(raw)
    if dataclasses.is_dataclass(raw) and not isinstance(raw, type):
        return {field.name: getattr(raw, field.name) for field in dataclasses.fields(raw)}
    if isinstance(raw, tuple) and hasattr(raw, "_fields"):
        return dict(zip(raw._fields, raw, strict=True))
    if isinstance(raw, (tuple, list)):
        return dict(enumerate(raw))
    if hasattr(raw, "logits"):
        return {"logits": raw.logits}
    return {0: raw}


def find_logits(
    raw: Any,
    shape: tuple[int, int | None],
    *,
    vocab_size: int | None = None,
    chosen: Chooser | None = None,
    where: str | None = None,
    flattened: bool = False,
) -> torch.Tensor:
    """The logits in an output.

    Args:
        raw: What ``forward`` gave back.
        shape: (B, L) of the ids that went in; L is None where any length is right.
        vocab_size: Decides between several candidates, where it is known.
        chosen: A field's name or number, or a function of the output, in place of the search.
        where: File and line of ``forward``, for the message.
        flattened: Whether [B · L, V] is taken, too: so do models that had labels leave them.

    Returns:
        A float tensor [B, L, V].

    Raises:
        AdapterError: There is none, or more than one; the message lists what there was.

    Example:
        >>> find_logits({"loss": torch.zeros(()), "out": torch.zeros(2, 3, 7)}, (2, 3)).shape
        torch.Size([2, 3, 7])
    """
    if flattened:
        raw = _unflattened(raw, shape)
    if chosen is not None:
        return _checked(_chosen(raw, chosen, where), raw, shape, where)
    if isinstance(raw, torch.Tensor):
        return _checked(raw, raw, shape, where)
    fields = fields_of(raw)
    for name in LOGITS_NAMES:
        if isinstance(fields.get(name), torch.Tensor):
            return _checked(fields[name], raw, shape, where)
    found = {
        name: value
        for name, value in fields.items()
        if _fits(value, shape) and name not in _HIDDEN_NAMES
    }
    if len(found) > 1 and vocab_size is not None:
        narrowed = {name: value for name, value in found.items() if value.shape[2] == vocab_size}
        found = narrowed if len(narrowed) == 1 else found
    if len(found) == 1:
        return next(iter(found.values()))
    raise AdapterError(
        "no logits [B, L, V] are found in what forward gives back"
        if not found
        else f"{len(found)} values may be the logits: {', '.join(map(repr, found))}",
        where=where,
        why=f"for ids [{shape[0]}, {shape[1] or 'L'}] it gave {describe(raw)}",
        next_step="name them: bind(model, logits='NAME'), logits=NUMBER or logits=lambda output: …",
    )


def find_cache(raw: Any, logits: torch.Tensor, *, takes_state: bool) -> Any:
    """What the next call takes to go on: by name, or the other half of a pair.

    Args:
        raw: What ``forward`` gave back.
        logits: The logits that were found in it.
        takes_state: Whether ``forward`` has an argument for it; a pair is (logits, state) then.
    """
    if isinstance(raw, torch.Tensor):
        return None
    fields = fields_of(raw)
    for name in CACHE_NAMES:
        if fields.get(name) is not None:
            return fields[name]
    if takes_state and isinstance(raw, tuple) and len(raw) == 2:
        return next((value for value in raw if value is not logits), None)
    return None


def describe(raw: Any, *, depth: int = 0) -> str:
    """Names, shapes and types of an output, on one line.

    Example:
        >>> describe({"a": torch.zeros(2, 3), "b": [1, None]})
        "{'a': float32 [2, 3], 'b': [int, None]}"
    """
    if isinstance(raw, torch.Tensor):
        return f"{str(raw.dtype).removeprefix('torch.')} {list(raw.shape)}"
    if raw is None:
        return "None"
    if depth > 2:
        return type(raw).__name__
    if isinstance(raw, (tuple, list)) and not hasattr(raw, "_fields"):
        inner = ", ".join(describe(value, depth=depth + 1) for value in raw[:8])
        more = ", …" if len(raw) > 8 else ""
        return f"[{inner}{more}]" if isinstance(raw, list) else f"({inner}{more})"
    fields = fields_of(raw)
    if fields == {0: raw}:
        return type(raw).__name__
    inner = ", ".join(
        f"{name!r}: {describe(value, depth=depth + 1)}" for name, value in fields.items()
    )
    return f"{{{inner}}}" if isinstance(raw, dict) else f"{type(raw).__name__}({inner})"


def _fits(value: Any, shape: tuple[int, int | None]) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.dim() == 3
        and value.shape[0] == shape[0]
        and shape[1] in (None, value.shape[1])
    )


def _unflattened(raw: Any, shape: tuple[int, int | None]) -> Any:
    """The output with its only float tensor [B · L, V] as [B, L, V]; as it is where none is."""
    fields, (batch, length) = fields_of(raw), shape
    if length is None or any(_fits(value, shape) for value in fields.values()):
        return raw
    flat = [
        name
        for name, value in fields.items()
        if isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.dim() == 2
        and value.shape[0] == batch * length
    ]
    if len(flat) != 1:
        return raw
    return {**fields, flat[0]: fields[flat[0]].unflatten(0, (batch, length))}


def _chosen(raw: Any, chosen: Chooser, where: str | None) -> Any:
    if callable(chosen):
        return chosen(raw)
    fields = fields_of(raw)
    if isinstance(chosen, int) and chosen not in fields:
        values = list(fields.values())
        if -len(values) <= chosen < len(values):
            return values[chosen]
    if chosen not in fields:
        raise AdapterError(
            f"the output has no value {chosen!r}",
            where=where,
            why=f"it is {describe(raw)}",
            next_step=nearest(str(chosen), map(str, fields)),
        )
    return fields[chosen]


def _checked(
    value: Any, raw: Any, shape: tuple[int, int | None], where: str | None
) -> torch.Tensor:
    if _fits(value, shape):
        return value
    raise AdapterError(
        f"the logits are {describe(value)}, not float [{shape[0]}, {shape[1] or 'L'}, V]",
        where=where,
        why=f"forward gave {describe(raw)}" if raw is not value else None,
        next_step=_hint(value, shape),
    )


def _hint(value: Any, shape: tuple[int, int | None]) -> str | None:
    """What a wrong shape usually means."""
    batch, length = shape
    if not isinstance(value, torch.Tensor) or length is None:
        return None
    if value.dim() == 3:
        if tuple(value.shape[:2]) == (length, batch):
            return "it has the length before the batch: logits=lambda output: …transpose(0, 1)"
        return "forward gives logits of other positions than those of its ids"
    if value.dim() == 2 and value.shape[0] == batch * length:
        return "batch and length are one axis: logits=lambda output: …unflatten(0, (batch, length))"
    if value.dim() == 2:
        return "one row per example: this is a classifier or an encoder, no language model"
    return None
