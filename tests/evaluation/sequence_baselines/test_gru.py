"""The GRU: what it reads at each point, and that it learns what order tells."""

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.errors import ConfigError, DataError
from domainformer.evaluation import metrics
from domainformer.evaluation.protocols import inner_split
from domainformer.evaluation.public_tasks import simulated_order
from domainformer.evaluation.sequence_baselines import GRU
from domainformer.evaluation.sequence_baselines.reading import read_windows
from domainformer.evaluation.task_building import task_from_labels
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

SMALL = GRU(units="events", width=32, epochs=12, batch_rows=16, context=64, threads=1, dropout=0.0)


@pytest.fixture(scope="module")
def order_task():
    """The label tells whether "a" came before "b"; all histories hold the same events."""
    rng = np.random.default_rng(0)
    rows, labels = [], {"who": [], "early": []}
    for who in range(160):
        places = rng.permutation(8)[:2]
        kinds = ["x"] * 8
        kinds[places[0]], kinds[places[1]] = "a", "b"
        rows += [(who, step, kind) for step, kind in enumerate(kinds)]
        labels["who"].append(who)
        labels["early"].append(int(places[0] < places[1]))
    frame = pl.DataFrame(rows, schema=["who", "step", "kind"], orient="row")
    table = EventTable.of(frame, entity="who", time="step")
    return task_from_labels("order", table, pl.DataFrame(labels), label="early", folds=2)


def fit_and_predict(task, model, seed=0):
    split = next(task.splits())
    train, valid = inner_split(task, split)
    fitted = model.fit(task, train, valid, seed)
    return fitted, fitted.predict(task, split.test.drop("label")), task.labels(split.test)


def test_windows_hold_the_newest_events_of_each_example(kinds_task):
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    tokenizer = DomainTokenizer(schema).fit(kinds_task.table)
    examples = kinds_task.examples.sample(200, seed=1)
    history = kinds_task.history(examples)
    tokens = tokenizer.encode(history)
    expected = {
        history.entity_ids[i]: tokens.history(i).ids.tolist() for i in range(tokens.n_entities)
    }
    context = 12
    for units in ("events", "tokens"):
        seen = np.zeros(examples.height, int)
        for window in read_windows(tokenizer, kinds_task, examples, context, units):
            assert len(window.ids) <= context
            ends = np.append(window.offsets[1:], len(window.ids))
            for point, place in zip(window.points, window.examples, strict=True):
                seen[place] += 1
                read = window.ids[1 : ends[point]].tolist()
                whole = expected.get(examples["example"][int(place)], [])
                assert whole[len(whole) - len(read) :] == read
                assert len(read) == len(whole) or len(read) >= (context - 1) // 2
        assert (seen == 1).all()


def test_both_units_learn_an_order_that_counts_cannot_tell(order_task):
    for units in ("events", "tokens"):
        model = GRU(**{**vars(SMALL), "units": units})
        _, said, truth = fit_and_predict(order_task, model)
        assert metrics.auroc(truth, said) > 0.9


def test_shuffled_labels_teach_nothing(order_task):
    """Sabotage twin: were the label readable, the test above would prove nothing."""
    rng = np.random.default_rng(0)
    labels = pl.Series("label", rng.permutation(order_task.examples["label"].to_numpy()))
    task = type(order_task)(
        "shuffled", order_task.table, order_task.examples.with_columns(labels), "binary"
    )
    _, said, truth = fit_and_predict(task, SMALL)
    assert metrics.auroc(truth, said) < 0.7


def test_auto_takes_the_units_with_the_lower_validation_loss(order_task):
    model = GRU(**{**vars(SMALL), "units": "auto", "epochs": 1})
    fitted, _, _ = fit_and_predict(order_task, model)
    losses = {}
    for units in ("events", "tokens"):
        one, _, _ = fit_and_predict(order_task, GRU(**{**vars(model), "units": units}))
        losses[units] = min(one.losses)
    assert losses[fitted.units] == min(losses.values()) == min(fitted.losses)


def test_the_same_seed_gives_the_same_predictions(order_task):
    model = GRU(**{**vars(SMALL), "epochs": 1})
    first, second, other = (fit_and_predict(order_task, model, seed)[1] for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()


def test_next_values_with_a_transformer_and_a_refit(kinds_task):
    model = GRU(**{**vars(SMALL), "encoder": "transformer", "refit": True, "learning_rate": 5e-3})
    fitted, said, truth = fit_and_predict(kinds_task, model)
    assert fitted.losses == []
    np.testing.assert_allclose(said.sum(axis=1), 1.0)
    assert (said.argmax(axis=1) == truth).mean() > 0.3


def test_what_comes_after_an_example_does_not_change_it(kinds_task):
    """Read alone or in the middle of a longer history: the same, for the reader is causal."""
    model = GRU(**{**vars(SMALL), "epochs": 1, "context": 2048})
    split = next(kinds_task.splits())
    train, valid = inner_split(kinds_task, split)
    fitted = model.fit(kinds_task, train, valid, 0)
    together = fitted.predict(kinds_task, split.test)
    alone = fitted.predict(kinds_task, split.test.head(1))
    np.testing.assert_allclose(alone, together[:1], atol=1e-5)


def test_regressions_are_told_in_their_own_units():
    rng = np.random.default_rng(1)
    kinds = rng.integers(0, 2, (120, 4))
    frame = pl.DataFrame(
        {
            "who": np.repeat(np.arange(120), 4),
            "step": np.tile(np.arange(4), 120),
            "kind": np.array(["a", "b"])[kinds.ravel()],
        }
    )
    labels = pl.DataFrame({"who": np.arange(120), "sum": 1000.0 + 50 * kinds[:, -1]})
    table = EventTable.of(frame, entity="who", time="step")
    task = task_from_labels("sums", table, labels, label="sum", kind="regression", folds=2)
    _, said, truth = fit_and_predict(task, GRU(**{**vars(SMALL), "learning_rate": 1e-2}))
    assert np.abs(said - truth).mean() < 10


def test_an_example_without_events_is_read_as_an_empty_history():
    task = simulated_order(40, events_per_entity=16)
    model = GRU(**{**vars(SMALL), "epochs": 1, "context": 128})
    fitted, _, _ = fit_and_predict(task, model)
    stranger = task.examples.head(2).with_columns(
        entity=pl.lit(10**6, task.examples["entity"].dtype)
    )
    said = fitted.predict(task, stranger)
    assert said[0] == said[1]


def test_bad_settings_and_tasks_are_refused(order_task):
    with pytest.raises(ConfigError, match="units"):
        GRU(units="words")
    with pytest.raises(ConfigError, match="epochs"):
        GRU(epochs=0)
    train = next(order_task.splits()).train
    with pytest.raises(DataError, match="no training examples"):
        SMALL.fit(order_task, train.clear(), train.clear(), 0)
