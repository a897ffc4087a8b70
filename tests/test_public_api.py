"""The root package: every public name resolves, late, and is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import domainformer

ROOT = Path(domainformer.__file__).parent
PUBLIC = [name for name in domainformer.__all__ if name != "__version__"]
PACKAGES = ["domainformer"] + [
    found.name for found in pkgutil.walk_packages([str(ROOT)], "domainformer.") if found.ispkg
]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_resolves_and_is_remembered(name):
    value = getattr(domainformer, name)
    assert getattr(domainformer, name) is value
    assert name in vars(domainformer)
    home = importlib.import_module(f"domainformer.{domainformer._HOMES[name]}")
    assert value is getattr(home, name)


def test_what_type_checkers_see_is_what_is_imported():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module.split(".")[1] for node in guarded.body for alias in node.names}
    assert seen == domainformer._HOMES
    assert sorted(PUBLIC) == sorted(seen)
    assert len(set(domainformer.__all__)) == len(domainformer.__all__)


def test_star_import_and_dir_give_the_public_names():
    names = {}
    exec("from domainformer import *", names)
    assert set(domainformer.__all__) <= names.keys()
    assert set(domainformer.__all__) <= set(dir(domainformer))


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(AttributeError, match=r"'DomainTokeniser'.*did you mean 'DomainTokenizer'"):
        domainformer.DomainTokeniser  # noqa: B018
    assert not hasattr(domainformer, "__wrapped__")
    with pytest.raises(ImportError):
        exec("from domainformer import nothing_of_that_name")


LIGHT = """
import sys

def loaded(*names):
    return [name for name in names if name in sys.modules]

import domainformer
dir(domainformer)
heavy = ("torch", "transformers", "polars", "numpy", "pydantic")
assert not loaded(*heavy), loaded(*heavy)
import domainformer.cli
assert not loaded("torch", "transformers", "polars"), "the command line starts slowly"
domainformer.DomainTokenizer, domainformer.EventTable, domainformer.TokenStore
assert not loaded("torch", "transformers", "lightgbm", "altair", "numba", "pandas"), "not light"
"""


def test_importing_loads_neither_torch_nor_transformers():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_check_of_imports_would_notice():
    loads = LIGHT.replace("dir(domainformer)", "domainformer.EventTable")
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True)
    assert done.returncode != 0
    assert "polars" in done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_say_what_they_are_for(package):
    module = importlib.import_module(package)
    assert module.__doc__, f"{package} has no docstring"
    assert len(module.__doc__.split()) >= 15, f"{package} says too little"


def test_every_module_has_a_docstring():
    bare = [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not bare


@pytest.mark.parametrize("package", PACKAGES)
def test_what_packages_export_is_documented(package):
    module = importlib.import_module(package)
    exported = getattr(module, "__all__", [])
    bare = [
        name
        for name in exported
        if (inspect.isclass(value := getattr(module, name)) or inspect.isfunction(value))
        and not (value.__doc__ or "").strip()
    ]
    assert not bare
