"""All mistakes show before the first training, and a folder keeps to what it was begun with."""

import json

import pytest

from domainformer.config import build
from domainformer.errors import ArtifactError, ConfigError
from domainformer.evaluation.ablations import AblationConfig, Base, Variant, load_ablation
from domainformer.evaluation.ablations.plan import PLAN_FILE, claim, config_of, make_plan
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.training.config import RunConfig

SCHEMA = DomainSchema("s", [FieldSpec("kind", "sign")])
JUDGED = {"role": "validation"}


def base_of(**values):
    return Base(build(RunConfig, values), SCHEMA)


def plan_of(axes, wanted=None, **values):
    return make_plan(base_of(**values), axes, wanted)


def test_axes_are_those_of_the_file_or_ours_or_those_asked_for():
    own = {"context": [32], "rate": {"training.learning_rate": [0.1]}}
    assert plan_of(own).axes == ("context", "rate")
    assert plan_of(own, ["rate"]).axes == ("rate",)
    assert plan_of(own, ["position"]).axes == ("position",)
    everything = plan_of(None)
    assert everything.axes == (
        "context",
        "merges",
        "position",
        "objective",
    )  # the rest needs more fields
    assert {note.partition(":")[0] for note in everything.notes} == {
        "data",
        "bins",
        "calendar",
        "elapsed",
        "text",
    }


@pytest.mark.parametrize(
    ("axes", "hint"),
    [
        ({"contxt": None}, "did you mean 'context'"),
        ({"drop": {"training.dropout": [0.1]}}, "training.dropout: unknown key"),
        ({"drop": {"model.overrides.dropuot": [0.1]}}, "dropout"),
        ({"base": {"training.seed": [1]}}, "cannot be called"),
        ({"rate": {"training.learning_rate": [0.1, 0.1]}}, "two variants would be kept"),
        ({"position": ["ropes"]}, "ropes"),
    ],
)
def test_a_mistake_shows_before_anything_is_trained(axes, hint):
    with pytest.raises(ConfigError, match=hint):
        plan_of(axes)


def test_an_unknown_axis_on_the_command_line():
    with pytest.raises(ConfigError, match="did you mean 'mine'"):
        plan_of({"mine": {"training.seed": [1]}}, ["mien"])


def test_another_length_of_training_replaces_that_of_the_base():
    base = build(RunConfig, {"training": {"max_steps": 5}})
    longer = config_of(base, Variant("length", "2", {"training.epochs": 2}))
    assert (longer.training.epochs, longer.training.max_steps) == (2, None)


def test_a_folder_is_claimed_and_grows(tmp_path):
    claim(tmp_path / "a", plan_of({"context": [32]}), JUDGED)
    claim(tmp_path / "a", plan_of({"context": [32, 64], "position": ["rope"]}), JUDGED)
    claim(tmp_path / "a", plan_of({"position": ["rope"]}), JUDGED)
    kept = json.loads((tmp_path / "a" / PLAN_FILE).read_text())
    assert list(kept["variants"]) == ["base", "context-32", "context-64", "position-rope"]


def test_another_base_is_refused_and_each_difference_is_told(tmp_path):
    claim(tmp_path, plan_of({"context": [32]}), JUDGED)
    other = plan_of({"context": [32]}, training={"learning_rate": 0.5, "quiet": True})
    with pytest.raises(ConfigError) as refused:
        claim(tmp_path, other, {"role": "test"})
    text = str(refused.value)
    assert "training.learning_rate: 0.001 then, 0.5 now" in text
    assert "role: 'validation' then, 'test' now" in text
    assert "quiet" not in text
    assert "--out" in text
    # Sabotage twin: the very same plan is taken.
    claim(tmp_path, plan_of({"context": [32]}), JUDGED)


def test_a_variant_that_means_something_else_is_refused(tmp_path):
    claim(tmp_path, plan_of({"v": {"training.learning_rate": [0.5]}}), JUDGED)
    with pytest.raises(ConfigError, match="v-0.5 means something else"):
        claim(tmp_path, plan_of({"v": {"model.overrides.dropout": [0.5]}}), JUDGED)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match="is in use"):
        claim(tmp_path, plan_of({"context": [32]}), JUDGED)
    assert not (tmp_path / PLAN_FILE).exists()


def test_a_damaged_plan(tmp_path):
    (tmp_path / PLAN_FILE).write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        claim(tmp_path, plan_of({"context": [32]}), JUDGED)


def test_configuration_from_a_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("axes: [context, text]\ntraining: {context: 64}\nablation: {seeds: [0, 1]}\n")
    config = load_ablation(path, ["training.max_steps=3", "ablation.seeds=[4]"])
    assert config.axes == {"context": None, "text": None}
    assert (config.base.training.max_steps, config.ablation.seeds) == (3, (4,))
    assert config.folder.name == "ablation"


def test_a_label_column_of_the_events_is_kept_out_of_the_fields():
    label = build(AblationConfig, {"ablation": {"label": "churned"}})
    assert label.base.data.label == "churned"
    table = build(AblationConfig, {"ablation": {"label": "churned", "label_table": "c.csv"}})
    assert table.base.data.label is None


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1]])
def test_wrong_seeds(seeds):
    with pytest.raises(ConfigError, match="different numbers"):
        build(AblationConfig, {"ablation": {"seeds": seeds}})


def test_a_misspelt_section():
    with pytest.raises(ConfigError, match="did you mean 'axes'"):
        build(AblationConfig, {"axis": ["context"]})
