"""The order in which a function reads and writes its names, as a graph.

::

    a = f(x)          read f, x ─▶ write a ─┬─▶ read a ─▶ …
    if a: …                                └─▶ …

Each node is one read or write of a name; the edges are all the ways that control may take, and
some that it cannot (an exception may leave a ``try`` anywhere). Too many ways make "on every way"
harder to claim, never easier: a verdict that is drawn from this graph may be missing, not wrong.

Source: A. Aho et al., Compilers, 2nd ed., section 9.2 (live variables, reaching definitions).
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from domainformer.models.universal.forward import Function, statements
from domainformer.models.universal.scopes import free_reads, local_names


@dataclasses.dataclass(eq=False)
class Node:
    """One read, write or deletion of a name.

    Attributes:
        kind: ``read``, ``write``, ``delete``, or ``pass`` (a point where ways meet).
        name: The name; empty for ``pass``.
        line: In the file.
        quiet: A write whose value nobody need read: a loop's target, ``x += 1``, one of a tuple.
        after: Where control may go next.
    """

    kind: str
    name: str = ""
    line: int = 0
    quiet: bool = False
    after: list[Node] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Flow:
    """The graph of a function.

    Attributes:
        entry: Where a call begins.
        nodes: All that were built, in the order of the text.
        locals: Names that the function binds itself, its arguments among them.
        captured: Local names that inner functions read or write, at times that are not known.
        inner: Names that inner functions read from outside, with the line of the first read.
    """

    entry: Node
    nodes: list[Node]
    locals: frozenset[str]
    captured: frozenset[str]
    inner: dict[str, int]


def flow_of(tree: Function) -> Flow:
    """Build the graph of one function; inner functions are not entered, see ``Flow.captured``."""
    builder = _Builder(tree)
    builder.block(statements(tree))
    return Flow(
        entry=builder.entry,
        nodes=builder.nodes,
        locals=builder.locals,
        captured=frozenset(builder.captured),
        inner=builder.inner,
    )


class _Builder:
    """Walks a function in the order in which Python evaluates it.

    ``ends`` are the nodes after which control is at the present point; none of them means that
    the present point cannot be reached.
    """

    def __init__(self, tree: Function) -> None:
        self.locals = local_names(tree)
        self.captured: set[str] = set()
        self.inner: dict[str, int] = {}
        self.entry = Node("pass")
        self.nodes = [self.entry]
        self.ends = [self.entry]
        self.loops: list[tuple[list[Node], list[Node]]] = []  # (at break, at continue)
        self.finals: list[list[Node]] = []  # where a return or break passes a finally

    # The graph -----------------------------------------------------------------------------

    def node(self, kind: str, name: str = "", line: int = 0, *, quiet: bool = False) -> Node:
        made = Node(kind, name, line, quiet)
        for end in self.ends:
            end.after.append(made)
        self.nodes.append(made)
        self.ends = [made]
        return made

    def point(self) -> Node:
        return self.node("pass")

    def branches(self, *ways: Callable[[], None]) -> None:
        """Each way starts here; afterwards control is at the end of any of them."""
        start, ends = self.ends, []
        for way in ways:
            self.ends = start
            way()
            ends += self.ends
        self.ends = ends

    # Statements ----------------------------------------------------------------------------

    def block(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            visit = getattr(self, f"_{type(statement).__name__}", None)
            if visit is None:
                self.expressions(statement)
            else:
                visit(statement)

    def _Assign(self, node: ast.Assign) -> None:  # noqa: N802 - named as the class it visits
        self.expression(node.value)
        for target in node.targets:
            self.target(target)

    def _AnnAssign(self, node: ast.AnnAssign) -> None:  # noqa: N802
        if node.value is not None:
            self.expression(node.value)
            self.target(node.target)

    def _AugAssign(self, node: ast.AugAssign) -> None:  # noqa: N802
        # On tensors `x += y` changes what else points to x: never called dead.
        if isinstance(node.target, ast.Name):
            self.node("read", node.target.id, node.lineno)
        else:
            self.target(node.target)
        self.expression(node.value)
        if isinstance(node.target, ast.Name):
            self.node("write", node.target.id, node.lineno, quiet=True)

    def _Delete(self, node: ast.Delete) -> None:  # noqa: N802
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.node("read", target.id, node.lineno)
                self.node("delete", target.id, node.lineno)
            else:
                self.expressions(target)

    def _Return(self, node: ast.Return) -> None:  # noqa: N802
        if node.value is not None:
            self.expression(node.value)
        self._leave()

    def _Raise(self, node: ast.Raise) -> None:  # noqa: N802
        self.expressions(node)
        self._leave()

    def _leave(self) -> None:
        if self.finals:
            self.finals[-1] += self.ends
        self.ends = []

    def _Break(self, node: ast.Break) -> None:  # noqa: N802
        self.loops[-1][0].extend(self.ends)
        self._leave()

    def _Continue(self, node: ast.Continue) -> None:  # noqa: N802
        self.loops[-1][1].extend(self.ends)
        self._leave()

    def _If(self, node: ast.If) -> None:  # noqa: N802
        self.expression(node.test)
        self.branches(lambda: self.block(node.body), lambda: self.block(node.orelse))

    def _While(self, node: ast.While) -> None:  # noqa: N802
        head = self.point()
        self.expression(node.test)
        # `while True` ends by break or return alone.
        endless = isinstance(node.test, ast.Constant) and bool(node.test.value)
        self._loop(head, node, leaves=not endless)

    def _For(self, node: ast.For | ast.AsyncFor) -> None:  # noqa: N802
        self.expression(node.iter)
        head = self.point()
        self._loop(head, node, target=node.target)

    _AsyncFor = _For

    def _loop(
        self,
        head: Node,
        node: ast.While | ast.For | ast.AsyncFor,
        *,
        target: ast.expr | None = None,
        leaves: bool = True,
    ) -> None:
        out = self.ends if leaves else []
        self.loops.append(([], []))
        if target is not None:
            self.target(target, quiet=True)
        self.block(node.body)
        breaks, continues = self.loops.pop()
        for end in [*self.ends, *continues]:
            end.after.append(head)
        self.ends = out
        self.block(node.orelse)
        self.ends = [*self.ends, *breaks]

    def _With(self, node: ast.With | ast.AsyncWith) -> None:  # noqa: N802
        for item in node.items:
            self.expression(item.context_expr)
            if item.optional_vars is not None:
                self.target(item.optional_vars, quiet=True)
        first, before = len(self.nodes), self.ends
        self.block(node.body)
        # A manager may swallow an exception (contextlib.suppress): the body may end anywhere.
        self.ends = [*self.ends, *before, *self.nodes[first:]]
        self.point()

    _AsyncWith = _With

    def _Try(self, node: Any) -> None:  # noqa: N802
        self.finals.append([])
        first, before = len(self.nodes), self.ends
        self.block(node.body)
        inside = [*before, *self.nodes[first:]]
        self.block(node.orelse)
        ends = self.ends
        for handler in node.handlers:
            self.ends = inside
            self.point()
            if handler.type is not None:
                self.expression(handler.type)
            if handler.name:
                self.node("write", handler.name, handler.lineno, quiet=True)
            self.block(handler.body)
            if handler.name:
                self.node("delete", handler.name, handler.lineno)
            ends = [*ends, *self.ends]
        left = self.finals.pop()
        self.ends = ends
        if node.finalbody:
            # Reached from anywhere inside, and then left towards an exception as well.
            self.ends = [*ends, *left, *before, *self.nodes[first:]]
            self.point()
            self.block(node.finalbody)
            # A break, continue or return of the body goes on from here.
            if self.loops:
                self.loops[-1][0].extend(self.ends)
                self.loops[-1][1].extend(self.ends)
            if self.finals:
                self.finals[-1] += self.ends
        elif self.finals:
            self.finals[-1] += left

    _TryStar = _Try

    def _Match(self, node: ast.Match) -> None:  # noqa: N802
        self.expression(node.subject)
        ends: list[Node] = []
        for case in node.cases:
            # What a pattern captures may be bound even where the pattern or its guard fails.
            start = self.ends
            for pattern in ast.walk(case.pattern):
                name = getattr(pattern, "name", None) or getattr(pattern, "rest", None)
                if isinstance(name, str):
                    self.node("write", name, case.pattern.lineno, quiet=True)
                elif isinstance(pattern, ast.expr):
                    self.expression(pattern)
            if case.guard is not None:
                self.expression(case.guard)
            failed = [*start, *self.ends]
            self.block(case.body)
            ends += self.ends
            self.ends = failed
        self.ends = [*self.ends, *ends]

    def _FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:  # noqa: N802
        self._inner(node)
        self.node("write", node.name, node.lineno, quiet=True)

    _AsyncFunctionDef = _FunctionDef

    def _ClassDef(self, node: ast.ClassDef) -> None:  # noqa: N802
        self._inner(node)
        self.node("write", node.name, node.lineno, quiet=True)

    def _Import(self, node: ast.Import | ast.ImportFrom) -> None:  # noqa: N802
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self.node("write", name, node.lineno, quiet=True)

    _ImportFrom = _Import

    def _Global(self, node: ast.Global) -> None:  # noqa: N802
        """Said to the names of the scope already."""

    def _Nonlocal(self, node: ast.Nonlocal) -> None:  # noqa: N802
        """Said to the names of the scope already."""

    # Targets and expressions ---------------------------------------------------------------

    def target(self, target: ast.expr, *, quiet: bool = False) -> None:
        if isinstance(target, ast.Name):
            self.node("write", target.id, target.lineno, quiet=quiet)
        elif isinstance(target, (ast.Tuple, ast.List)):
            # Python unpacks into all of them; that one is not wanted is no mistake.
            for element in target.elts:
                self.target(element, quiet=True)
        elif isinstance(target, ast.Starred):
            self.target(target.value, quiet=True)
        else:
            self.expressions(target)

    def expressions(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.expression(child)
            else:
                self.expressions(child)

    def expression(self, node: ast.expr) -> None:
        if isinstance(node, ast.Name):
            self.node("read", node.id, node.lineno)
        elif isinstance(node, ast.NamedExpr):
            self.expression(node.value)
            self.target(node.target, quiet=True)
        elif isinstance(node, ast.BoolOp):
            self._chain(node.values)
        elif isinstance(node, ast.Compare):
            self._chain([node.left, *node.comparators], sure=2)
        elif isinstance(node, ast.IfExp):
            self.expression(node.test)
            self.branches(lambda: self.expression(node.body), lambda: self.expression(node.orelse))
        elif isinstance(node, ast.Lambda):
            self._inner(node)
        elif isinstance(node, ast.GeneratorExp):
            # The first source is read now, the rest when somebody asks for elements.
            self.expression(node.generators[0].iter)
            self._inner(node)
        elif isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp)):
            self._comprehension(node)
        else:
            self.expressions(node)

    def _chain(self, values: list[ast.expr], *, sure: int = 1) -> None:
        """``a and b and c``: the first values are read, the later ones perhaps."""
        for value in values[:sure]:
            self.expression(value)
        skipped = list(self.ends)
        for value in values[sure:]:
            self.expression(value)
            skipped += self.ends
        self.ends = skipped

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp) -> None:
        """The first source is read; the rest may be, any number of times."""
        self.expression(node.generators[0].iter)
        head = self.point()
        for name, line in free_reads(node).items():
            start = self.ends
            self.node("read", name, line)
            self.ends = [*start, *self.ends]
        for inner in ast.walk(node):
            if isinstance(inner, ast.NamedExpr):
                start = self.ends
                self.node("write", inner.target.id, inner.lineno, quiet=True)
                self.ends = [*start, *self.ends]
            elif isinstance(inner, (ast.Lambda, ast.GeneratorExp)):
                self.captured |= self.locals & free_reads(inner).keys()
        for end in self.ends:
            end.after.append(head)

    def _inner(self, node: ast.expr | ast.stmt) -> None:
        """A function, lambda, class or generator: it runs later, or never."""
        for decorator in getattr(node, "decorator_list", []):
            self.expression(decorator)
        arguments = getattr(node, "args", None)
        if isinstance(arguments, ast.arguments):
            for default in [*arguments.defaults, *arguments.kw_defaults]:
                if default is not None:
                    self.expression(default)
        for base in getattr(node, "bases", []):
            self.expression(base)
        for name, line in free_reads(node).items():
            self.inner.setdefault(name, line)
            if name in self.locals:
                self.captured.add(name)
