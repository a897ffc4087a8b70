"""A user's file: read without running it, run within limits, or imported where it is trusted.

::

    read_source    the syntax tree alone; nothing runs
    load_source    a limited subprocess imports the file, makes the model and inspects it
    … trust=True   this process imports it

The limits (processor time, memory, no files written, no network, no processes) stop accidents and
careless code. They are no wall against somebody who wants through: run what you would run anyway.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import symtable
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from domainformer.errors import AdapterError, nearest
from domainformer.models.universal.forward import ForwardSource

# Until the subprocess has imported torch, on a machine that is busy.
SECONDS_TO_START = 600.0

# Names that every module has without binding them.
_MODULE_NAMES = {"__name__", "__file__", "__doc__", "__spec__", "__loader__", "__package__"}


def read_source(path: str | Path, class_name: str) -> ForwardSource:
    """Read a class's ``forward`` from a file that is never run.

    Args:
        path: A Python file.
        class_name: A class in it; ``Outer.Inner`` for one inside another.

    Raises:
        AdapterError: The file cannot be read or parsed, has no such class, or the class no
            ``forward`` of its own or of a base in the same file.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        table = symtable.symtable(text, str(path), "exec")
    except (OSError, UnicodeDecodeError) as error:
        raise AdapterError("the file cannot be read", where=str(path), why=str(error)) from error
    except SyntaxError as error:
        where = f"{path}:{error.lineno}"
        raise AdapterError("the file is no Python", where=where, why=error.msg) from error
    classes = dict(_classes(tree))
    if class_name not in classes:
        raise AdapterError(
            f"there is no class {class_name!r}",
            where=str(path),
            next_step=nearest(class_name, classes) or "it defines no class at all",
        )
    function, owner = _method(classes, class_name)
    if function is None:
        raise AdapterError(
            f"{class_name} has no forward in this file",
            where=f"{path}:{classes[class_name].lineno}",
            why="it is inherited from another file, or made when the file runs",
            next_step="run it within limits (load_source), or give the model itself to `bind`",
        )
    known = None if _star_import(tree) else _bound_at_top(table)
    return ForwardSource(str(path), function, None, known, owner, text, class_name)


def _classes(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.ClassDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
            yield from _classes(node, f"{prefix}{node.name}.")
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            yield from _classes(node, prefix)


def _method(
    classes: Mapping[str, ast.ClassDef], name: str
) -> tuple[ast.FunctionDef | None, str | None]:
    """``forward`` of a class, or of the first base in the same file that has it."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop(0)
        if current in seen or current not in classes:
            continue
        seen.add(current)
        for node in classes[current].body:
            if isinstance(node, ast.FunctionDef) and node.name == "forward":
                return node, current.rpartition(".")[2]
        waiting += [base.id for base in classes[current].bases if isinstance(base, ast.Name)]
    return None, None


def _star_import(tree: ast.Module) -> bool:
    imports = (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom))
    return any(alias.name == "*" for node in imports for alias in node.names)


def _bound_at_top(table: symtable.SymbolTable) -> frozenset[str]:
    """Names that a file binds for its functions, by assignment, import or ``global``."""
    own = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    own |= {child.get_name() for child in table.get_children()}
    waiting = list(table.get_children())
    while waiting:
        inner = waiting.pop()
        declared = (s for s in inner.get_symbols() if s.is_declared_global())
        own |= {symbol.get_name() for symbol in declared}
        waiting += inner.get_children()
    return frozenset({*own, *dir(builtins), *_MODULE_NAMES, "__class__"})


@dataclasses.dataclass(frozen=True)
class LoadedSource:
    """What running a file told.

    Attributes:
        inspection: What the inspector and the analysis of names say of the model, as plain data.
        model_class: The class; ``None`` unless the file was trusted.
    """

    inspection: dict[str, Any]
    model_class: type[nn.Module] | None = None


def load_source(
    path: str | Path,
    class_name: str,
    *,
    arguments: Mapping[str, Any] | None = None,
    trust: bool = False,
    seconds: float = 60.0,
    memory_gb: float = 16.0,
) -> LoadedSource:
    """Run a file in a limited subprocess, and inspect the model that it makes there.

    Args:
        path: A Python file.
        class_name: A class in it.
        arguments: Keywords of its constructor, as JSON knows them.
        trust: Import the file in this process as well, and give its class back.
        seconds: How long the file may take, once torch is imported.
        memory_gb: The subprocess's address space in 10⁹ bytes; torch alone maps several.

    Raises:
        AdapterError: The file fails, takes too long or leaves its limits; the message has the line.
    """
    path = Path(path).resolve()
    read = {"path": str(path), "class": class_name, "arguments": dict(arguments or {})}
    limits = {"seconds": seconds, "memory": int(memory_gb * 1e9)}
    outcome = _in_subprocess(json.dumps({**read, **limits}), seconds, where=str(path))
    if "error" in outcome:
        raise AdapterError(
            outcome["error"],
            where=f"{path}:{outcome['line']}" if outcome.get("line") else str(path),
            why=outcome.get("why"),
            next_step=outcome.get("next"),
        )
    return LoadedSource(outcome, _imported(path, class_name) if trust else None)


def _in_subprocess(request: str, seconds: float, *, where: str) -> dict[str, Any]:
    command = [sys.executable, "-I", "-m", "domainformer.models.universal.sandbox"]
    with tempfile.TemporaryDirectory() as home:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=home,
            env=_environment(home),
            start_new_session=True,
        )
        # The clock of the file starts when torch is there: how long that takes is not its doing.
        starting = threading.Timer(SECONDS_TO_START, _kill, [child])
        starting.start()
        try:
            assert child.stdout is not None
            child.stdout.readline()
            starting.cancel()
            told, complaint = child.communicate(request, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AdapterError(
                f"the file did not finish within {seconds:g} seconds",
                where=where,
                next_step="give it more (seconds=), or guard its work by __name__ == '__main__'",
            ) from None
        finally:
            starting.cancel()
            if child.poll() is None:
                _kill(child)
                child.communicate()
    try:
        return dict(json.loads(told.splitlines()[-1]))
    except (IndexError, ValueError):
        tail = complaint.strip().splitlines()[-1:] or [f"it ended with status {child.returncode}"]
        raise AdapterError(
            "the file ended the process that inspected it",
            where=where,
            why=tail[0],
            next_step="give it more memory (memory_gb=), or look at what it does when imported",
        ) from None


def _kill(child: subprocess.Popen[str]) -> None:
    """End the subprocess and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _environment(home: str) -> dict[str, str]:
    """No secrets, no proxies, no hub: what torch needs and nothing else."""
    kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "LANG") if name in os.environ}
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "NO_PROXY": "*"}
    return {**kept, **threads, **offline, "HOME": home, "TMPDIR": home}


def _imported(path: Path, class_name: str) -> type[nn.Module]:
    """Import a trusted file under its own name, as ``import`` would."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Any = module
    for part in class_name.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise AdapterError(f"{class_name} is no nn.Module", where=str(path))
    return found
