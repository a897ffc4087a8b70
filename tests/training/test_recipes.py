"""Every recipe is a valid configuration, says what it is for, and can be copied."""

from __future__ import annotations

import re

import pytest

from domainformer.config import load_config
from domainformer.errors import ConfigError
from domainformer.evaluation import AblationConfig
from domainformer.training import RunConfig, copy_recipe, list_recipes
from domainformer.training.language import TextRunConfig
from domainformer.training.rules.config import configured_rules
from domainformer.training.vision import VisionRunConfig

CONFIGURATIONS = {
    "pretrain": RunConfig,
    "ablate": AblationConfig,
    "train": TextRunConfig,
    "vision train": VisionRunConfig,
}


def _verb(recipe):
    """What the head says of how to run a recipe of this name."""
    head = rf"^# +domainformer ((?:vision )?\w+) (?:--task )?{recipe.name}\.yaml"
    return re.search(head, recipe.path.read_text(), re.MULTILINE)[1]


@pytest.mark.parametrize("recipe", list_recipes(), ids=lambda recipe: recipe.name)
def test_recipes_are_headed_by_their_purpose_and_command(recipe):
    head = recipe.path.read_text().partition("\n\n")[0]
    assert head.startswith("# ")
    assert _verb(recipe)
    assert recipe.purpose.endswith(".")


@pytest.mark.parametrize(
    "recipe",
    [recipe for recipe in list_recipes() if _verb(recipe) in CONFIGURATIONS],
    ids=lambda recipe: recipe.name,
)
def test_recipes_are_valid(recipe):
    config = load_config(CONFIGURATIONS[_verb(recipe)], recipe.path)
    assert config.output.name == recipe.name
    head = re.split(r"\n(?:data|model):", recipe.path.read_text())[0]
    assert all(line.startswith("#") for line in head.splitlines())
    if isinstance(config, TextRunConfig):
        configured_rules(config)


def test_copying(tmp_path):
    recipe = list_recipes()[0]
    target = copy_recipe(recipe.name, tmp_path / "mine.yaml")
    assert target.read_text() == recipe.path.read_text()
    with pytest.raises(ConfigError, match="did you mean"):
        copy_recipe(recipe.name + "s", tmp_path / "other.yaml")
