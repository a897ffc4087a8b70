"""Contests with models that cost nothing: cells, resuming, blends, what is refused."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import polars as pl
import pytest

from domainformer.config import build
from domainformer.data import EventTable
from domainformer.errors import ArtifactError, ConfigError, FingerprintError
from domainformer.evaluation.comparison import FoldPrediction
from domainformer.evaluation.contest import ContestConfig, contest, run
from domainformer.evaluation.contest.blend import Blend, held_back, simplex_weights
from domainformer.evaluation.contest.curves import curves_of, tenths_of
from domainformer.evaluation.contest.logits import average
from domainformer.evaluation.contest.table import (
    CONTESTANTS,
    USUAL,
    USUAL_NEXT_ITEM,
    USUAL_NEXT_VALUE,
    build_contestant,
    usual_models,
)
from domainformer.evaluation.measures import MEASURES
from domainformer.evaluation.next_tasks import next_item_task, next_value_task
from domainformer.evaluation.protocols import inner_split
from domainformer.evaluation.public_tasks import simulated_order


@pytest.fixture(scope="module")
def task():
    return simulated_order(60, events_per_entity=16, folds=2)


@dataclass(frozen=True)
class Hint:
    """Tells the label with some noise, as no honest model could; counts its fits."""

    noise: float = 1.0
    stop_at: int = field(default=10**9, repr=False)
    fits: list = field(default_factory=list, repr=False)

    def fit(self, task, examples_train, examples_valid, seed):
        if len(self.fits) == self.stop_at:
            raise KeyboardInterrupt
        self.fits.append((examples_train.height, seed))
        return self

    def predict(self, task, examples):
        assert "label" not in examples.columns
        known = examples.select("example").join(
            task.examples, on="example", how="left", maintain_order="left"
        )
        rng = np.random.default_rng(int(self.noise * 1000))
        logit = (2 * known["label"].to_numpy() - 1) + self.noise * rng.normal(size=len(known))
        return 1 / (1 + np.exp(-logit))


@dataclass(frozen=True)
class Memory:
    """Knows by heart what it was fitted on, and nothing else."""

    learns_from_validation: ClassVar[bool] = True

    def fit(self, task, examples_train, examples_valid, seed):
        learned = pl.concat([examples_train, examples_valid])
        return _Remembers(dict(learned.select("example", "label").iter_rows()))


@dataclass(frozen=True)
class _Remembers:
    known: dict

    def predict(self, task, examples):
        return np.array([0.02 + 0.96 * self.known.get(e, 0.5) for e in examples["example"]])


class Careless(Memory):
    """The same without saying so."""

    learns_from_validation: ClassVar[bool] = False


def held(monkeypatch, task, tmp_path, models, **settings):
    made = {
        name: ("blend" if isinstance(model, Blend) else "hint", model, repr(model))
        for name, model in models.items()
    }
    monkeypatch.setattr(run, "build_models", lambda config, task=None: made)
    values = {"task": {"simulated": {}}, "samples": 20, "output": str(tmp_path / "out")}
    values |= {"baselines": [next(iter(models))], "check_leaks": False, **settings}
    return contest(build(ContestConfig, values), task=task)


def test_what_is_finished_is_read_and_the_rest_is_run(monkeypatch, task, tmp_path):
    ours, base = Hint(0.5), Hint(2.0)
    first = held(monkeypatch, task, tmp_path, {"base": base, "ours": ours}, seeds=[0, 1])
    assert len(ours.fits) == len(base.fits) == 4
    again = held(monkeypatch, task, tmp_path, {"base": base, "ours": ours}, seeds=[0, 1])
    assert len(ours.fits) == 4
    assert again.comparison.figures == first.comparison.figures
    held(
        monkeypatch,
        task,
        tmp_path,
        {"base": base, "ours": ours, "more": Hint(1.0)},
        seeds=[0, 1, 2],
    )
    assert len(ours.fits) == 6


def test_an_interrupted_contest_goes_on(monkeypatch, task, tmp_path):
    base, stops = Hint(2.0), Hint(0.5, stop_at=1)
    with pytest.raises(KeyboardInterrupt):
        held(monkeypatch, task, tmp_path, {"base": base, "ours": stops}, output=str(tmp_path / "a"))
    assert (len(base.fits), len(stops.fits)) == (2, 1)
    assert not (tmp_path / "a" / "comparison.json").exists()
    goes_on = Hint(0.5, stop_at=1)  # the same settings, one fit left to do
    whole = held(
        monkeypatch, task, tmp_path, {"base": base, "ours": goes_on}, output=str(tmp_path / "a")
    )
    assert (len(base.fits), len(goes_on.fits)) == (2, 1)
    oracle = held(monkeypatch, task, tmp_path, {"base": Hint(2.0), "ours": Hint(0.5, 1000)})
    assert whole.comparison.figures == oracle.comparison.figures


def test_an_altered_prediction_is_refused(monkeypatch, task, tmp_path):
    models = {"base": Hint(2.0), "ours": Hint(0.5)}
    held(monkeypatch, task, tmp_path, models)
    path = tmp_path / "out" / "predictions" / "ours" / "fold-1-seed-0" / "test.parquet"
    frame = pl.read_parquet(path)
    held(monkeypatch, task, tmp_path, models)  # untouched, it is read
    frame.with_columns(prediction=1 - pl.col("prediction")).write_parquet(path)
    with pytest.raises(ArtifactError, match="damaged"):
        held(monkeypatch, task, tmp_path, models)


def test_a_folder_of_something_else_is_refused(monkeypatch, task, tmp_path):
    models = {"base": Hint(2.0)}
    held(monkeypatch, task, tmp_path, models)
    with pytest.raises(FingerprintError, match="another task"):
        held(monkeypatch, simulated_order(60, events_per_entity=16, folds=3), tmp_path, models)
    with pytest.raises(FingerprintError, match="other settings"):
        held(monkeypatch, task, tmp_path, {"base": Hint(1.0)})
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.txt").write_text("meow")
    with pytest.raises(ArtifactError, match="no contest folder"):
        held(monkeypatch, task, tmp_path, models, output=str(other))
    with pytest.raises(ConfigError, match="no such folds"):
        held(monkeypatch, task, tmp_path, models, folds=[7])


def test_weights_are_chosen_by_predictions_that_did_not_learn_them(monkeypatch, task, tmp_path):
    models = {"hint": Hint(1.0), "memory": Memory(), "blend": Blend(("hint", "memory"))}
    honest = held(monkeypatch, task, tmp_path, models)
    weights = [one["weights"]["memory"] for one in honest.record["identity"]["models"]["blend"]]
    assert max(weights) < 0.7
    models["memory"] = Careless()  # its validation predictions are its labels
    models["blend"] = Blend(("memory", "hint"))
    fooled = held(monkeypatch, task, tmp_path, models, output=str(tmp_path / "fooled"))
    weights = [one["weights"]["memory"] for one in fooled.record["identity"]["models"]["blend"]]
    assert min(weights) > 0.9


def test_held_back_predictions_know_no_validation_label(task):
    split = next(task.splits())
    train, valid = inner_split(task, split)
    fitted = Memory().fit(task, train, valid, 0)
    assert set(fitted.predict(task, valid.drop("label"))) == {0.02, 0.98}
    assert set(held_back(Memory(), fitted, task, train, valid, 0)) == {0.5}


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_weights_against_a_grid(kind):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300) if kind == "multiclass" else rng.integers(0, 2, 300)
    if kind == "regression":
        y = rng.normal(size=300)
        said = [y + rng.normal(size=300), y + 0.7 * rng.normal(size=300)]

        def score(p):
            return np.mean((p - y) ** 2)
    else:
        shape = (300, 3) if kind == "multiclass" else 300
        right = np.eye(3)[y] if kind == "multiclass" else 2 * y - 1
        logits = [right + s * rng.normal(size=shape) for s in (2.0, 1.4)]
        said = [
            np.exp(z) / np.exp(z).sum(1, keepdims=True) if z.ndim == 2 else 1 / (1 + np.exp(-z))
            for z in logits
        ]

        def score(p):
            return MEASURES[kind]["log_loss"].metric(y, p)

    grid = np.linspace(0, 1, 101)
    best = grid[np.argmin([score(average(said, kind, [w, 1 - w])) for w in grid])]
    assert simplex_weights(said, y, kind)[0] == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e9])
def test_a_member_that_is_far_off_does_not_hide_which_of_the_others_is_better(unit):
    rng = np.random.default_rng(0)
    y = 5 + rng.normal(size=400)
    noise = [s * rng.normal(size=400) for s in (0.3, 0.6)]
    weights = simplex_weights(
        [*(unit * (y + one) for one in noise), np.full(400, -100 * unit)], unit * y, "regression"
    )
    # The best share of the first of two, in closed form.
    first, second = noise
    best = -(second * (first - second)).sum() / ((first - second) ** 2).sum()
    assert weights == pytest.approx([best, 1 - best, 0], abs=0.01)


def test_curves(task):
    perfect = held_cells(task, lambda y: 0.1 + 0.8 * y)
    curves = curves_of(task, {"a": perfect})
    lift = curves["lift"]["a"]
    base = task.examples["label"].mean()
    assert lift[0]["lift"] == pytest.approx(1 / base)
    assert lift[-1]["found"] == 1.0
    assert [p["examples"] for p in curves["calibration"]["a"]] == [6.0] * 10
    assert tenths_of(np.arange(100.0)).tolist() == [9 - i // 10 for i in range(100)]


def held_cells(task, rule):
    return [
        FoldPrediction(fold, rule(task.labels(task.examples.filter(pl.col("fold") == fold))))
        for fold in task.folds
    ]


def test_every_contestant_is_named_once_and_refuses_what_it_does_not_know():
    assert {"lightgbm", "sequence", "joint", "late", "blend"} <= set(CONTESTANTS)
    for name in ("lightgbm", "sequence", "joint", "late", "blend"):
        with pytest.raises(ConfigError, match="no setting 'colour'"):
            build_contestant(name, {"colour": 1})
    with pytest.raises(ConfigError, match="did you mean 'lightgbm'"):
        build_contestant("lightgmb")
    with pytest.raises(ConfigError, match="do not fit"):
        build_contestant("sequence", {"ensemble": "many"})
    with pytest.raises(ConfigError, match="no setting 'epoks'"):
        build_contestant("sequence", {"finetuning": {"epoks": 3}})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"task": {}}, "one of public"),
        ({"task": {"public": "credit_default", "table": "x"}}, "one of public"),
        ({"task": {"table": "x"}}, "one of label"),
        ({"task": {"public": "x", "next_item": "i"}}, "table of your own"),
        ({"task": {"simulated": {}}, "seeds": [0, 0]}, "named twice"),
        ({"task": {"simulated": {}}, "models": {"a/b": {}}}, "characters"),
        (
            {
                "task": {
                    "table": "x",
                    "cuts": {"train": [1], "test": 5, "horizon": 2, "label": "sum"},
                }
            },
            "column belongs",
        ),
    ],
)
def test_configurations_that_contradict_themselves(values, said):
    with pytest.raises(ConfigError, match=said):
        build(ContestConfig, values)


def test_a_blend_with_given_weights_costs_no_second_fit(monkeypatch, task, tmp_path):
    """Twin: without weights the members are asked for the validation examples."""
    for weights in ((0.25, 0.75), None):
        models = {"base": Hint(2.0), "ours": Hint(0.5)}
        models["blend"] = Blend(("base", "ours"), weights=weights)
        folder = tmp_path / str(weights is None)
        held(monkeypatch, task, tmp_path, models, output=str(folder))
        cells = {name: folder / "predictions" / name / "fold-0-seed-0" for name in models}
        assert (cells["base"] / "valid.parquet").exists() == (weights is None)
        said = [
            pl.read_parquet(one / "test.parquet")["prediction"].to_numpy() for one in cells.values()
        ]
        expected = average(said[:2], "binary", [0.25, 0.75])
        assert np.allclose(said[2], expected) == (weights is not None)
    for wrong in ((0.5,), (0.5, 0.6), (1.5, -0.5)):
        with pytest.raises(ConfigError, match="shares that sum to 1"):
            Blend(("base", "ours"), weights=wrong)


def test_a_schema_file_that_was_edited_makes_another_model(tmp_path):
    file = tmp_path / "schema.yaml"

    def print_of(text):
        file.write_text(text, encoding="utf-8")
        models = {"a": {"contestant": "sequence", "schema": str(file)}}
        models["b"] = {"contestant": "text", "model": {"schema": str(file)}}
        built = run.build_models(
            build(ContestConfig, {"task": {"simulated": {}}, "models": models})
        )
        return [built[name][2] for name in models]

    first = print_of("fields: [{name: category, field_type: categorical_fixed}]")
    again = print_of("fields: [{name: category, field_type: categorical_fixed}]")
    other = print_of("fields: [{name: channel, field_type: categorical_fixed}]")
    assert first == again
    assert not set(first) & set(other)


def test_who_takes_part_where_nobody_is_named(task):
    assert usual_models(None) == usual_models(task) == USUAL
    days = pl.DataFrame({"who": [1, 1, 1, 2, 2, 2], "day": [1, 2, 9] * 2, "kind": list("ababab")})
    table = EventTable.of(days, entity="who", time="day")
    asked = next_value_task("kind", table, "kind", test_from=5)
    assert usual_models(asked) == USUAL_NEXT_VALUE
    assert usual_models(next_item_task("item", table, "kind")) == USUAL_NEXT_ITEM
    for name in (*USUAL, *USUAL_NEXT_VALUE, *USUAL_NEXT_ITEM):
        build_contestant(name)
    built = run.build_models(build(ContestConfig, {"task": {"simulated": {}}}), asked)
    assert set(built) == set(USUAL_NEXT_VALUE)


def test_members_of_a_blend_are_models_of_the_contest():
    values = {"task": {"simulated": {}}, "models": {"blend": {"of": ["lightgbm", "joint"]}}}
    with pytest.raises(ConfigError, match="no such member: 'lightgbm'"):
        run.build_models(build(ContestConfig, values))
    values["models"] = {"blend": {"of": ["lightgbm", "joint"], "settings": {"joint": {}}}}
    with pytest.raises(ConfigError, match="settings of its members"):
        run.build_models(build(ContestConfig, values))
    values["models"] = {"blend": {"of": ["small", "lightgbm"]}, "lightgbm": None}
    values["models"]["small"] = {"contestant": "sequence", "ensemble": 2}
    built = run.build_models(build(ContestConfig, values))
    assert list(built) == ["lightgbm", "small", "blend"]
    values["models"]["small"]["ensemble"] = 3
    changed = run.build_models(build(ContestConfig, values))
    assert changed["blend"][2] != built["blend"][2]
    assert changed["lightgbm"] == built["lightgbm"]
    with pytest.raises(ConfigError, match="there is no model 'gru'"):
        run.baselines_of(build(ContestConfig, {**values, "baselines": ["gru"]}), built)
