"""Events as text: what is written, and that both ways get the same model and context."""

import datetime as dt

import polars as pl
import pytest

from domainformer.errors import ConfigError, DataError
from domainformer.evaluation.contest.neural import SequenceModel
from domainformer.evaluation.protocols import inner_split
from domainformer.evaluation.public_tasks import simulated_order
from domainformer.evaluation.sequence_baselines import TextSerialisation
from domainformer.evaluation.sequence_baselines.text import (
    TEXT_COLUMN,
    as_text,
    serialise,
    written_columns,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.training import FusionConfig

TINY = SequenceModel(
    finetuning=FusionConfig(
        epochs=1,
        context=128,
        threads=1,
        bpe_vocab_size=300,
        backbone={"overrides": {"hidden_size": 32, "num_hidden_layers": 1}},
        model={"head_layers": [8]},
    )
)


def test_every_kind_of_value_is_written():
    frame = pl.DataFrame(
        {
            "when": [dt.datetime(2016, 5, 3, 9, 30)],
            "day": [dt.date(2016, 5, 3)],
            "amount": [1234.5678912],
            "count": [3],
            "paid": [True],
            "nothing": pl.Series([None], dtype=pl.String),
        }
    )
    assert serialise(frame, frame.columns).to_list() == [
        "when: 2016-05-03 09:30; day: 2016-05-03; amount: 1234.57; count: 3; paid: true"
    ]


def test_the_time_comes_first_and_only_fields_of_the_schema_are_written():
    task = simulated_order(20, events_per_entity=16)
    time = str(task.table.time)
    schema = DomainSchema(
        "s", [FieldSpec("amount", "numerical_continuous"), FieldSpec("t", "temporal", column=time)]
    )
    assert written_columns(schema, task.table) == (time, "amount")


def test_the_text_holds_nothing_at_or_after_the_cut():
    task = simulated_order(20, events_per_entity=16)
    written = as_text(task, ["amount"])
    one = task.examples.head(3)
    assert written.history(one).n_events == task.history(one).n_events
    assert written.history(one).frame.columns == [
        "example",
        task.table.entity,
        str(task.table.time),
        TEXT_COLUMN,
    ]


def test_same_parameters_and_more_tokens_per_event():
    task = simulated_order(60, events_per_entity=16)
    split = next(task.splits())
    train, valid = inner_split(task, split)
    domain = TINY.fit(task, train, valid, 0)
    text = TextSerialisation(TINY).fit(task, train, valid, 0)
    record = text.record
    assert record["text"]["vocabulary"] <= max(record["domain"]["vocabulary"], 512)
    assert record["text"]["tokens_per_event"] > 1.3 * record["domain"]["tokens_per_event"]
    assert record["parameters"] == text.fitted.predictors[0].model.num_parameters()
    backbones = [one.predictors[0].model.backbone for one in (domain, text.fitted)]
    sizes = [one.num_parameters() - one.embed_tokens.weight.numel() for one in backbones]
    assert sizes[0] == sizes[1]
    assert domain.predictors[0].context == text.fitted.predictors[0].context
    said = text.predict(task, split.test.drop("label"))
    assert said.shape == (split.test.height,)
    assert ((said > 0) & (said < 1)).all()


def test_a_column_of_the_same_name_and_a_vocabulary_without_room_are_refused():
    task = simulated_order(20, events_per_entity=16)
    taken = as_text(task, ["amount"])
    with pytest.raises(DataError, match="already"):
        as_text(taken, [TEXT_COLUMN])
    with pytest.raises(ConfigError, match="vocab_size"):
        TextSerialisation(vocab_size=100)
