"""Where the outputs of a model's parts come from: declared by a graph, or by the user.

::

    edges  input_0_tokens ─▶ embedding_0_token ─▶ mhsa_0 ─▶ residual_0
                                    └───────────────────────▶┘

A node is an input of the caller's, a submodule of that very name, or one of two operations:
``residual_N`` and ``add_N`` sum what leads to them, for they have no weights and are no modules.
"""

from __future__ import annotations

import dataclasses
import graphlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from domainformer.errors import AdapterError, nearest

_OPERATION = re.compile(r"(residual|add)(_\d+)?")
_SUFFIX = re.compile(r"_(output|out)$")


@dataclasses.dataclass(frozen=True)
class Provider:
    """How one output is made.

    Attributes:
        node: Name of a submodule or operation; with ``call``, a name for messages.
        inputs: Names of what it takes, in order; ``None`` to take what the graph says.
        call: A function of the inputs, in place of a submodule.
        take: Which value of a submodule that gives several.

    Example:
        >>> Provider("mhsa_0", ("embedding_0_output",), take=0).inputs
        ('embedding_0_output',)
    """

    node: str
    inputs: tuple[str, ...] | None = None
    call: Callable[..., Any] | None = None
    take: int | str | None = None


def as_provider(name: str, given: Any) -> Provider:
    """A provider from what a user may write for the argument ``name``.

    A string names a submodule or operation whose inputs the graph has; a tuple adds the inputs; a
    function takes its inputs by the names of its own arguments.

    Raises:
        AdapterError: It is none of these.

    Example:
        >>> as_provider("residual_0_output", ("add", "embedding_0_output", "mhsa_0_output")).inputs
        ('embedding_0_output', 'mhsa_0_output')
        >>> as_provider("padding_mask", lambda attention_mask: attention_mask == 0).inputs
        ('attention_mask',)
    """
    if isinstance(given, Provider):
        return given
    if isinstance(given, str):
        return Provider(given)
    if isinstance(given, Sequence) and given and all(isinstance(part, str) for part in given):
        return Provider(given[0], tuple(given[1:]))
    if callable(given) and not isinstance(given, nn.Module):
        names = inspect.signature(given).parameters.values()
        plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        if all(parameter.kind in plain for parameter in names):
            return Provider(name, tuple(parameter.name for parameter in names), call=given)
    raise AdapterError(
        f"the provider of {name!r} cannot be read",
        where=f"providers[{name!r}]",
        why=f"it is {given!r}",
        next_step="give a submodule's name, (name, input, …), or a function whose arguments are "
        "named as its inputs",
    )


def read_edges(config: Any) -> tuple[tuple[str, str], ...]:
    """The edges that a config declares: under ``edges``, or ``graph.edges``; none are none.

    Args:
        config: A mapping or an object. An edge is a pair, or a mapping with ``source`` and
            ``target``.

    Raises:
        AdapterError: They are there and cannot be read.

    Example:
        >>> read_edges({"edges": [["a", "b"], {"source": "b", "target": "c"}]})
        (('a', 'b'), ('b', 'c'))
    """
    found = _entry(config, "edges")
    if found is None:
        found = _entry(_entry(config, "graph"), "edges")
    edges = []
    for number, edge in enumerate(found or ()):
        if isinstance(edge, Mapping):
            edge = (edge.get("source"), edge.get("target"))
        if not (isinstance(edge, Sequence) and len(edge) == 2 and all(map(_is_name, edge))):
            raise AdapterError(
                "an edge is not a pair of names", where=f"edges[{number}]", why=f"it is {edge!r}"
            )
        edges.append((str(edge[0]), str(edge[1])))
    return tuple(edges)


def _entry(config: Any, name: str) -> Any:
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


class Graph:
    """The nodes of a model and what leads to each.

    Args:
        model: Whose submodules are nodes.
        inputs: Names that the caller gives at each call.
        edges: (source, target) pairs; the order of the edges into a node is that of its inputs.
        providers: What the user says, by the names of arguments; it goes before the edges.

    Raises:
        AdapterError: A provider that cannot be read.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Iterable[str],
        edges: Iterable[tuple[str, str]] = (),
        providers: Mapping[str, Any] | None = None,
    ) -> None:
        self.modules = {name: module for name, module in model.named_modules() if name}
        self.inputs = frozenset(inputs)
        self.sources: dict[str, list[str]] = {}
        self._nodes = {node for edge in edges for node in edge}
        for source, target in edges:
            self.sources.setdefault(self.node(target), []).append(self.node(source))
        self.providers = {
            self.node(name): as_provider(name, given) for name, given in (providers or {}).items()
        }

    def node(self, name: str) -> str:
        """The node that a name means: ``mhsa_0_output`` is the output of ``mhsa_0``."""
        if name in self.inputs or name in self.modules:
            return name
        bare = _SUFFIX.sub("", name)
        known = bare in self.modules or bare in self._nodes or _OPERATION.fullmatch(bare)
        return bare if known else name

    def provider(self, node: str) -> Provider | None:
        """How a node's value is made, with its inputs as nodes; ``None`` if nobody says."""
        found = self.providers.get(node)
        if found is None and (node in self.modules or is_operation(node)):
            found = Provider(node)
        if found is None:
            return None
        if found.call is None and found.node not in self.modules and not is_operation(found.node):
            return None
        if found.inputs is not None:
            inputs = tuple(map(self.node, found.inputs))
        else:
            sources = self.sources.get(self.node(found.node)) or self.sources.get(node)
            if not sources:
                return None
            inputs = tuple(sources)
        return dataclasses.replace(found, inputs=inputs)

    def order(self, wanted: Iterable[str]) -> tuple[list[str], dict[str, str]]:
        """Nodes to compute for those wanted, sources first; and what has no provider.

        Returns:
            The order without inputs, and each unresolved node with the node that wants it.

        Raises:
            AdapterError: Nodes that wait for each other.
        """
        sorter: graphlib.TopologicalSorter[str] = graphlib.TopologicalSorter()
        unresolved: dict[str, str] = {}
        waiting = [(node, node) for node in wanted]
        seen: set[str] = set()
        while waiting:
            node, wanter = waiting.pop()
            if node in seen or node in self.inputs:
                continue
            seen.add(node)
            provider = self.provider(node)
            if provider is None:
                unresolved[node] = wanter
                continue
            assert provider.inputs is not None
            sorter.add(node, *(name for name in provider.inputs if name not in self.inputs))
            waiting += [(name, node) for name in provider.inputs]
        try:
            return [node for node in sorter.static_order() if node not in unresolved], unresolved
        except graphlib.CycleError as error:
            raise AdapterError(
                "outputs wait for each other",
                why=" ─▶ ".join(error.args[1]),
                next_step="take one of these edges out of the graph",
            ) from error

    def candidates(self, node: str) -> list[str]:
        """What a user could declare for a node without provider, best first."""
        bare = _SUFFIX.sub("", node)
        if bare in self.modules:
            return [f"providers={{{node!r}: ({bare!r}, INPUT, …)}}", f"edges into {bare!r}"]
        if is_operation(bare):
            return [f"providers={{{node!r}: ('add', INPUT, INPUT)}}", f"edges into {bare!r}"]
        near = nearest(bare, self.modules) or ""
        return [f"providers={{{node!r}: (SUBMODULE, INPUT, …)}} ({near})"]


def is_operation(name: str) -> bool:
    """Whether a name is a sum without weights: ``residual_N`` or ``add_N``.

    Example:
        >>> is_operation("residual_0"), is_operation("residual_block")
        (True, False)
    """
    return _OPERATION.fullmatch(name) is not None
