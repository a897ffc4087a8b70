"""Counts, repeats, popularity and the ranker on next values."""

import numpy as np
import polars as pl
import pytest

from domainformer.errors import ConfigError, DataError
from domainformer.evaluation.contest.table import build_contestant
from domainformer.evaluation.protocols import inner_split
from domainformer.evaluation.public_tasks import simulated_order
from domainformer.evaluation.sequence_baselines import GRU, Counts, Popular, Ranker, RepeatLast
from domainformer.evaluation.sequence_baselines.ranker import find_contexts
from domainformer.evaluation.sequence_baselines.values import ValueEvents
from domainformer.evaluation.sequence_counts import CountSettings

from .conftest import card_events, make_task

SMALL = Ranker(candidates=4, rounds=60, patience=10, leaf_rows=10, columns=0.8, bag=1, tune=False)


def split_of(task):
    split = next(task.splits())
    return *inner_split(task, split), split.test


def accuracy(task, model):
    train, valid, test = split_of(task)
    found = model.fit(task, train, valid, 0).predict(task, test.drop("label"))
    np.testing.assert_allclose(found.sum(axis=1), 1.0)
    return float((found.argmax(axis=1) == task.labels(test)).mean())


def test_events_without_a_value_are_left_out_and_places_fit(kinds_task):
    events = ValueEvents.of(kinds_task)
    assert kinds_task.table.frame["kind"].null_count() > 0
    places = events.places(kinds_task, kinds_task.examples)
    assert (events.values[places] == kinds_task.labels(kinds_task.examples)).all()
    assert places.tolist() == list(range(len(events.values)))


def test_repeat_last_repeats_what_a_loop_finds(kinds_task):
    train, valid, test = split_of(kinds_task)
    found = RepeatLast().fit(kinds_task, train, valid, 0).predict(kinds_task, test).argmax(axis=1)
    seen = kinds_task.history(test).frame.drop_nulls("kind")
    last = dict(
        seen.group_by("example", maintain_order=True).agg(pl.col("kind").last()).iter_rows()
    )
    for guess, example in zip(found, test["example"], strict=True):
        if example in last:
            assert kinds_task.classes[guess] == last[example]


def test_each_baseline_beats_the_one_before(kinds_task):
    popular, counts = accuracy(kinds_task, Popular()), accuracy(kinds_task, Counts())
    assert counts > popular + 0.2
    assert accuracy(kinds_task, SMALL) > counts - 0.03


def test_a_ranker_sees_what_counts_cannot():
    # The kind is told by the amount of the event before, which count models do not read.
    frame = card_events(noise=1.0)
    frame = frame.with_columns(
        kind=pl.when(pl.col("amount").shift(1).over("card") > 2.5)
        .then(pl.lit("food"))
        .otherwise(pl.lit("fuel"))
    ).drop("shop")
    task = make_task(frame)
    assert accuracy(task, SMALL) > accuracy(task, Counts()) + 0.2


@pytest.mark.parametrize(
    "model", [RepeatLast(), Counts(), SMALL], ids=["repeat", "counts", "ranker"]
)
def test_nothing_at_or_after_the_event_is_read(kinds_task, model):
    """Test events get other values: what is said of the first test event of a card stays."""
    train, valid, test = split_of(kinds_task)
    first = test.group_by("entity", maintain_order=True).first().select(test.columns)
    fitted = model.fit(kinds_task, train, valid, 0)
    before = fitted.predict(kinds_task, first)
    frame = kinds_task.table.frame
    later = pl.col("date") >= pl.lit("2020-04-15").str.to_date()
    altered = frame.with_columns(
        pl.when(later).then(pl.lit("rent")).otherwise(pl.col("kind")).alias("kind"),
        pl.when(later).then(999.0).otherwise(pl.col("amount")).alias("amount"),
        pl.when(later).then(pl.lit("other")).otherwise(pl.col("shop")).alias("shop"),
    )
    table = kinds_task.table
    other = kinds_task.with_table(
        type(table)(altered, table.entity, table.time, table.offsets, table.time_kind)
    )
    refitted = model.fit(other, train, valid, 0)
    np.testing.assert_allclose(refitted.predict(other, first), before)


def test_a_model_that_looks_at_its_own_event_is_caught(kinds_task):
    """Sabotage twin of the test above: reading the event itself changes with it."""
    events = ValueEvents.of(kinds_task)
    _, _, test = split_of(kinds_task)
    places = events.places(kinds_task, test)
    honest, sabotaged = events.before(events.values)[places], events.values[places]
    truth = kinds_task.labels(test)
    assert (sabotaged == truth).all()
    assert (honest == truth).mean() < 0.6


def test_contexts_are_names_that_are_not_the_value_itself(kinds_task):
    events = ValueEvents.of(kinds_task)
    train = np.ones(len(events.values), bool)
    assert find_contexts(kinds_task, events, train) == []  # "shop" is the kind in other words
    rng = np.random.default_rng(0)
    table = kinds_task.table
    frame = table.frame.with_columns(
        pl.Series("unit", rng.integers(0, 3, table.n_events)), shop=pl.lit("one")
    )
    wider = kinds_task.with_table(
        type(table)(frame, table.entity, table.time, table.offsets, table.time_kind)
    )
    assert find_contexts(wider, ValueEvents.of(wider), train) == ["unit"]


def test_the_same_seed_gives_the_same_ranker(kinds_task):
    train, valid, test = split_of(kinds_task)
    first, second = (
        SMALL.fit(kinds_task, train, valid, 3).predict(kinds_task, test) for _ in range(2)
    )
    assert (first == second).all()


def test_popular_answers_every_kind():
    task = simulated_order(60, events_per_entity=20)
    train, valid, test = split_of(task)
    found = Popular().fit(task, train, valid, 0).predict(task, test)
    both = pl.concat([train, valid])
    np.testing.assert_allclose(found, both["label"].mean())


def test_other_tasks_are_refused():
    task = simulated_order(60, events_per_entity=20)
    train, valid, _ = split_of(task)
    for model in (Counts(), RepeatLast(), SMALL):
        with pytest.raises(DataError, match="next value"):
            model.fit(task, train, valid, 0)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("popular", {}),
        ("repeat_last", {}),
        ("counts", {"settings": {"own": 4.0}}),
        ("ranker", {"candidates": 8, "contexts": ["shop"]}),
        ("gru", {"units": "events", "width": 16}),
        ("text", {"vocab_size": 600, "model": {"ensemble": 2}}),
    ],
)
def test_contestants_are_built_from_plain_settings(name, settings):
    assert build_contestant(name, settings) is not None


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="share"):
        Ranker(share=1.5)
    with pytest.raises(ConfigError, match="two candidates"):
        Ranker(candidates=1)


def test_models_that_learn_from_validation_labels_say_so_and_do_without(kinds_task):
    """A blend weighs them by a fit that is given no validation examples."""
    train, valid, _ = split_of(kinds_task)
    for model in (Popular(), RepeatLast(), Counts(settings=CountSettings()), SMALL):
        assert model.learns_from_validation
        said = model.fit(kinds_task, train, valid.clear(), 0).predict(kinds_task, valid)
        other = kinds_task.labels(valid)
        changed = valid.with_columns(label=pl.Series((other + 1) % kinds_task.n_classes))
        again = model.fit(kinds_task, train, changed.clear(), 0).predict(kinds_task, valid)
        assert (said == again).all()
    assert GRU(refit=True).learns_from_validation
    assert not GRU().learns_from_validation
