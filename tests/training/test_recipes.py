"""Every recipe is a valid configuration, says what it is for, and can be copied."""

from __future__ import annotations

import pytest

from domainformer.config import load_config
from domainformer.errors import ConfigError
from domainformer.training import RunConfig, copy_recipe, list_recipes


@pytest.mark.parametrize("recipe", list_recipes(), ids=lambda recipe: recipe.name)
def test_recipes_are_valid_and_headed_by_their_command(recipe):
    config = load_config(RunConfig, recipe.path)
    assert config.output.name == recipe.name
    head = recipe.path.read_text().split("\ndata:")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"domainformer pretrain {recipe.name}.yaml" in head
    assert recipe.purpose.endswith(".")


def test_copying(tmp_path):
    recipe = list_recipes()[0]
    target = copy_recipe(recipe.name, tmp_path / "mine.yaml")
    assert target.read_text() == recipe.path.read_text()
    with pytest.raises(ConfigError, match="did you mean"):
        copy_recipe(recipe.name + "s", tmp_path / "other.yaml")
