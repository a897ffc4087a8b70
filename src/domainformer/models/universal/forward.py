"""Where a model's ``forward`` is written: its function, its syntax tree, its file and lines.

::

    compiled, parallel, partial, decorated ─▶ the function that a person wrote ─▶ ForwardSource

What cannot be read (no source file, a scripted module, two lambdas on one line) is no error: the
``ForwardSource`` then has no tree and says why, and every verdict on it is "unknown".
"""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


@dataclass(frozen=True)
class ForwardSource:
    """The written ``forward`` of a model.

    Attributes:
        file: The file that it stands in, ``"<unknown>"`` where there is none.
        tree: The function; ``None`` where it cannot be read.
        reason: Why there is no tree.
        globals: The names that the function finds outside itself, builtins among them; ``None``
            where that is not known (``from x import *`` in a file that was not run).
        owner: Name of the class that it is written in, for private names.
        text: The whole text of the file, to be repaired.
        qualified: The class as the file names it, where the source was read and not run.
    """

    file: str
    tree: Function | None
    reason: str | None = None
    globals: frozenset[str] | None = None
    owner: str | None = None
    text: str | None = None
    qualified: str | None = None

    @property
    def line(self) -> int:
        """First line of the function in its file, 0 where it is not known."""
        return getattr(self.tree, "lineno", 0)

    @property
    def self_name(self) -> str | None:
        """What the function calls the model: its first argument, ``None`` in a bound lambda."""
        if self.tree is None or self.owner is None:
            return None
        arguments = [*self.tree.args.posonlyargs, *self.tree.args.args]
        return arguments[0].arg if arguments else None

    def at(self, line: int | None = None) -> str:
        """``file:line``."""
        return f"{self.file}:{self.line if line is None else line}"


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside what torch puts around it (``torch.compile``, ``DataParallel``)."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(
            model, (nn.DataParallel, nn.parallel.DistributedDataParallel)
        ):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def forward_of(model: nn.Module | type[nn.Module]) -> Callable[..., Any]:
    """What is called when the model is: an own attribute of the instance before its class."""
    if isinstance(model, type):
        found: Callable[..., Any] = getattr(model, "forward")  # noqa: B009 - mypy sees no class of torch
        return found
    own = vars(model).get("forward")
    return own if own is not None else type(model).forward


def find_forward(model: nn.Module | type[nn.Module]) -> ForwardSource:
    """The written ``forward`` of a model.

    Args:
        model: A module, or a class of modules.

    Example:
        >>> from domainformer.models import DomainTransformerModel
        >>> found = find_forward(DomainTransformerModel)
        >>> found.owner, found.line > 0, found.self_name
        ('DomainTransformerModel', True, 'self')
    """
    if isinstance(model, torch.jit.ScriptModule):
        return ForwardSource("<unknown>", None, "a scripted module has no Python source")
    of_class = isinstance(model, type) or "forward" not in vars(model)
    function, takes_self = _written(forward_of(model), of_class)
    if not inspect.isfunction(function):
        kind = type(function).__name__
        return ForwardSource("<unknown>", None, f"forward is a {kind}, not a Python function")
    file = function.__code__.co_filename
    try:
        lines, first = inspect.getsourcelines(function)
        text = "".join(inspect.findsource(function)[0])
    except (OSError, TypeError, SyntaxError):
        return ForwardSource(file, None, "its source cannot be read")
    tree, reason = _tree("".join(lines), first, function)
    cells = set(function.__code__.co_freevars) | {"__class__"}
    known = frozenset({*function.__globals__, *dir(builtins), *cells})
    # A function that is an instance's own attribute without being bound takes no self.
    owner = function.__qualname__.rpartition(".")[0].rpartition(".")[2]
    return ForwardSource(file, tree, reason, known, owner if takes_self and owner else None, text)


def _written(function: Any, takes_self: bool) -> tuple[Any, bool]:
    """Through ``functools.wraps``, ``functools.partial`` and bound methods."""
    while True:
        if hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        elif isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function, takes_self = function.__func__, True
        else:
            return function, takes_self


def _tree(text: str, first: int, function: Any) -> tuple[Function | None, str | None]:
    """The syntax tree of one function, with the line numbers of its file."""
    is_lambda = function.__name__ == "<lambda>"
    try:
        module = ast.parse(textwrap.dedent(text))
    except SyntaxError:
        return None, "its source cannot be parsed by itself"
    ast.increment_lineno(module, first - 1)
    wanted = ast.Lambda if is_lambda else (ast.FunctionDef, ast.AsyncFunctionDef)
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    found = [
        node
        for node in ast.walk(module)
        if isinstance(node, wanted)
        and (isinstance(node, ast.Lambda) or node.name == function.__name__)
        and tuple(a.arg for a in [*node.args.posonlyargs, *node.args.args]) == names
    ]
    if is_lambda and len(found) != 1:
        return None, "there is more than one lambda like it on its lines"
    return (found[0], None) if found else (None, "it is not found in its source")


def statements(tree: Function) -> list[ast.stmt]:
    """The body of a function; of a lambda, its expression as a ``return``."""
    if isinstance(tree, ast.Lambda):
        return [ast.copy_location(ast.Return(tree.body), tree.body)]
    return tree.body


def argument_names(tree: Function) -> Iterator[str]:
    """All arguments of a function in order, star arguments without their stars."""
    arguments = tree.args
    for group in (arguments.posonlyargs, arguments.args):
        yield from (argument.arg for argument in group)
    if arguments.vararg:
        yield arguments.vararg.arg
    yield from (argument.arg for argument in arguments.kwonlyargs)
    if arguments.kwarg:
        yield arguments.kwarg.arg
