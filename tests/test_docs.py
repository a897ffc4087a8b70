"""README, docs and recipes: links lead somewhere, and commands are such as the program takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from domainformer.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAM = typer.main.get_command(app)


def _commands():
    for page in PAGES:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                if line.startswith("domainformer "):
                    yield pytest.param(line, id=f"{page.stem}: {line[:60]}")
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        for line in re.findall(r"^# +(domainformer .*)$", recipe.read_text(), re.MULTILINE):
            yield pytest.param(line, id=f"{recipe.stem}: {line[:60]}")


def _check(line):
    """Walk down to the verb, and look every option up."""
    words = shlex.split(line, comments=True)[1:]
    verb = PROGRAM
    while words and hasattr(verb, "commands"):
        assert words[0] in verb.commands, f"there is no verb {words[0]!r}"
        verb = verb.commands[words.pop(0)]
    assert not hasattr(verb, "commands"), "the verb is not complete"
    known = {option for parameter in verb.params for option in parameter.opts} | {"--help"}
    given = {word for word in words if word.startswith("--")}
    assert given <= known, f"no such option: {given - known}"


@pytest.mark.parametrize("line", list(_commands()))
def test_commands_in_the_documentation_exist(line):
    _check(line)


@pytest.mark.parametrize(
    "line", ["domainformer pretrian run.yaml", "domainformer schema", "domainformer env --jsno"]
)
def test_the_check_would_notice(line):
    with pytest.raises(AssertionError):
        _check(line)


def test_every_verb_has_an_example_in_the_reference():
    text = (ROOT / "docs" / "cli.md").read_text()
    for name, verb in PROGRAM.commands.items():
        for inner in getattr(verb, "commands", {"": None}):
            assert f"domainformer {name} {inner}".rstrip() in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text())
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_every_page_is_named_in_the_index():
    index = (ROOT / "docs" / "index.md").read_text()
    pages = {path.name for path in PAGES[2:]} - {"index.md"}
    assert not [name for name in pages if f"({name})" not in index]
