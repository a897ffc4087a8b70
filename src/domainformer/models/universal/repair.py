"""Proposing a corrected ``forward``, as a diff; nothing is written unless it is asked for.

Two mistakes of generated code have one reading, and are corrected:

- an undefined name that is near to one name alone which is bound there on all ways;
- a plain argument whose value nobody reads.

The rest (values that are overwritten or unused) may be meant otherwise and is left as it is.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import itertools
import linecache
import os
import re
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import nn

from domainformer.errors import AdapterError
from domainformer.models.universal.flow import flow_of
from domainformer.models.universal.forward import (
    ForwardSource,
    Function,
    argument_names,
    find_forward,
    unwrapped,
)
from domainformer.models.universal.liveness import Finding, Liveness, analyse, bound_before

# Two names must share this much of their letters, and the best this much more than the second.
NEAR, CLEAR = 0.6, 0.02


@dataclasses.dataclass(frozen=True)
class Repair:
    """A proposal for the file of a model.

    Attributes:
        file: The file as it is.
        source: The whole text with the corrections.
        diff: What changes, as a unified diff; empty where nothing does.
        changes: The corrections, one sentence each.
        left: The undefined names that have no single reading.
        class_name: The model's class in that file.
        was_run: Whether the file was imported already, so that loading it runs nothing new.
    """

    file: str
    source: str
    diff: str
    changes: tuple[str, ...]
    left: tuple[Finding, ...]
    class_name: str
    was_run: bool

    def write(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the corrected text.

        Raises:
            AdapterError: The file exists and ``overwrite`` is not given.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise AdapterError(
                "the file exists already", where=str(path), next_step="name another, or overwrite"
            )
        staged = path.with_name(f".{path.name}.part")
        with staged.open("w", encoding="utf-8") as file:
            file.write(self.source)
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        return path

    def load(self, *, trust: bool = False) -> type[nn.Module]:
        """The corrected class, from memory.

        Args:
            trust: Run the file's text in this process though it was not imported before.

        Raises:
            AdapterError: The file was only read so far and is not trusted, or the class stands
                inside a function.
        """
        if not (self.was_run or trust):
            raise AdapterError(
                "loading the repaired file would run it",
                where=self.file,
                next_step="load(trust=True), if you know what is in it",
            )
        name = f"<repaired {Path(self.file).name}>"
        module = types.ModuleType(Path(self.file).stem)
        module.__file__ = self.file
        # Where the source of a function is looked up: its lines are read again to be inspected.
        linecache.cache[name] = (len(self.source), None, self.source.splitlines(True), name)
        exec(compile(self.source, name, "exec"), module.__dict__)  # noqa: S102 - asked for
        found: Any = module
        for part in self.class_name.split("."):
            found = getattr(found, part, None)
        if not isinstance(found, type):
            raise AdapterError(
                f"{self.class_name} cannot be found in the repaired file",
                where=self.file,
                next_step="write the repair and import it, or move the class to the file's top",
            )
        return found


@dataclasses.dataclass(frozen=True)
class _Edit:
    """Replace the characters from one position to another; lines from 1, columns from 0."""

    start: tuple[int, int]
    end: tuple[int, int]
    text: str


def propose_repair(model: nn.Module | type[nn.Module] | ForwardSource) -> Repair:
    """Propose a corrected ``forward``.

    Args:
        model: A module, its class, or a source that was read from a file.

    Raises:
        AdapterError: The source cannot be read.
    """
    source = model if isinstance(model, ForwardSource) else None
    if source is None:
        model = model if isinstance(model, type) else unwrapped(model)
        source = find_forward(model)
    liveness = analyse(model)
    if source.tree is None or source.text is None or liveness.unknown is not None:
        raise AdapterError(
            "there is nothing to repair: forward cannot be read",
            where=source.file,
            why=liveness.unknown or source.reason,
        )
    tree = _in_file(source)
    parts = [n for n, _ in model.named_children()] if isinstance(model, nn.Module) else []
    renames, left = _renames(tree, source, liveness, parts)
    edits = [edit for edit, _ in renames]
    changes = [change for _, change in renames]
    for edit, change in _removals(tree, source, liveness):
        edits.append(edit)
        changes.append(change)
    text = _edited(source.text, edits)
    name = source.qualified if source.qualified is not None else type(model).__qualname__
    return Repair(
        file=source.file,
        source=text,
        diff=_diff(source, text),
        changes=tuple(changes),
        left=tuple(left),
        class_name=name,
        was_run=not isinstance(model, ForwardSource),
    )


def _in_file(source: ForwardSource) -> Function:
    """The same function, parsed within its file, so that columns are those of the file."""
    assert source.tree is not None
    wanted = type(source.tree), source.tree.lineno
    for node in ast.walk(ast.parse(source.text or "")):
        if (type(node), getattr(node, "lineno", 0)) == wanted:
            return node  # type: ignore[return-value]
    raise AdapterError("forward is not found in its file", where=source.at())


def _renames(
    tree: Function, source: ForwardSource, liveness: Liveness, parts: Iterable[str]
) -> tuple[list[tuple[_Edit, str]], list[Finding]]:
    """Undefined names to the one name that is near; the others are left."""
    bound = bound_before(flow_of(tree), frozenset(argument_names(tree)))
    used = {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    free_parts = [name for name in parts if name not in used]
    arguments = {f.name for f in (*liveness.dead, *liveness.overwritten) if f.argument}
    found: list[tuple[_Edit, str]] = []
    left: list[Finding] = []
    for finding in liveness.undefined:
        prefix, _, attribute = finding.name.rpartition(".")
        nodes = _reads(tree, finding.line, prefix, attribute)
        if prefix:
            choices = free_parts
        else:
            known = bound.get((attribute, finding.line), frozenset())
            choices = sorted(known - {source.self_name or ""})
            # An argument that is dead stays so: nobody says that its value is any good.
            choices = [c for c in choices if c not in arguments or _bound_inside(tree, c)]
        new = closest(attribute, choices)
        if new is None or not nodes:
            left.append(finding)
            continue
        for node in nodes:
            end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
            start = (end[0], end[1] - len(attribute.encode()))
            found.append((_Edit(start, end, new), f"line {finding.line}: {attribute} → {new}"))
    return found, left


def _reads(tree: Function, line: int, prefix: str, name: str) -> list[ast.expr]:
    return [
        node
        for node in ast.walk(tree)
        if (
            (not prefix and isinstance(node, ast.Name) and node.id == name)
            or (
                prefix
                and isinstance(node, ast.Attribute)
                and node.attr == name
                and isinstance(node.value, ast.Name)
                and node.value.id == prefix
            )
        )
        and node.lineno == line
        and isinstance(node.ctx, ast.Load)
    ]


def _bound_inside(tree: Function, name: str) -> bool:
    return any(
        isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
        for n in ast.walk(tree)
    )


def closest(name: str, choices: Iterable[str]) -> str | None:
    """The one choice that is clearly nearest; numbers in names must agree.

    Example:
        >>> closest("embedding_0_output", ["embedding_0_token_output", "mhsa_0_output"])
        'embedding_0_token_output'
        >>> closest("mhsa_1_output", ["mhsa_0_output"]) is None
        True
    """
    numbers = re.findall(r"\d+", name)
    scored = sorted(
        (
            (difflib.SequenceMatcher(None, name, choice).ratio(), choice)
            for choice in set(choices)
            if re.findall(r"\d+", choice) == numbers and choice != name
        ),
        reverse=True,
    )
    if not scored or scored[0][0] < NEAR:
        return None
    clear = len(scored) == 1 or scored[0][0] - scored[1][0] >= CLEAR
    return scored[0][1] if clear else None


def _removals(tree: Function, source: ForwardSource, liveness: Liveness) -> list[tuple[_Edit, str]]:
    """Plain arguments that nobody reads, from the end of the one before them."""
    plain = tree.args.args
    defaults = dict(zip(reversed(plain), reversed(tree.args.defaults), strict=False))
    dead = liveness.dead_arguments
    found = []
    for before, argument in itertools.pairwise(plain):
        if argument.arg not in dead:
            continue
        last = defaults.get(before, before.annotation or before)
        end = defaults.get(argument, argument.annotation or argument)
        start = (last.end_lineno or 0, last.end_col_offset or 0)
        stop = (end.end_lineno or 0, end.end_col_offset or 0)
        change = f"line {argument.lineno}: the argument {argument.arg} is removed"
        found.append((_Edit(start, stop, ""), change))
    return found


def _edited(text: str, edits: Iterable[_Edit]) -> str:
    """Apply edits from the end, in bytes: the columns of a syntax tree count bytes."""
    data = text.encode()
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for edit in sorted(set(edits), key=lambda edit: edit.start, reverse=True):
        first = starts[edit.start[0] - 1] + edit.start[1]
        last = starts[edit.end[0] - 1] + edit.end[1]
        data = data[:first] + edit.text.encode() + data[last:]
    return data.decode()


def _diff(source: ForwardSource, text: str) -> str:
    name = Path(source.file).name
    lines = difflib.unified_diff(
        (source.text or "").splitlines(keepends=True),
        text.splitlines(keepends=True),
        f"a/{name}",
        f"b/{name}",
    )
    return "".join(lines)
