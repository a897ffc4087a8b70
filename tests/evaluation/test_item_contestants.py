"""Next-item contestants: what they read of a task, what they choose, and what a refit may see."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from domainformer.config import build, load_config
from domainformer.data import EventTable
from domainformer.data.item_histories import ItemHistories
from domainformer.errors import ArtifactError, DataError
from domainformer.evaluation import next_item_task, run_model
from domainformer.evaluation.comparison import evaluate_predictions
from domainformer.evaluation.contest import ContestConfig, contest
from domainformer.evaluation.contest.table import build_contestant
from domainformer.evaluation.item_baselines import Transitions, TransitionSettings
from domainformer.evaluation.item_contestants import (
    EaseItems,
    PopularItems,
    TransitionItems,
)
from domainformer.evaluation.item_data import ItemData, read_histories
from domainformer.evaluation.item_network import (
    AttributeTable,
    ExpertWeights,
    NetworkAndCounts,
    NextItems,
    choose_weights,
    combined,
)
from domainformer.evaluation.tasks import TRAIN_ONLY
from domainformer.training.items_config import ItemsConfig

RING = 15
SMALL = {
    "width": 16,
    "epochs": 6,
    "reach": 1,
    "batch_users": 32,
    "learning_rate": 0.02,
    "warmup_steps": 5,
    "context": 10,
    "evaluate_every": 3,
}
LAST = TransitionSettings(1, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1)


def make_task(users=120, seed=0, catalogue=None):
    """Rings of items with some noise; item names are not numbers, their order is not the ring's."""
    random = np.random.default_rng(seed)
    lengths = random.integers(3, 8, users)
    names = random.permutation([f"s{number:02d}" for number in range(RING)])
    rows = []
    for user, (n, first) in enumerate(zip(lengths, random.integers(RING, size=users), strict=True)):
        rows += [(f"u{user:03d}", step, names[(first + step) % RING]) for step in range(n)]
    frame = pl.DataFrame(rows, schema=["who", "n", "sku"], orient="row")
    table = EventTable.of(frame, entity="who", time="n")
    return next_item_task("rings", table, "sku", catalogue=catalogue)


TASK = make_task()


def parts(task=TASK):
    split = next(task.splits())
    return split.train, split.valid, split.test


def truth(task, back):
    """Every user's items without the last ``back``, by plain Python."""
    numbers = {name: place for place, name in enumerate(task.classes)}
    grouped = task.table.frame.group_by("who", maintain_order=True).agg("sku")
    return [[numbers[item] for item in items[: len(items) - back]] for items in grouped["sku"]]


def as_lists(histories):
    return [part.tolist() for part in np.split(histories.items, histories.offsets[1:-1])]


def test_training_data_end_before_the_validation_item_and_whole_ones_before_the_test_item():
    for catalogue in (None, [f"s{number:02d}" for number in range(RING - 1, -1, -1)]):
        task = make_task(catalogue=catalogue)
        train, valid, test = parts(task)
        data = ItemData.of(task, train, valid)
        assert as_lists(data.train) == truth(task, 2)
        assert as_lists(data.whole) == truth(task, 1)
        assert as_lists(read_histories(task, test.drop("label"))) == truth(task, 1)
        assert data.exclude_seen  # nobody has an item twice


def test_histories_come_in_the_order_of_the_examples():
    _, valid, _ = parts()
    mixed = valid.sample(fraction=1.0, shuffle=True, seed=1)
    order = [valid["example"].to_list().index(one) for one in mixed["example"]]
    expected = truth(TASK, 2)
    assert as_lists(read_histories(TASK, mixed)) == [expected[place] for place in order]


def test_entities_without_a_validation_example_still_train():
    train, valid, _ = parts()
    fewer = valid.filter(pl.col("entity") != "u000")
    data = ItemData.of(TASK, train, fewer)
    whole = dict(zip(sorted(set(TASK.table.frame["who"])), truth(TASK, 2), strict=True))
    assert len(data.validation) == 119
    if len(whole["u000"]) > 1:
        assert as_lists(data.train)[-1] == whole["u000"]
        assert as_lists(data.whole)[-1] == whole["u000"]


def test_repeats_are_seen_and_then_items_of_the_history_are_ranked():
    frame = pl.DataFrame({"who": [1] * 4, "n": range(4), "sku": ["a", "b", "a", "c"]})
    task = next_item_task("again", EventTable.of(frame, entity="who", time="n"), "sku")
    train, valid, _ = parts(task)
    assert not ItemData.of(task, train, valid).exclude_seen
    assert ItemData.of(task, train, valid, exclude_seen=True).exclude_seen


@pytest.mark.parametrize("refit", [False, True])
def test_a_count_contestant_is_its_baseline(refit):
    train, valid, test = parts()
    fitted = TransitionItems(refit=refit, settings=LAST, k=4).fit(TASK, train, valid, 0)
    learned = truth(TASK, 1 if refit else 2)
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in learned])])
    histories = ItemHistories(np.concatenate(learned).astype(np.int64), offsets, RING)
    shown = read_histories(TASK, test)
    scores = Transitions.fit(histories, LAST).scores(shown)
    for row, own in enumerate(truth(TASK, 1)):
        scores[row, own] = -np.inf
    oracle = np.argsort(-scores, axis=1, kind="stable")[:, :4]
    assert (fitted.predict(TASK, test.drop("label")) == oracle).all()


def test_nothing_of_the_test_item_is_known():
    """Another last item changes no prediction; a changed validation item does (the twin)."""
    contestant = NetworkAndCounts(
        network=NextItems(settings={**SMALL, "epochs": 1}),
        transitions=TransitionItems(settings=LAST),
    )

    def predictions(back):
        frame = TASK.table.frame
        last = pl.int_range(pl.len()).reverse().over("who") == back
        shifted = [TASK.classes[(place + 4) % RING] for place in range(RING)]
        changed = frame.with_columns(
            sku=pl.when(last).then(pl.col("sku").replace(TASK.classes, shifted)).otherwise("sku")
        )
        table = EventTable.of(changed, entity="who", time="n")
        task = next_item_task("rings", table, "sku", catalogue=TASK.classes)
        train, valid, test = parts(task)
        return contestant.fit(task, train, valid, 0).predict(task, test.drop("label"))

    plain = predictions(99)
    assert (predictions(0) == plain).all()
    assert (predictions(1) != plain).any()


def test_contestants_learn_the_ring_and_are_built_from_plain_settings():
    network = {"settings": SMALL, "models": 2}
    settings = {
        "popular_items": {},
        "transitions": {"choose_by": 50},
        "ease": {"penalties": [10.0]},
        "items": network,
        "items_and_counts": {"network": network, "ease": {"penalties": [10.0]}},
    }
    predictions = {
        name: run_model(build_contestant(name, values), TASK) for name, values in settings.items()
    }
    comparison = evaluate_predictions(TASK, predictions, baselines=["transitions"], samples=50)
    figures = {
        name: np.mean(predictions[name][0].values[:, 0] == TASK.labels(parts()[2]))
        for name in settings
    }
    assert comparison.to_json()
    assert figures["popular_items"] < 0.4
    for name in ("transitions", "items", "items_and_counts"):
        assert figures[name] > 0.9, name


def test_weights_are_chosen_by_validation_alone():
    train, valid, _ = parts()
    data = ItemData.of(TASK, train, valid)
    right = np.full((RING, RING), 0.0, np.float32)
    for history, item in zip(as_lists(data.shown), data.validation, strict=True):
        right[history[-1], item] = 1.0

    class Table:
        def __init__(self, matrix):
            self.matrix = matrix

        def scores(self, histories):
            return self.matrix[histories.last(1)].copy()

    flat = Table(np.zeros((RING, RING), np.float32))
    weights, figure = choose_weights(data, [flat, Table(right)])
    assert weights.transitions > 0
    assert figure == 1.0
    weights, _ = choose_weights(data, [Table(np.log(right + 0.3)), Table(1 - right)])
    assert weights.transitions == 0.0


def test_zero_weights_leave_the_network():
    log_p = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    untouched = combined(log_p, [np.ones((3, 4))], ExpertWeights(transitions=0.0))
    assert (untouched == log_p).all()


def test_attribute_tables(tmp_path, monkeypatch):
    path = tmp_path / "items.parquet"
    pl.DataFrame({"sku": ["b", "a"], "tags": [["x", "y"], ["y"]]}).write_parquet(path)
    found = AttributeTable(str(path), "sku", "tags").read(["a", "b", "c"])
    assert (found.values.tolist(), found.offsets.tolist()) == ([1, 0, 1], [0, 1, 3, 3])
    monkeypatch.setenv("DOMAINFORMER_DATA", str(tmp_path))
    assert AttributeTable("items.parquet", "sku", "tags").read(["a"]).count == 1
    with pytest.raises(ArtifactError, match="no table of attributes"):
        AttributeTable("none.parquet", "sku", "tags").read(["a"])
    with pytest.raises(DataError, match="no column 'tag'"):
        AttributeTable(str(path), "sku", "tag").read(["a"])
    with pytest.raises(DataError, match="no item has an attribute"):
        AttributeTable(str(path), "sku", "tags").read(["q"])


def test_other_tasks_are_refused():
    train, valid, _ = parts()
    other = TASK.__class__(
        "other", TASK.table, TASK.examples, "multiclass", classes=TASK.classes, split="time"
    )
    with pytest.raises(DataError, match="not about next items"):
        PopularItems().fit(other, train, valid, 0)
    with pytest.raises(DataError, match="no validation examples"):
        EaseItems().fit(TASK, train, valid.head(0), 0)
    assert (TASK.examples["fold"] == TRAIN_ONLY).any()


def test_a_contest_of_next_items_runs_from_its_configuration(tmp_path):
    config = build(
        ContestConfig,
        {
            "task": {"public": "beauty_next_item"},
            "models": {
                "popular_items": {},
                "transitions": {"settings": {"reach": 1}},
                "items_and_counts": {"network": {"settings": {**SMALL, "epochs": 2}}},
            },
            "output": str(tmp_path / "contest"),
        },
    )
    found = contest(config, task=TASK).to_json()
    assert set(found["figures"]) == {"popular_items", "transitions", "items_and_counts"}
    again = contest(config, task=TASK).to_json()
    assert again["figures"] == found["figures"]


def test_the_recipe_names_contestants_and_settings_that_exist():
    path = Path(__file__).parents[2] / "recipes" / "beauty-next-item.yaml"
    config = load_config(ContestConfig, path)
    for name, settings in config.models.items():
        model = build_contestant(name, settings)
    assert build(ItemsConfig, model.network.settings).reach == 1
