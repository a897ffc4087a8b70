"""Which names of a ``forward`` are undefined, dead or overwritten: by file and line, not run.

::

    undefined    read, and no way leads to it on which it was bound
    dead         bound (or an argument), and no way leads from there to a read
    overwritten  as dead, and bound again instead
    uncertain    read, and only some ways to it bind it: told, never a verdict

Every verdict holds on all ways through the function. Where that cannot be known (``exec``, a
source that cannot be read) there is no verdict, and ``unknown`` says why.

Source: A. Aho et al., Compilers, 2nd ed., sections 9.2.4-9.2.5.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from domainformer.models.universal.flow import Flow, Node, flow_of
from domainformer.models.universal.forward import (
    ForwardSource,
    Function,
    argument_names,
    find_forward,
    unwrapped,
)

# These read or write names that no syntax tree shows.
_OPAQUE = frozenset({"exec", "eval", "locals", "vars", "dir"})


@dataclasses.dataclass(frozen=True)
class Finding:
    """One name, where it stands, and what is wrong with it.

    Attributes:
        name: As it is written; ``self.NAME`` for a part that the model does not have.
        file: The file.
        line: The line in it.
        why: One sentence.
        argument: Whether it is an argument of ``forward``.
    """

    name: str
    file: str
    line: int
    why: str
    argument: bool = False

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.name}: {self.why}"


@dataclasses.dataclass(frozen=True)
class Liveness:
    """What was found in a ``forward``; all empty where ``unknown`` says why nothing is known."""

    undefined: tuple[Finding, ...] = ()
    dead: tuple[Finding, ...] = ()
    overwritten: tuple[Finding, ...] = ()
    uncertain: tuple[Finding, ...] = ()
    unknown: str | None = None

    @property
    def dead_arguments(self) -> frozenset[str]:
        """Arguments whose given value is never read: they need no provider."""
        return frozenset(f.name for f in (*self.dead, *self.overwritten) if f.argument)

    @property
    def clean(self) -> bool:
        """Whether nothing is undefined; dead names do no harm but waste."""
        return self.unknown is None and not self.undefined

    def to_json(self) -> dict[str, Any]:
        """Plain data for programs."""
        kinds = ("undefined", "dead", "overwritten", "uncertain")
        found = {kind: [dataclasses.asdict(f) for f in getattr(self, kind)] for kind in kinds}
        return {**found, "unknown": self.unknown}

    def render(self) -> str:
        """Lines for people: ``file:line: name: why`` under each kind."""
        if self.unknown is not None:
            return f"names: unknown ({self.unknown})"
        lines = []
        for kind in ("undefined", "dead", "overwritten", "uncertain"):
            found = getattr(self, kind)
            lines += [f"{kind}: {len(found)}", *(f"  {finding}" for finding in found)]
        return "\n".join(lines)


def analyse(model: nn.Module | type[nn.Module] | ForwardSource) -> Liveness:
    """Find the undefined, dead and overwritten names of a model's ``forward``.

    Args:
        model: A module; or a class or a source that was never run, of which it is not known what
            parts it has, so that ``self.NAME`` is not judged.

    Example:
        >>> from domainformer.models import DomainTransformerModel
        >>> found = analyse(DomainTransformerModel)
        >>> found.clean, found.undefined
        (True, ())
    """
    source = model if isinstance(model, ForwardSource) else None
    if source is None:
        model = model if isinstance(model, type) else unwrapped(model)
        source = find_forward(model)
    if source.tree is None:
        return Liveness(unknown=source.reason)
    opaque = _opaque(source.tree)
    if opaque is not None:
        return Liveness(unknown=f"{opaque} at {source.at()}")
    try:
        flow = flow_of(source.tree)
    except (SyntaxError, RecursionError) as error:
        return Liveness(unknown=f"{source.at()}: {error}")
    undefined, uncertain = _unbound(flow, source)
    if isinstance(model, nn.Module):
        undefined += _missing_parts(model, source)
    dead, overwritten = _dead(flow, source)
    return Liveness(
        undefined=_sorted(undefined),
        dead=_sorted(dead),
        overwritten=_sorted(overwritten),
        uncertain=_sorted(uncertain),
    )


def bound_before(flow: Flow, arguments: frozenset[str]) -> dict[tuple[str, int], frozenset[str]]:
    """Names that are bound on all ways to each read, by the read's name and line."""
    must = _forward(flow, arguments, frozenset.intersection)
    found: dict[tuple[str, int], frozenset[str]] = {}
    for node, names in must.items():
        if node.kind == "read":
            key = (node.name, node.line)
            found[key] = found.get(key, names) & names
    return found


def _sorted(found: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(set(found), key=lambda finding: (finding.line, finding.name)))


def _opaque(tree: Function) -> str | None:
    """The first call that may read or bind names unseen."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in _OPAQUE
            # vars(x) and dir(x) look at x; without an argument they look at the names.
            and (node.func.id in ("exec", "eval") or not node.args)
        ):
            return f"{node.func.id}() reads or binds names unseen"
    return None


# Undefined -------------------------------------------------------------------------------------


def _unbound(flow: Flow, source: ForwardSource) -> tuple[list[Finding], list[Finding]]:
    """Reads that no binding reaches, and reads that only some ways to them bind."""
    tree = source.tree
    assert tree is not None
    arguments = frozenset(argument_names(tree))
    may = _forward(flow, arguments, frozenset.union)
    must = _forward(flow, arguments, frozenset.intersection)
    written: dict[str, int] = {}
    for node in flow.nodes:
        if node.kind == "write" and node in may:
            written.setdefault(node.name, node.line)
    undefined, uncertain = [], []
    for node in flow.nodes:
        if node.kind != "read" or node not in may:
            continue
        name, line = node.name, node.line
        if name not in flow.locals:
            undefined += _global(name, line, source)
        elif name in flow.captured:
            continue
        elif name not in may[node]:
            why = "read before anything binds it"
            why += f" (line {written[name]} does later)" if name in written else ""
            undefined.append(Finding(name, source.file, line, why))
        elif name not in must[node]:
            why = "bound on some ways to this line only"
            uncertain.append(Finding(name, source.file, line, why))
    for name, line in flow.inner.items():
        if name not in flow.locals:
            undefined += _global(name, line, source)
        elif name not in written and name not in arguments:
            undefined.append(Finding(name, source.file, line, "nothing binds it"))
    return undefined, uncertain


def _global(name: str, line: int, source: ForwardSource) -> list[Finding]:
    if source.globals is None or name in source.globals or _is_declared(name, source.tree):
        return []
    return [Finding(name, source.file, line, "neither the function nor its file binds it")]


def _is_declared(name: str, tree: Function | None) -> bool:
    """Whether the function itself binds it elsewhere, by ``global`` or ``nonlocal``."""
    nodes = () if tree is None else ast.walk(tree)
    return any(isinstance(n, (ast.Global, ast.Nonlocal)) and name in n.names for n in nodes)


def _forward(
    flow: Flow,
    start: frozenset[str],
    meet: Callable[[frozenset[str], frozenset[str]], frozenset[str]],
) -> dict[Node, frozenset[str]]:
    """Carry sets of bound names along the edges until nothing changes."""
    before = {flow.entry: start}
    waiting = [flow.entry]
    while waiting:
        node = waiting.pop()
        after = before[node]
        if node.kind == "write":
            after |= {node.name}
        elif node.kind == "delete":
            after -= {node.name}
        for following in node.after:
            known = before.get(following)
            merged = after if known is None else meet(known, after)
            if merged != known:
                before[following] = merged
                waiting.append(following)
    return before


# Dead ------------------------------------------------------------------------------------------


def _dead(flow: Flow, source: ForwardSource) -> tuple[list[Finding], list[Finding]]:
    """Bindings and arguments whose value no way leads to a read."""
    assert source.tree is not None
    reached = _forward(flow, frozenset(), frozenset.union)
    live = _live_after(flow, reached)
    arguments = list(argument_names(source.tree))
    if source.owner is not None:
        arguments = arguments[1:]
    dead: list[Finding] = []
    overwritten: list[Finding] = []
    for name in arguments:
        if name in live[flow.entry] or name in flow.captured or name.startswith("_"):
            continue
        again = _next_write(flow.entry, name)
        line = again.line if again is not None else _argument_line(source.tree, name)
        why = (
            "the argument is never read"
            if again is None
            else f"the argument is overwritten before it is read, at line {again.line}"
        )
        finding = Finding(name, source.file, line, why, argument=True)
        (dead if again is None else overwritten).append(finding)
    for node in flow.nodes:
        if node.kind != "write" or node.quiet or node not in reached or node.name.startswith("_"):
            continue
        if node.name in live[node] or node.name in flow.captured or node.name not in flow.locals:
            continue
        again = _next_write(node, node.name)
        if again is None:
            why = "its value is never read"
            dead.append(Finding(node.name, source.file, node.line, why))
        else:
            why = f"its value is overwritten at line {again.line} before it is read"
            overwritten.append(Finding(node.name, source.file, node.line, why))
    return dead, overwritten


def _live_after(flow: Flow, reached: Iterable[Node]) -> dict[Node, frozenset[str]]:
    """Names that some way after each node reads before it binds them."""
    reached = list(reached)
    before: dict[Node, frozenset[str]] = {node: frozenset() for node in reached}
    sources: dict[Node, list[Node]] = {node: [] for node in reached}
    for node in reached:
        for following in node.after:
            sources[following].append(node)
    after = dict(before)
    waiting = list(reached)
    while waiting:
        node = waiting.pop()
        after[node] = frozenset().union(*(before[following] for following in node.after))
        live = after[node]
        if node.kind in ("write", "delete"):
            live -= {node.name}
        elif node.kind == "read":
            live |= {node.name}
        if live != before[node]:
            before[node] = live
            waiting += sources[node]
    return after


def _next_write(start: Node, name: str) -> Node | None:
    """The first later binding of a name that is not read in between."""
    seen, waiting, found = {start}, list(start.after), []
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.kind == "write" and node.name == name:
            found.append(node)
        else:
            waiting += node.after
    return min(found, key=lambda node: node.line, default=None)


def _argument_line(tree: Function, name: str) -> int:
    arguments = tree.args
    groups = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    groups += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return next(argument.lineno for argument in groups if argument.arg == name)


# Parts that are not there -----------------------------------------------------------------------


def _missing_parts(model: nn.Module, source: ForwardSource) -> list[Finding]:
    """``self.NAME`` that the model does not have and ``forward`` does not set."""
    self_name, tree = source.self_name, source.tree
    custom = any("__getattr__" in vars(c) or "__getattribute__" in vars(c) for c in _own(model))
    if self_name is None or tree is None or custom:
        return []
    rebound = any(
        isinstance(n, ast.Name) and n.id == self_name and not isinstance(n.ctx, ast.Load)
        for n in ast.walk(tree)
    )
    parts = [
        n
        for n in ast.walk(tree)
        if isinstance(n, ast.Attribute)
        and isinstance(n.value, ast.Name)
        and n.value.id == self_name
    ]
    stored = {n.attr for n in parts if not isinstance(n.ctx, ast.Load)}
    guarded = _guarded(tree, self_name)
    if rebound:
        return []
    return [
        Finding(f"{self_name}.{n.attr}", source.file, n.lineno, "the model has no such part")
        for n in parts
        if n.attr not in stored | guarded and not _has(model, n.attr, source.owner)
    ]


def _own(model: nn.Module) -> list[type]:
    """The classes of a model below ``nn.Module``, whose ``__getattr__`` is known."""
    return [c for c in type(model).__mro__ if c not in (nn.Module, object)]


def _has(model: nn.Module, name: str, owner: str | None) -> bool:
    """Whether an attribute is there, without running a property of the user's."""
    if name.startswith("__") and not name.endswith("__") and owner is not None:
        name = f"_{owner.lstrip('_')}{name}"
    if any(name in known for known in (model._parameters, model._buffers, model._modules)):
        return True
    missing = object()
    return inspect.getattr_static(model, name, missing) is not missing


def _guarded(tree: Function, self_name: str) -> set[str]:
    """Names that the function asks for before it uses them: ``hasattr(self, "name")``."""
    return {
        node.args[1].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("hasattr", "getattr", "setattr")
        and len(node.args) >= 2
        and isinstance(node.args[0], ast.Name)
        and node.args[0].id == self_name
        and isinstance(node.args[1], ast.Constant)
        and isinstance(node.args[1].value, str)
    }
