"""Every recipe of a contest names what exists, and stands on the page of recipes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from domainformer.config import load_config
from domainformer.errors import ConfigError
from domainformer.evaluation.contest import ContestConfig
from domainformer.evaluation.contest.run import baselines_of, build_models
from domainformer.evaluation.public_tasks import PUBLIC_TASKS
from domainformer.training import list_recipes

RECIPES = {
    recipe.name: recipe.path
    for recipe in list_recipes()
    if re.search(r"^# +domainformer evaluate --task", recipe.path.read_text(), re.MULTILINE)
}
PAGE = Path(__file__).parents[3] / "docs" / "recipes.md"


def test_there_are_recipes_of_contests():
    assert {"order-simulated", "physionet-death", "beauty-next-item"} <= RECIPES.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_name_tasks_contestants_and_settings_that_exist(name):
    config = load_config(ContestConfig, RECIPES[name])
    assert config.task.public in PUBLIC_TASKS
    models = build_models(config)
    assert models.keys() == config.models.keys()
    assert baselines_of(config, models)


def test_the_check_would_notice():
    path = RECIPES["physionet-death"]
    wrong = load_config(ContestConfig, path, ["models.lightgbm.boosting.bugdet=3"])
    with pytest.raises(ConfigError, match="bugdet"):
        build_models(wrong)


def test_the_page_of_recipes_names_each_contest_and_no_other():
    text = PAGE.read_text()
    named = set(re.findall(r"`recipes/([\w-]+)\.yaml`", text))
    others = {recipe.name for recipe in list_recipes()} - RECIPES.keys()
    assert named - others == RECIPES.keys()
