"""The schema accepts what the classes accept, and the page says what the classes say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from domainformer.config import build, read_yaml
from domainformer.errors import ConfigError
from domainformer.training.config_reference import KINDS, config_reference, config_schema

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_every_key_is_described(kind):
    schema = config_schema(kind)
    Draft202012Validator.check_schema(schema)
    for name, section in schema["$defs"].items():
        for key, found in section.get("properties", {}).items():
            assert found.get("description"), f"{name}.{key}"


def test_recipes_are_valid_by_the_schema():
    validator = Draft202012Validator(config_schema("train"))
    recipes = sorted((ROOT / "recipes").glob("shakespeare*.yaml"))
    assert recipes
    for recipe in recipes:
        values = read_yaml(recipe)
        assert not list(validator.iter_errors(values)), recipe.name
        build(KINDS["train"], values)


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("rules: [z_loss, {activation_noise: {std: 0.5}}]", True),
        ("rules: [{activation_noise: {sd: 0.5}}]", False),
        ("rules: [{activation_noise: {std: -1}}]", False),
        ("rules: [my_own_rule, {another: {of: mine}}]", True),
        ("training: {contxt: 64}", False),
        ("training: {context: 4}", False),
        ("model_name: null", True),
    ],
)
def test_the_schema_knows_keys_ranges_and_rules(text, valid):
    errors = list(Draft202012Validator(config_schema("train")).iter_errors(yaml.safe_load(text)))
    assert (not errors) == valid


def test_the_page_of_reference_is_up_to_date():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == config_reference(), "domainformer config reference > docs/configuration.md"


def test_an_unknown_kind_is_told():
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        config_schema("trian")
