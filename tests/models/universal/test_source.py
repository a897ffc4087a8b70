"""A user's file: read without running it, run within limits, imported only where trusted."""

import pytest
from torch import nn

from domainformer.errors import AdapterError
from domainformer.models.universal import analyse, inspect_file, load_source, read_source
from domainformer.models.universal.sandbox import REFUSED

MODEL = """
from torch import nn
class Model(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.table = nn.Embedding(width, width)
        {init}
    def forward(self, x):
        return self.tabel(x)
{top}
"""


def _file(folder, *, init="pass", top=""):
    path = folder / "model.py"
    path.write_text(MODEL.format(init=init, top=top))
    return path


def test_reading_runs_nothing(tmp_path):
    path = _file(tmp_path, top="raise SystemExit('was run')")
    source = read_source(path, "Model")
    assert source.owner == "Model"
    assert analyse(source).clean


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("class A: pass", "B", "no class 'B'"),
        ("x = 1", "B", "defines no class"),
        ("class A(Other): pass", "A", "no forward in this file"),
        ("class A(", "A", "is no Python"),
    ],
)
def test_what_cannot_be_read_is_told(tmp_path, text, name, message):
    path = tmp_path / "model.py"
    path.write_text(text)
    with pytest.raises(AdapterError, match=message):
        read_source(path, name)
    with pytest.raises(AdapterError, match="cannot be read"):
        read_source(tmp_path / "none.py", name)


def test_names_of_a_file(tmp_path):
    path = tmp_path / "model.py"
    text = (
        "import torch as t\nif True:\n  K = 1\ndef f():\n  global G\n  G = 2\n"
        "class Base:\n  def forward(self, x):\n    return t, K, G, f, nope, len, __name__\n"
        "class Model(Base): pass\n"
    )
    path.write_text(text)
    found = analyse(read_source(path, "Model"))
    assert [(f.name, f.line) for f in found.undefined] == [("nope", 9)]
    path.write_text("from torch import *\n" + text)
    assert analyse(read_source(path, "Model")).undefined == ()


TRICKS = """
import os, socket, subprocess
for attempt in (
    lambda: socket.create_connection(("127.0.0.1", 9)),
    lambda: socket.getaddrinfo("localhost", 9),
    lambda: subprocess.run(["true"]),
    lambda: os.system("true"),
    lambda: os.fork(),
    lambda: open({there!r}, "w"),
    lambda: os.open({there!r}, os.O_WRONLY | os.O_CREAT),
    lambda: os.remove({kept!r}),
):
    try:
        attempt()
    except PermissionError as error:
        assert "refused while a file is inspected" in str(error), error
    else:
        raise RuntimeError("it was not refused")
assert not [name for name in os.environ if "TOKEN" in name or "PROXY" == name[:5].upper()]
"""


@pytest.mark.integration
def test_a_file_runs_without_network_processes_and_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret")
    kept, there = tmp_path / "kept", tmp_path / "there"
    kept.write_text("here")
    path = _file(tmp_path, top=TRICKS.format(there=str(there), kept=str(kept)))
    told = load_source(path, "Model", arguments={"width": 4})
    (missing,) = told.inspection["names"]["undefined"]
    assert (missing["name"], missing["line"]) == ("self.tabel", 9)
    assert told.inspection["signature"]["parameters"][0]["name"] == "x"
    assert told.model_class is None
    assert kept.exists()
    assert not there.exists()
    assert "os.fork" in REFUSED


@pytest.mark.slow
def test_a_trusted_file_is_imported_here_as_well(tmp_path):
    path = _file(tmp_path)
    trusted = load_source(path, "Model", arguments={"width": 4}, trust=True).model_class
    assert issubclass(trusted, nn.Module)
    assert inspect_file(path, "Model", run=True, arguments={"width": 4}).ran


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"top": "while True: pass"}, "did not finish within|ended the process"),
        ({"top": "import os; os._exit(3)"}, "ended with status 3"),
        ({"top": "raise SystemExit('bye')"}, "SystemExit: bye"),
    ],
)
def test_a_file_that_fails_is_told_by_its_line(tmp_path, parts, message):
    with pytest.raises(AdapterError, match=message):
        load_source(_file(tmp_path, **parts), "Model", arguments={"width": 4}, seconds=10)


@pytest.mark.slow
def test_a_constructor_that_fails_is_told_by_its_line(tmp_path):
    with pytest.raises(AdapterError, match=r"model.py:7(.|\n)*NameError: name 'missing'"):
        load_source(_file(tmp_path, init="self.no = missing"), "Model", arguments={"width": 4})
