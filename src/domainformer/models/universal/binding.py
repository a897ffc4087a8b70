"""``bind``: one way to call any language model, whatever its ``forward`` takes and gives.

::

    input_ids, attention_mask, …  ─▶ the arguments that forward has ─▶ module ─▶ logits, loss, cache

What ``forward`` requires and nobody declares is refused when the model is bound, with file and
line; no tensor is ever invented. A model of transformers, or of this library, is called as it is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from domainformer.errors import AdapterError, UnresolvedInput, nearest
from domainformer.models.universal.aliases import INVERTED_MASKS, SHIFTED_LABELS, Role
from domainformer.models.universal.executor import ComputationalGraphExecutor
from domainformer.models.universal.forward import unwrapped
from domainformer.models.universal.outputs import Chooser, find_cache, find_logits
from domainformer.models.universal.signature import ModelSignatureInspector

IGNORED_LABEL = -100

# The roles that a call of a BoundModel fills itself, by its own argument.
_FILLED = {
    Role.TOKENS: "input_ids",
    Role.MASK: "attention_mask",
    Role.POSITIONS: "position_ids",
    Role.CACHE: "past_key_values",
}


_DECODER_INPUTS = frozenset({"decoder_input_ids", "decoder_inputs_embeds"})

# With these a model gives the logits of the last positions alone.
_FEWER_LOGITS = frozenset({"logits_to_keep", "num_logits_to_keep"})

# Leaving these out would change the logits and say nothing.
_NEVER_DROPPED = frozenset({Role.POSITIONS, Role.CACHE})


@dataclasses.dataclass
class BoundOutput:
    """What a call of a :class:`BoundModel` gives.

    Attributes:
        logits: Float [B, L, V].
        loss: Mean over the labels that are not ignored; ``None`` without labels.
        past_key_values: What the next call takes to go on, as the model gave it.
        raw: The model's own output, untouched.
    """

    logits: torch.Tensor
    loss: torch.Tensor | None
    past_key_values: Any
    raw: Any


class BoundModel(nn.Module):
    """A module behind the arguments of a causal language model; made by :func:`bind`.

    Attributes:
        module: The user's own module; its parameters are trained in place.
        inspector: What was found out about its ``forward``.
        native: Whether it is called as it is (a model of transformers or of this library).
    """

    def __init__(
        self,
        module: nn.Module,
        inspector: ModelSignatureInspector,
        *,
        executor: ComputationalGraphExecutor | None = None,
        logits: Chooser | None = None,
        vocab_size: int | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.inspector = inspector
        self.vocab_size = vocab_size
        self.native = isinstance(unwrapped(module), PreTrainedModel)
        # Without a provider or a dead argument there is nothing to compute beside the module.
        idle = executor is None or not (executor.provided or executor.dead)
        self.executor = None if idle else executor
        self._decodes = self.native and bool(getattr(self.config, "is_encoder_decoder", False))
        self._chosen = logits
        self._names = {role: inspector.of(role) for role in Role}
        tokens = [p for p in inspector.parameters if p.role is Role.TOKENS]
        if len(tokens) > 1:
            self._names[Role.TOKENS] = tuple(p.name for p in tokens if p.required)
        self._flattens = any(name in SHIFTED_LABELS for name in self._names[Role.LABELS])
        self._call = _CallPlan(inspector)

    @property
    def config(self) -> Any:
        """The module's own config, if it has one."""
        return getattr(unwrapped(self.module), "config", None)

    def takes(self, role: Role | str) -> bool:
        """Whether ``forward`` has an argument of this role."""
        return bool(self._names[Role(role)])

    def requires(self, role: Role | str) -> bool:
        """Whether a call without this role fails."""
        wanted = Role(role)
        return any(p.required for p in self.inspector.parameters if p.role is wanted)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BoundOutput:
        """Call the module with what its ``forward`` takes.

        Args:
            input_ids: Token ids int64 [B, L].
            attention_mask: 1 for a token, 0 for padding [B, L]. A module without a mask is called
                without it: whether padding then matters is for the verification to measure.
            position_ids: Positions [B, L].
            past_key_values: ``past_key_values`` of an earlier output.
            labels: Ids [B, L], not shifted; −100 is ignored.
            kwargs: Further arguments of the module's ``forward``, by their names.

        Raises:
            AdapterError: An argument that the module cannot take, or no logits in its output.
            UnresolvedInput: The module needs an argument that this call does not give.
        """
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "past_key_values": past_key_values,
        }
        if self._decodes and labels is None and not kwargs.keys() & _DECODER_INPUTS:
            self._refuse_no_decoder()
        values = self._arguments(given, labels, kwargs)
        if self.executor is not None:
            present = {name: value for name, value in given.items() if value is not None}
            values |= self.executor({**present, **values})
        raw = self._call(self.module, values)
        logits = find_logits(
            raw,
            self._shape(input_ids, kwargs),
            vocab_size=self.vocab_size,
            chosen=self._chosen,
            where=self.inspector.source.at(),
            flattened=self._flattens,
        )
        cache = find_cache(raw, logits, takes_state=bool(self._names[Role.CACHE]))
        return BoundOutput(logits, self._loss(raw, logits, labels), cache, raw)

    def _refuse_no_decoder(self) -> None:
        raise UnresolvedInput(
            "an encoder-decoder needs the ids of its decoder",
            names=["decoder_input_ids"],
            candidates=["labels=… in the call (they are shifted)", "decoder_input_ids=…"],
            where=self.inspector.source.at(),
        )

    def _arguments(
        self, given: Mapping[str, Any], labels: torch.Tensor | None, kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Values by the names of the module's own arguments."""
        values = dict(kwargs)
        for role, source in _FILLED.items():
            value, names = given[source], self._names[role]
            if value is None:
                continue
            if not names and role in _NEVER_DROPPED:
                raise AdapterError(
                    f"forward takes no {source}",
                    where=self.inspector.source.at(),
                    why="leaving it out would change the logits",
                    next_step="call it without, or name the argument: roles={'NAME': "
                    f"'{role.value}'}}",
                )
            for name in names:
                values.setdefault(name, _inverted(value) if name in INVERTED_MASKS else value)
        for name in self._names[Role.LABELS]:
            if name in SHIFTED_LABELS:
                values.setdefault(name, _shifted(given["input_ids"]))
            elif labels is not None:
                values.setdefault(name, labels)
        return values

    def _shape(self, input_ids: torch.Tensor, kwargs: Mapping[str, Any]) -> tuple[int, int | None]:
        """(B, L) of the logits: a decoder's are those of its own ids.

        Models of transformers say which tensor their logits are, and have ways to ask for fewer.
        """
        if self.native or kwargs.keys() & _FEWER_LOGITS:
            return input_ids.shape[0], None
        ids = next((kwargs[name] for name in self._names[Role.ENCODER] if name in kwargs), None)
        batch, length = (input_ids if ids is None or ids.dim() != 2 else ids).shape[:2]
        return batch, length

    def _loss(
        self, raw: Any, logits: torch.Tensor, labels: torch.Tensor | None
    ) -> torch.Tensor | None:
        """The module's own loss where it takes labels as they are, else cross-entropy."""
        if labels is None:
            return None
        own = getattr(raw, "loss", None)
        if own is None and isinstance(raw, Mapping):
            own = raw.get("loss")
        aligned = [name for name in self._names[Role.LABELS] if name not in SHIFTED_LABELS]
        if aligned and isinstance(own, torch.Tensor):
            return own
        return F.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(),
            labels[:, 1:].flatten().to(logits.device),
            ignore_index=IGNORED_LABEL,
        )


class _CallPlan:
    """Which arguments go by position and which by name, worked out once."""

    def __init__(self, inspector: ModelSignatureInspector) -> None:
        parameters = inspector.parameters
        star = next((p for p in parameters if p.kind == "variadic positional"), None)
        filled_star = star is not None and star.role is not Role.UNKNOWN
        by_position = {"positional-only"} | ({"positional or keyword"} if filled_star else set())
        self.positional = tuple(p for p in parameters if p.kind in by_position)
        self.star = star.name if star is not None and filled_star else None
        self.known = {p.name for p in parameters if not p.kind.startswith("variadic")}
        self.required = frozenset(p.name for p in parameters if p.required)
        self.accepts_any = any(p.kind == "variadic keyword" for p in parameters)
        self.inspector = inspector

    def __call__(self, module: nn.Module, values: dict[str, Any]) -> Any:
        if not self.required <= values.keys():
            self._refuse_missing(values)
        if not self.accepts_any and not values.keys() <= self.known | {self.star}:
            self._refuse_unknown(values)
        arguments: list[Any] = []
        if self.positional or self.star is not None:
            values = dict(values)
            arguments = self._by_position(values)
        return module(*arguments, **values)

    def _by_position(self, values: dict[str, Any]) -> list[Any]:
        last = max((i for i, p in enumerate(self.positional) if p.name in values), default=-1)
        if self.star in values:
            last = len(self.positional) - 1
        arguments = [values.pop(p.name, p.default) for p in self.positional[: last + 1]]
        if self.star in values:
            arguments.append(values.pop(self.star))
        return arguments

    def _refuse_missing(self, values: Mapping[str, Any]) -> None:
        names = tuple(p.name for p in self.inspector.parameters if p.name in self.required)
        missing = tuple(name for name in names if name not in values)
        raise UnresolvedInput(
            f"forward needs {', '.join(missing)}, which this call does not give",
            names=missing,
            candidates=[f"{name}=… in the call" for name in missing],
            where=self.inspector.source.at(),
        )

    def _refuse_unknown(self, values: Mapping[str, Any]) -> None:
        unknown = sorted(values.keys() - self.known - {self.star})
        raise AdapterError(
            f"forward takes no {', '.join(unknown)}",
            where=self.inspector.source.at(),
            next_step=nearest(unknown[0], self.known),
        )


def bind(
    model: nn.Module,
    *,
    roles: Mapping[str, Role | str] | None = None,
    providers: Mapping[str, Any] | None = None,
    logits: str | int | Callable[[Any], torch.Tensor] | None = None,
    config: Any = None,
) -> BoundModel:
    """Put any module behind the arguments of a causal language model.

    Args:
        model: A module that takes token ids, in whatever argument.
        roles: What arguments of its ``forward`` are for, where their names do not tell:
            ``{"x": "tokens"}``.
        providers: Where arguments come from that no caller gives; see
            :class:`ComputationalGraphExecutor`.
        logits: A field's name or number, or a function of the output, where several may be meant.
        config: The model's config where it is not ``model.config``: a mapping or an object, read
            for ``vocab_size`` and ``edges``.

    Raises:
        UnresolvedInput: An argument without a default has no source.
        AdapterError: A role or name that does not exist, or no argument for token ids.

    Example:
        >>> class Bigrams(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.table = nn.Embedding(10, 10)
        ...     def forward(self, x):
        ...         return self.table(x)
        >>> bound = bind(Bigrams())
        >>> bound(torch.zeros(2, 3, dtype=torch.long)).logits.shape
        torch.Size([2, 3, 10])
    """
    inspector = ModelSignatureInspector(model, roles)
    _check_tokens(inspector)
    settings = config if config is not None else getattr(unwrapped(model), "config", None)
    executor = ComputationalGraphExecutor(model, inspector, providers, config=settings)
    return BoundModel(
        model, inspector, executor=executor, logits=logits, vocab_size=_vocab_size(model, settings)
    )


def _vocab_size(model: nn.Module, config: Any) -> int | None:
    """From the config, or the rows of the only embedding table."""
    if isinstance(config, Mapping):
        found = config.get("vocab_size")
    else:
        found = getattr(config, "vocab_size", None)
    if isinstance(found, int):
        return found
    rows = {m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)}
    return rows.pop() if len(rows) == 1 else None


def _check_tokens(inspector: ModelSignatureInspector) -> None:
    """Exactly one argument takes the ids: two would get the same ones, and mean two things."""
    where = inspector.source.at()
    tokens = [p for p in inspector.parameters if p.role is Role.TOKENS]
    required = [p for p in tokens if p.required]
    if len(tokens) == 1 or len(required) == 1:
        return
    if tokens:
        raise UnresolvedInput(
            f"{len(tokens)} arguments of forward take token ids, and a call gives one",
            names=[p.name for p in tokens],
            candidates=[
                f"roles={{{p.name!r}: 'option'}} and {p.name}=… in each call" for p in tokens
            ],
            where=where,
            why="; ".join(f"{p.name}: {p.why}" for p in tokens),
        )
    unknown = [p for p in inspector.parameters if p.role is Role.UNKNOWN]
    raise UnresolvedInput(
        "no argument of forward is known to take token ids",
        names=[p.name for p in unknown],
        candidates=[f"roles={{{p.name!r}: 'tokens'}}" for p in unknown],
        where=where,
        why="; ".join(f"{p.name}: {p.why}" for p in inspector.parameters) or "it takes nothing",
        next_step=None if unknown else "give a module whose forward takes token ids",
    )


def _inverted(mask: torch.Tensor) -> torch.Tensor:
    return mask == 0


def _shifted(input_ids: torch.Tensor) -> torch.Tensor:
    """The next ids, the last one repeated; the loss that a model makes of them is not used.

    Models of nanoGPT's kind give the logits of all positions only when they have targets.
    """
    return torch.cat([input_ids[:, 1:], input_ids[:, -1:]], dim=1)
