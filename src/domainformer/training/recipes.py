"""Ready configurations: complete YAML files, each headed by the command that runs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from domainformer.artifacts import write_text
from domainformer.errors import ConfigError, nearest

# In an installed package the recipes lie inside it, in a work tree beside ``src``.
_FOLDERS = (Path(__file__).parents[1] / "recipes", Path(__file__).parents[3] / "recipes")


@dataclass(frozen=True)
class Recipe:
    """A ready configuration.

    Args:
        name: As it is asked for.
        purpose: Its first line: what it is for.
        path: The YAML file.
    """

    name: str
    purpose: str
    path: Path


def list_recipes() -> list[Recipe]:
    """All ready configurations, by name.

    Example:
        >>> "simulated-finance" in [recipe.name for recipe in list_recipes()]
        True
    """
    found: dict[str, Recipe] = {}
    for folder in _FOLDERS:
        for path in sorted(folder.rglob("*.yaml")):
            first = path.read_text(encoding="utf-8").partition("\n")[0]
            found.setdefault(path.stem, Recipe(path.stem, first.lstrip("# "), path))
    return [found[name] for name in sorted(found)]


def copy_recipe(name: str, target: str | Path) -> Path:
    """Copy a recipe, to edit it.

    Raises:
        ConfigError: There is no recipe of that name.
    """
    recipes = {recipe.name: recipe for recipe in list_recipes()}
    if name not in recipes:
        raise ConfigError(f"there is no recipe {name!r}", next_step=nearest(name, recipes))
    target = Path(target)
    write_text(target, recipes[name].path.read_text(encoding="utf-8"))
    return target


def command_of(path: Path, name: str) -> str:
    """The command that runs a copy of a recipe, as the recipe's head has it.

    Args:
        path: The copy.
        name: Of the recipe, which the head calls ``{name}.yaml``.

    Example:
        >>> import tempfile
        >>> mine = copy_recipe("shakespeare_char", Path(tempfile.mkdtemp()) / "mine.yaml")
        >>> command_of(mine, "shakespeare_char").split()[:2]
        ['domainformer', 'train']
    """
    head = re.search(rf"^# +(domainformer .*?){re.escape(name)}\.yaml", path.read_text(), re.M)
    return f"{head[1] if head else 'domainformer pretrain '}{path}"
