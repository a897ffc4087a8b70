"""The configuration of a compressor's run: strict, and told at once what is wrong."""

import pytest

from domainformer.config import apply_overrides, build, parse_yaml
from domainformer.errors import ConfigError
from domainformer.training.vision import VisionRunConfig


def test_defaults_are_complete_and_survive_yaml():
    config = VisionRunConfig()
    assert build(VisionRunConfig, parse_yaml(config.to_yaml())) == config


def test_dotted_overrides_reach_every_section():
    overrides = [
        "training.budgets=[0.25, 0.0625]",
        "training.dynamic.target=0.1",
        "training.temperature.shape=cosine",
        "compressor.width=16",
        "data.questions={source: tiles, options: {rows: 8}}",
    ]
    config = build(VisionRunConfig, apply_overrides({}, overrides))
    assert config.training.budgets == (0.25, 0.0625)
    assert (config.training.dynamic.target, config.training.dynamic.price) == (0.1, None)
    assert config.training.temperature.shape == "cosine"
    assert config.compressor == {"width": 16}
    assert config.data.questions.options == {"rows": 8}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trainig": {}}, "did you mean 'training'"),
        ({"training": {"bugdets": []}}, "did you mean 'budgets'"),
        ({"training": {"budgets": [0.25, 4]}}, "shares of the tokens"),
        ({"training": {"budgets": []}}, "give budgets, or dynamic"),
        ({"training": {"budgets": [], "dynamic": {"target": 0.1}}}, "dynamic.probability to 1"),
        ({"training": {"dynamic": {"price": 1.0, "trials": [0.5, 0.1]}}}, "ascending shares"),
        ({"training": {"dynamic": {"price": 1.0, "trials": [0.5, 1.5]}}}, "ascending shares"),
        ({"training": {"dynamic": {"price": 1.0, "trials": [0.5]}}}, "ascending shares"),
        ({"training": {"guidance": {"layers": [0]}}}, "no layer 0"),
        ({"training": {"guidance": {"layers": []}}}, "training.guidance.layers"),
        ({"training": {"dynamic": {}}}, "a target or a price"),
        ({"training": {"dynamic": {"target": 0.1, "price": 1.0}}}, "a target or a price"),
        ({"training": {"temperature": {"end": 0}}}, "training.temperature.end"),
        ({"training": {"distillation": 1.5}}, "training.distillation"),
        ({"training": {"resume": True}}, "needs output.name"),
        ({"compressor": {"widht": 8}}, "no setting 'widht'"),
        ({"compressor": {"feature_size": 8}}, "follows from the model"),
        ({"compressor": {"width": "wide"}}, "compressor"),
        ({"data": {"train": "a.jsonl", "questions": {"source": "tiles"}}}, "not both"),
        ({"data": {"validation": "a.jsonl"}}, "needs train"),
        ({"model": {"prompt": "{question}"}}, "{image} and {question}"),
    ],
)
def test_mistakes_are_told(values, message):
    with pytest.raises(ConfigError, match="error") as caught:
        build(VisionRunConfig, values)
    assert message in str(caught.value)


def test_dynamic_budgets_are_trained_by_the_rule_that_selects():
    values = {"training": {"dynamic": {"price": 0.01}}, "compressor": {"budget_rule": "mass"}}
    with pytest.raises(ConfigError, match="budget_rule is mass"):
        build(VisionRunConfig, values)
    build(VisionRunConfig, {"compressor": {"budget_rule": "mass"}})
