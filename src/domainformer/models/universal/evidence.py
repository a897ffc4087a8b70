"""What ``forward`` does with an argument, read from its syntax tree.

Used where a name says nothing (``x``): an argument that goes straight into an ``nn.Embedding``
holds ids. A value that was reassigned on the way is no evidence.
"""

from __future__ import annotations

import ast

from torch import nn

from domainformer.models.universal.forward import Function, argument_names, find_forward, statements

# How deep calls of submodules are followed: deeper models are written as Sequential.
MAX_DEPTH = 6


def embedding_consumers(
    model: nn.Module | type[nn.Module], name: str, *, path: str = "self", depth: int = 0
) -> list[str]:
    """The embeddings that read an argument as it was given.

    Args:
        model: A module; for a class nothing is known of its children.
        name: An argument of its ``forward``.
        path: How the reader gets to the module, for the text.
        depth: Calls followed so far.

    Returns:
        As ``self.emb (Embedding(10, 4), model.py:12)``, in order of their lines.
    """
    if isinstance(model, type) or depth > MAX_DEPTH:
        return []
    if isinstance(model, nn.Embedding):
        return [f"{path} ({model})"]
    if isinstance(model, nn.Sequential):
        first = next(iter(model), None)
        return [] if first is None else _into(first, 0, f"{path}[0]", depth)
    source = find_forward(model)
    if source.tree is None or name not in argument_names(source.tree):
        return []
    found = []
    for call in _calls_with(source.tree, name):
        position = _position(call, name)
        if _is_functional_embedding(call) and position == 0:
            found.append(f"{ast.unparse(call.func)} ({source.at(call.lineno)})")
            continue
        child, label = _child(model, call.func, source.self_name, path)
        if child is None or position is None:
            continue
        for text in _into(child, position, label, depth):
            where = source.at(call.lineno)
            found.append(text if ".py:" in text else f"{text[:-1]}, {where})")
    return found


def _into(child: nn.Module, position: int | str, label: str, depth: int) -> list[str]:
    """Follow a value into the argument of a submodule that takes it."""
    if isinstance(child, (nn.Embedding, nn.Sequential)):
        return embedding_consumers(child, "input", path=label, depth=depth + 1)
    if isinstance(position, int):
        tree = find_forward(child).tree
        names = [] if tree is None else list(argument_names(tree))[1:]
        if position >= len(names):
            return []
        position = names[position]
    return embedding_consumers(child, position, path=label, depth=depth + 1)


def _calls_with(tree: Function, name: str) -> list[ast.Call]:
    """Calls that take the untouched argument: on lines before any assignment to it."""
    nodes = [node for statement in statements(tree) for node in ast.walk(statement)]
    stored = [
        node.lineno
        for node in nodes
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
    ]
    limit = min(stored, default=None)
    calls = [
        node
        for node in nodes
        if isinstance(node, ast.Call)
        and _position(node, name) is not None
        and (limit is None or node.lineno <= limit)
    ]
    return sorted(calls, key=lambda call: (call.lineno, call.col_offset))


def _position(call: ast.Call, name: str) -> int | str | None:
    """Where a call takes a plain name: the number of an argument, or its keyword."""
    for index, argument in enumerate(call.args):
        if isinstance(argument, ast.Starred):
            return None
        if isinstance(argument, ast.Name) and argument.id == name:
            return index
    for keyword in call.keywords:
        if isinstance(keyword.value, ast.Name) and keyword.value.id == name:
            return keyword.arg
    return None


def _is_functional_embedding(call: ast.Call) -> bool:
    function = call.func
    return (
        isinstance(function, ast.Attribute)
        and function.attr == "embedding"
        and isinstance(function.value, ast.Name)
        and function.value.id in ("F", "functional")
    )


def _child(
    model: nn.Module, function: ast.expr, self_name: str | None, path: str
) -> tuple[nn.Module | None, str]:
    """The submodule that ``self.a.b["c"][0](…)`` or ``self.a.forward(…)`` calls."""
    names: list[str] = []
    while True:
        if isinstance(function, ast.Attribute):
            names.append(function.attr)
            function = function.value
        elif isinstance(function, ast.Subscript) and isinstance(function.slice, ast.Constant):
            names.append(str(function.slice.value))
            function = function.value
        else:
            break
    if not isinstance(function, ast.Name) or function.id != self_name:
        return None, ""
    if names and names[0] == "forward":
        names = names[1:]
    found: object = model
    for name in reversed(names):
        found = dict(found.named_children()).get(name) if isinstance(found, nn.Module) else None
    label = ".".join([path, *reversed(names)])
    return (found, label) if isinstance(found, nn.Module) and names else (None, "")


def keys_of(tree: Function | None, name: str) -> dict[str, bool]:
    """Constant keys that a function reads from a dictionary, and whether it must have them.

    ``batch["ids"]`` and ``batch.pop("ids")`` need the key; ``batch.get("ids")`` and
    ``"ids" in batch`` do not.
    """
    found: dict[str, bool] = {}
    for node in ast.walk(tree) if tree is not None else ():
        key, required = None, False
        if isinstance(node, ast.Subscript) and _is(node.value, name):
            key, required = node.slice, isinstance(node.ctx, ast.Load)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("get", "pop")
            and _is(node.func.value, name)
            and node.args
        ):
            key, required = node.args[0], node.func.attr == "pop" and len(node.args) == 1
        elif isinstance(node, ast.Compare) and any(_is(c, name) for c in node.comparators):
            key = node.left
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            found[key.value] = found.get(key.value, required) and required
    return found


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name
