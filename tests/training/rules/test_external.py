"""Rules of users: nothing runs without permission, and what runs is named by its hash."""

from __future__ import annotations

import hashlib
import importlib.metadata
import sys

import pytest
import torch
from torch import nn

from domainformer.errors import ConfigError, RuleError
from domainformer.training.rules import attach, load_rules, make_rules

RULE = '''
from __future__ import annotations
from typing import ClassVar, Literal
from pathlib import Path
from domainformer.training.rules import LearningRule

Path({trace!r}).touch()

class Times(LearningRule):
    """Multiplies."""
    name: ClassVar[str] = "times"
    sites: tuple[str, ...] = ("0",)
    factor: Literal[2, 3] = 2

    def forward(self, value, at, state, moment):
        return value * self.factor, state
'''


@pytest.fixture
def trace(tmp_path):
    return tmp_path / "executed"


@pytest.fixture
def file(tmp_path, trace):
    path = tmp_path / "rules.py"
    path.write_text(RULE.format(trace=str(trace)))
    return path


@pytest.fixture
def package(tmp_path, trace, monkeypatch):
    """A package ``lab_of_tests`` on the path, forgotten again afterwards."""
    folder = tmp_path / "site" / "lab_of_tests"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "helper.py").write_text("FACTOR = 2\n")
    (folder / "rules.py").write_text(RULE.format(trace=str(trace)))
    monkeypatch.syspath_prepend(str(folder.parent))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "lab_of_tests"]:
        del sys.modules[name]


def test_a_file(file):
    rules, hashes = load_rules([str(file)], allow=True)
    assert hashes == {str(file): hashlib.sha256(file.read_bytes()).hexdigest()}
    model = nn.Sequential(nn.Identity())
    with attach(make_rules([{"times": {"factor": 3}}], rules), model):
        assert model(torch.ones(1)).item() == 3
    with pytest.raises(ConfigError, match="factro"):
        make_rules([{"times": {"factro": 3}}], rules)


def test_the_same_file_again_is_the_same_class_and_another_text_another(file):
    (first, one), (again, same) = (load_rules([str(file)], allow=True) for _ in range(2))
    assert first["times"] is again["times"]
    assert one == same
    file.write_text(file.read_text().replace("* self.factor", "+ self.factor"))
    other, changed = load_rules([str(file)], allow=True)
    assert other["times"] is not first["times"]
    assert changed != one


def test_a_class_of_a_module(package):
    source = "lab_of_tests.rules:Times"
    rules, hashes = load_rules([source], allow=True)
    assert list(rules) == ["times"]
    before = hashes[source]
    assert load_rules([source], allow=True)[1] == hashes
    # What the rule may import from its own package is part of its source.
    (package / "helper.py").write_text("FACTOR = 3\n")
    assert load_rules([source], allow=True)[1][source] != before


def test_installed_entry_points(package, monkeypatch):
    point = importlib.metadata.EntryPoint("times", "lab_of_tests.rules:Times", "domainformer.rules")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    for source in ("domainformer.rules", "domainformer.rules:times"):
        rules, hashes = load_rules([source], allow=True)
        assert list(rules) == ["times"]
        assert list(hashes) == [source]
    with pytest.raises(RuleError, match="did you mean 'times'"):
        load_rules(["domainformer.rules:tmies"], allow=True)


def test_nothing_is_executed_without_permission(file, package, trace, monkeypatch):
    point = importlib.metadata.EntryPoint("times", "lab_of_tests.rules:Times", "domainformer.rules")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point])
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for source, said in (
        (str(file), rf"run {file} \(SHA-256 {digest}\)"),
        ("lab_of_tests.rules:Times", "import the module lab_of_tests.rules"),
        ("domainformer.rules", "import the module lab_of_tests.rules"),
    ):
        with pytest.raises(RuleError, match=rf"{said}[\s\S]*allow_rule_code: true"):
            load_rules([source], allow=False)
    assert not trace.exists()
    assert not any(name.startswith("lab_of_tests") for name in sys.modules)
    # With it, the same trace is there: the test would have seen it.
    load_rules([str(file)], allow=True)
    assert trace.exists()


HEAD = "from typing import ClassVar\nfrom domainformer.training.rules import LearningRule\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "defines no learning rule"),
        ("from domainformer.training.rules import LearningRule\n", "defines no learning rule"),
        ("x = 1\ndef f(:\n", r"no Python[\s\S]*line 2"),
        ("x = '\0'\n", "no Python"),
        ("x = 1\n\n1 / 0\n", r"failed[\s\S]*line 3[\s\S]*ZeroDivisionError"),
        ("import sys\nsys.exit(3)\n", r"failed[\s\S]*line 2[\s\S]*SystemExit"),
        ("import not_there_at_all\n", r"line 1[\s\S]*ModuleNotFoundError"),
        (HEAD + "class Odd(LearningRule):\n    pass\n", r"no name of its own[\s\S]*class Odd"),
        (HEAD + "class Odd(LearningRule):\n    name: str = 'odd'\n", "no name of its own"),
        (HEAD + "class Odd(LearningRule):\n    name = 'a b'\n", "no name of its own"),
        (HEAD + "class Odd(LearningRule):\n    name = 'sign_gradient'\n", "built-in"),
        (
            HEAD + "class A(LearningRule):\n    name = 'a'\nclass B(A):\n    name = 'a'\n",
            "two learning rules",
        ),
    ],
)
@pytest.mark.filterwarnings('ignore:Field name "name":UserWarning')
def test_bad_files_say_what_is_wrong_and_leave_nothing(tmp_path, text, said):
    path = tmp_path / "bad.py"
    path.write_text(text)
    before = {name for name in sys.modules if name.startswith("domainformer_rules_")}
    with pytest.raises(RuleError, match=said):
        load_rules([str(path)], allow=True)
    if "failed" in said or "Python" in said:
        assert {n for n in sys.modules if n.startswith("domainformer_rules_")} == before


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.py", "no file"),
        ("nothing", "names no learning rules"),
        ("a-b:C", "names no learning rules"),
        ("not_there_at_all:C", "ModuleNotFoundError"),
        ("domainformer.rules", "no installed package"),
        ("lab_of_tests.rules:Tmies", "did you mean 'Times'"),
        ("lab_of_tests.rules:Path", "no learning rule of the module"),
    ],
)
def test_bad_sources_say_what_is_wrong(package, source, said):
    with pytest.raises(RuleError, match=said):
        load_rules([source], allow=True)
