"""Computing the outputs that a ``forward`` wants as arguments, each once, sources first."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Mapping
from typing import Any

from torch import nn

from domainformer.errors import AdapterError, UnresolvedInput
from domainformer.models.universal.aliases import Role
from domainformer.models.universal.forward import unwrapped
from domainformer.models.universal.graph import Graph, Provider, is_operation, read_edges
from domainformer.models.universal.liveness import Liveness, analyse
from domainformer.models.universal.outputs import describe
from domainformer.models.universal.sentinels import Untouchable
from domainformer.models.universal.signature import ForwardParameter, ModelSignatureInspector

# What a call of a bound model gives, besides the arguments of forward itself.
CALLER_INPUTS = ("input_ids", "attention_mask", "position_ids", "past_key_values")

# Roles whose arguments the caller fills; all others need a provider, or a default.
CALLER_ROLES = frozenset(Role) - {Role.UNKNOWN, Role.INTERMEDIATE, Role.EMBEDDINGS}


class ComputationalGraphExecutor:
    """Makes the arguments of a ``forward`` that no caller gives.

    ::

        live    ─▶ its provider, from ``edges`` or the user's map ─▶ computed once per forward
        dead    ─▶ an Untouchable, that raises when it is used after all
        neither ─▶ UnresolvedInput, with file, line and candidates; never a tensor in its place

    Args:
        model: The module whose submodules make the outputs.
        inspector: What its ``forward`` takes.
        providers: By argument: a submodule's name, ``(name, input, …)``, a function whose
            arguments are named as its inputs, or a :class:`Provider`.
        config: Where ``edges`` are; ``model.config`` or ``model.edges`` by default.

    Raises:
        UnresolvedInput: A live argument without a default has no provider.
        AdapterError: Edges or providers that contradict themselves.

    Example:
        >>> import torch
        >>> class Flat(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.embedding_0 = nn.Embedding(10, 4)
        ...         self.linear_0 = nn.Linear(4, 10)
        ...     def forward(self, input_0_tokens, embedding_0_output, residual_0_output):
        ...         return self.linear_0(residual_0_output)
        >>> model = Flat()
        >>> executor = ComputationalGraphExecutor(model, ModelSignatureInspector(model), {
        ...     "residual_0_output": ("add", "embedding_0_output", "embedding_0_output"),
        ...     "embedding_0_output": ("embedding_0", "input_0_tokens")})
        >>> executor.order
        ('embedding_0', 'residual_0')
        >>> made = executor({"input_0_tokens": torch.zeros(2, 3, dtype=torch.long)})
        >>> made["residual_0_output"].shape
        torch.Size([2, 3, 4])
    """

    def __init__(
        self,
        model: nn.Module,
        inspector: ModelSignatureInspector,
        providers: Mapping[str, Any] | None = None,
        *,
        config: Any = None,
    ) -> None:
        self.inspector = inspector
        self.liveness: Liveness = analyse(model)
        inner = unwrapped(model)
        filled = [p.name for p in inspector.parameters if p.role in CALLER_ROLES]
        inputs = {*CALLER_INPUTS, *filled} - set(providers or {})
        self.graph = Graph(inner, inputs, _edges(inner, config), providers)
        self._dead = _dead_arguments(inspector, self.liveness, set(providers or {}))
        wanted = [p for p in inspector.parameters if self._is_wanted(p, set(providers or {}))]
        order, unresolved = self.graph.order(self.graph.node(p.name) for p in wanted)
        # An optional argument without a provider keeps its default.
        optional = {self.graph.node(p.name) for p in wanted if not p.required}
        self._refuse(
            {node: by for node, by in unresolved.items() if node != by or node not in optional}
        )
        self.model = inner
        self._steps = [(node, self._provider(node)) for node in order]
        self.provided = {
            p.name: self.graph.node(p.name)
            for p in wanted
            if self.graph.node(p.name) not in unresolved
        }

    @property
    def order(self) -> tuple[str, ...]:
        """The nodes that one forward computes, in order."""
        return tuple(node for node, _ in self._steps)

    @property
    def dead(self) -> frozenset[str]:
        """The arguments that get an Untouchable."""
        return frozenset(self._dead)

    def __call__(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments that the caller does not give.

        Args:
            values: What the caller gives, by the names of ``forward`` and of ``CALLER_INPUTS``.

        Raises:
            AdapterError: A node fails on its inputs, or gives several values of which none is
                chosen.
            UnresolvedInput: A node wants an input that this call does not give.
        """
        done: dict[str, Any] = {}
        for node, provider in self._steps:
            inputs = provider.inputs or ()
            try:
                arguments = [done[name] if name in done else values[name] for name in inputs]
            except KeyError as error:
                raise UnresolvedInput(
                    f"{node} takes {error.args[0]}, which this call does not give",
                    names=[error.args[0]],
                    candidates=[f"{error.args[0]}=… in the call"],
                    where=self.inspector.source.at(),
                ) from error
            done[node] = _made(self.model, node, provider, arguments)
        made = {name: done[node] for name, node in self.provided.items() if name not in values}
        where = self.inspector.source.at()
        made |= {name: Untouchable(name, where) for name in self._dead if name not in values}
        return made

    def _is_wanted(self, parameter: ForwardParameter, given: set[str]) -> bool:
        if parameter.name in self._dead or parameter.kind.startswith("variadic"):
            return False
        declared = parameter.name in given or self.graph.node(parameter.name) in given
        needed = parameter.required and parameter.role not in CALLER_ROLES
        return declared or needed or parameter.role is Role.INTERMEDIATE

    def _refuse(self, unresolved: Mapping[str, str]) -> None:
        if not unresolved:
            return
        arguments = {self.graph.node(p.name): p for p in self.inspector.parameters}
        reasons = []
        for node, wanter in unresolved.items():
            parameter = arguments.get(node)
            why = f"{wanter} takes it" if parameter is None else parameter.why
            reasons.append(f"{node}: {why}")
        names = [arguments[n].name if n in arguments else n for n in unresolved]
        candidates = [c for node in unresolved for c in self.graph.candidates(node)]
        candidates += [
            f"roles={{{p.name!r}: 'option'}} and {p.name}=… in each call"
            for node, p in arguments.items()
            if node in unresolved and p.role is Role.UNKNOWN
        ]
        raise UnresolvedInput(
            f"forward needs {', '.join(names)}, and nothing provides it",
            names=names,
            candidates=candidates,
            where=self.inspector.source.at(),
            why="; ".join(reasons),
        )

    def _provider(self, node: str) -> Provider:
        provider = self.graph.provider(node)
        assert provider is not None
        module = self.graph.modules.get(provider.node)
        if provider.call is None and module is not None and not _is_attention(module, provider):
            _check_arity(node, module, provider)
        return provider


def _edges(model: nn.Module, config: Any) -> tuple[tuple[str, str], ...]:
    """From the given config, else the model's, else the model itself."""
    for source in (config, getattr(model, "config", None), {"edges": vars(model).get("edges")}):
        found = read_edges(source) if source is not None else ()
        if found:
            return found
    return ()


def _dead_arguments(
    inspector: ModelSignatureInspector, liveness: Liveness, given: set[str]
) -> tuple[str, ...]:
    """Required arguments that nobody reads; one with a default keeps it."""
    return tuple(
        p.name
        for p in inspector.parameters
        if p.required and p.name in liveness.dead_arguments and p.name not in given
        and p.role is not Role.TOKENS
    )  # fmt: skip


def _check_arity(node: str, module: nn.Module, provider: Provider) -> None:
    """Refuse a wrong number of inputs when the model is bound, not at the first batch."""
    assert provider.inputs is not None
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*provider.inputs)
    except TypeError as error:
        raise AdapterError(
            f"{provider.node} cannot take {len(provider.inputs)} inputs",
            where=f"the provider of {node}",
            why=f"{error}; it would get {', '.join(provider.inputs)}",
            next_step=f"its forward is {provider.node}{signature}",
        ) from error


def _is_attention(module: nn.Module, provider: Provider) -> bool:
    """Torch's own attention wants its input three times: query, key and value."""
    return isinstance(module, nn.MultiheadAttention) and len(provider.inputs or ()) == 1


def _made(model: nn.Module, node: str, provider: Provider, arguments: list[Any]) -> Any:
    """The output of one node, of several values the chosen one; a failure names the node.

    Submodules are looked up now: a copy of the model has its own, and surgery replaces them.
    """
    try:
        if provider.call is not None:
            value = provider.call(*arguments)
        elif is_operation(provider.node) and provider.node not in model._modules:
            value = functools.reduce(operator.add, arguments)
        else:
            module = model.get_submodule(provider.node)
            if _is_attention(module, provider):
                value = module(*arguments * 3, need_weights=False)[0]
            else:
                value = module(*arguments)
    except (RuntimeError, TypeError, IndexError) as error:
        pairs = zip(provider.inputs or (), arguments, strict=True)
        shapes = ", ".join(f"{name}: {describe(argument)}" for name, argument in pairs)
        raise AdapterError(f"{node} fails on its inputs", why=f"{error} ({shapes})") from error
    if provider.take is not None:
        try:
            return value[provider.take]
        except (KeyError, IndexError, TypeError) as error:
            raise AdapterError(
                f"{node} has no value {provider.take!r}", why=f"it gave {describe(value)}"
            ) from error
    if isinstance(value, (tuple, list, Mapping)):
        raise AdapterError(
            f"{node} gives several values, and none is chosen",
            why=f"it gave {describe(value)}",
            next_step=f"providers={{{node!r}: Provider({provider.node!r}, inputs, take=0)}}",
        )
    return value
