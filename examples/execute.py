"""Run notebooks and store what they print: ``python examples/execute.py [finance …]``.

Every notebook runs in a process and a temporary folder of its own, so nothing that it writes stays
behind. Cells are run as Python runs a script, and the value of a cell's last expression is kept as
text (and as a drawing, where it is one): what a reader sees without running anything, without the
weight of a Jupyter kernel.
``DOMAINFORMER_SMALL=1`` makes the notebooks run on fewer entities, as the tests do.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
NOTEBOOKS = ("events", "text", "own_model", "vision", "finance", "commerce", "health")
WIDTH = "88"  # characters of a table, in place of the terminal's


class CellError(Exception):
    """A cell failed; the cause is chained, the message says which cell."""


def load(name: str) -> dict[str, Any]:
    """A notebook of this folder as plain data."""
    found: dict[str, Any] = json.loads((HERE / f"{name}.ipynb").read_text(encoding="utf-8"))
    return found


def execute(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs of its code cells, run in the working folder.

    Raises:
        CellError: A cell failed.
    """
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            count += 1
            outputs = _run("".join(cell["source"]), namespace, count)
            cell = {**cell, "execution_count": count, "outputs": outputs}
        cells.append(cell)
    return {**notebook, "cells": cells}


def _run(source: str, namespace: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """What a cell prints, and the value of its last expression."""
    name = f"<cell {count}>"
    body = ast.parse(source, name).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(ast.Module(body, []), name, "exec"), namespace)  # noqa: S102
            if last is not None:
                value = eval(compile(ast.Expression(last.value), name, "eval"), namespace)  # noqa: S307
    except Exception as error:
        raise CellError(f"cell {count} failed: {error}\n\n{source}") from error
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        text = _lines(printed.getvalue())
        outputs.append({"name": "stdout", "output_type": "stream", "text": text})
    if value is not None:
        data = {"text/plain": _lines(repr(value))}
        if hasattr(value, "_repr_svg_"):
            data["image/svg+xml"] = _lines(value._repr_svg_())
        shown = {"data": data, "metadata": {}}
        outputs.append({**shown, "execution_count": count, "output_type": "execute_result"})
    return outputs


def _lines(text: str) -> list[str]:
    """Lines as notebooks keep them, without blanks that only fill a table."""
    trimmed = "\n".join(line.rstrip() for line in text.split("\n"))
    return trimmed.splitlines(keepends=True)


def store(name: str) -> None:
    """Run a notebook of this folder here and write it back with its outputs."""
    notebook = load(name)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        done = execute(notebook)
    text = json.dumps(done, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    (HERE / f"{name}.ipynb").write_text(text, encoding="utf-8")


def main(names: list[str]) -> None:
    """Run each notebook in a process of its own; one name alone is run in this one."""
    names = names or list(NOTEBOOKS)
    if len(names) == 1:
        store(names[0])
        return
    for name in names:
        environment = {**os.environ, "COLUMNS": WIDTH}
        subprocess.run([sys.executable, __file__, name], check=True, env=environment)
        print(f"{name}: done")


if __name__ == "__main__":
    os.environ["COLUMNS"] = WIDTH
    main(sys.argv[1:])
