"""The notebooks run as they are stored, on few entities; the executor notices what fails."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
_SPEC = importlib.util.spec_from_file_location("execute", EXAMPLES / "execute.py")
execute = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(execute)


def _code(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def _text(cell):
    return "".join(
        line
        for output in cell["outputs"]
        for line in output.get("text", output.get("data", {}).get("text/plain", []))
    )


@pytest.mark.integration
@pytest.mark.parametrize("name", execute.NOTEBOOKS)
def test_notebooks_run_from_the_first_cell_to_the_last(name, monkeypatch, tmp_path):
    monkeypatch.setenv("DOMAINFORMER_SMALL", "1")
    monkeypatch.chdir(tmp_path)
    done = execute.execute(execute.load(name))
    stored = _code(execute.load(name))
    # The same cells print something, here on few entities and there on many.
    assert [bool(cell["outputs"]) for cell in _code(done)] == [
        bool(cell["outputs"]) for cell in stored
    ]


@pytest.mark.parametrize("name", execute.NOTEBOOKS)
def test_stored_outputs_are_complete_small_and_of_no_machine(name):
    path = EXAMPLES / f"{name}.ipynb"
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = _code(notebook)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(len(_text(cell)) for cell in cells) > 1000
    assert path.stat().st_size < 100_000
    printed = "\n".join(_text(cell) for cell in cells)
    assert not re.search(r"(?<![\w.])/(?:home|Users|root|tmp|work|opt|mnt|var)/", printed)
    assert "took" not in printed  # a time is one machine's
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", execute.NOTEBOOKS)
def test_links_of_notebooks_lead_to_files(name):
    cells = [one for one in execute.load(name)["cells"] if one["cell_type"] == "markdown"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    assert targets
    assert not [target for target in targets if not (EXAMPLES / target).exists()]
    recipes = re.findall(r"^domainformer recipes copy ([\w-]+) ", text, re.MULTILINE)
    assert recipes or any(target.startswith("../recipes/") for target in targets)
    assert not [one for one in recipes if not (EXAMPLES.parent / f"recipes/{one}.yaml").exists()]


def _notebook(*sources):
    return {"cells": [{"cell_type": "code", "source": [source]} for source in sources]}


def test_what_is_printed_and_the_last_value_are_kept():
    done = execute.execute(_notebook("x = 2\nprint('a')\nx + 1", "x = None\nx", "f'{1}'"))
    shown = [[output["output_type"] for output in cell["outputs"]] for cell in done["cells"]]
    assert shown == [["stream", "execute_result"], [], ["execute_result"]]
    assert [_text(cell) for cell in done["cells"]] == ["a\n3", "", "'1'"]


def test_a_drawing_is_kept_as_one():
    drawing = "class D:\n    def _repr_svg_(self):\n        return '<svg/>'"
    (cell,) = execute.execute(_notebook(f"{drawing}\nD()"))["cells"]
    assert cell["outputs"][0]["data"]["image/svg+xml"] == ["<svg/>"]


@pytest.mark.parametrize("source", ["1 / 0", "import domainformer.nothing", "assert False"])
def test_a_cell_that_fails_is_named(source):
    with pytest.raises(execute.CellError, match="cell 2 failed"):
        execute.execute(_notebook("x = 1", source))
