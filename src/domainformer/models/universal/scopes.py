"""Which names belong to which function: Python's own rules, taken from ``symtable``.

A walk over the syntax tree would have to know every rule of scopes (comprehensions, walrus,
``nonlocal``, class bodies); the compiler's symbol table knows them.
"""

from __future__ import annotations

import ast
import symtable

from domainformer.models.universal.forward import Function, argument_names

Comprehension = (ast.GeneratorExp, ast.ListComp, ast.SetComp, ast.DictComp)


def local_names(tree: Function) -> frozenset[str]:
    """Names that a function binds in its own scope, its arguments among them.

    Example:
        >>> tree = ast.parse("def f(x): global g; g = [y for y in x]; z = 1").body[0]
        >>> sorted(local_names(tree))
        ['x', 'z']
    """
    if isinstance(tree, ast.Lambda):
        walrus = {n.target.id for n in ast.walk(tree) if isinstance(n, ast.NamedExpr)}
        return frozenset({*argument_names(tree), *walrus})
    table = next(t for t in reversed(_outer(tree).get_children()) if t.get_name() == tree.name)
    return frozenset(
        symbol.get_name()
        for symbol in table.get_symbols()
        if symbol.is_local() and not symbol.is_global()
    )


def free_reads(node: ast.expr | ast.stmt) -> dict[str, int]:
    """Names that an inner scope reads from outside itself, with the line of the first one.

    Args:
        node: A function, lambda, class, generator or comprehension.

    Example:
        >>> free_reads(ast.parse("lambda a: a + b + (lambda: c)()", mode="eval").body)
        {'b': 1, 'c': 1}
    """
    outside = _free(_outer(node))
    if isinstance(node, Comprehension):
        # A walrus binds outside the comprehension: `[total := total + x for x in xs]` reads it.
        outside |= {n.target.id for n in ast.walk(node) if isinstance(n, ast.NamedExpr)}
    first_source = (
        {id(n) for n in ast.walk(node.generators[0].iter)}
        if isinstance(node, Comprehension)
        else set()
    )
    lines: dict[str, int] = {}
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and inner.id in outside and id(inner) not in first_source:
            lines.setdefault(inner.id, inner.lineno)
        elif isinstance(inner, (ast.Nonlocal, ast.Global)):
            for name in inner.names:
                lines.setdefault(name, inner.lineno)
    return lines


def _free(table: symtable.SymbolTable) -> set[str]:
    """Names that a scope and those inside it take from outside."""
    own = {s.get_name() for s in table.get_symbols() if s.is_local() and not s.is_free()}
    taken = {s.get_name() for s in table.get_symbols() if s.is_global() or s.is_free()}
    # A class body's names are no scope for the functions in it.
    hidden = set() if table.get_type() == "class" else own
    for child in table.get_children():
        taken |= _free(child) - hidden
    return taken


def _outer(node: ast.expr | ast.stmt) -> symtable.SymbolTable:
    """The symbol table of a function that holds this node alone."""
    bound = {name for n in ast.walk(node) if isinstance(n, ast.Nonlocal) for name in n.names}
    body = [f"{name} = None" for name in sorted(bound)]
    if isinstance(node, ast.expr):
        body.append(f"return ({ast.unparse(node)})")
    else:
        body += ast.unparse(_undecorated(node)).splitlines()
    # Lines of a text in quotes are indented too, which changes no name.
    text = "\n".join(["def _outer():", *(f"  {line}" for line in body)])
    return symtable.symtable(text, "<forward>", "exec").get_children()[0]


def _undecorated(node: ast.stmt) -> ast.stmt:
    """Decorators and defaults belong to the scope outside."""
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return node
    fields = dict(ast.iter_fields(node))
    fields["decorator_list"] = []
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        arguments = dict(ast.iter_fields(node.args))
        for kind in ("defaults", "kw_defaults"):
            arguments[kind] = [d and ast.Constant(None) for d in arguments[kind]]
        fields["args"] = ast.arguments(**arguments)
    return ast.copy_location(type(node)(**fields), node)
