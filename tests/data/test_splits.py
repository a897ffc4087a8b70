import datetime as dt
import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data.splits import (
    ROLE_NAMES,
    TEST,
    TRAIN,
    VALIDATION,
    Split,
    check_disjoint,
    split_by_entity,
    split_by_time,
)
from domainformer.data.table import EventTable
from domainformer.errors import DataError


def days(entities=20, per_entity=10, start=dt.date(2024, 1, 1)):
    rng = np.random.default_rng(0)
    at = rng.integers(0, 100, entities * per_entity)
    return EventTable.of(
        pl.DataFrame(
            {
                "who": np.repeat(np.arange(entities), per_entity),
                "at": [start + dt.timedelta(days=int(d)) for d in at],
            }
        ),
        entity="who",
        time="at",
    )


def numbers(times, who=None):
    frame = pl.DataFrame({"who": who or [1] * len(times), "at": times}, strict=False)
    return EventTable.of(frame, entity="who", time="at")


@given(
    st.lists(st.integers(0, 30), min_size=3, max_size=60).filter(lambda t: len(set(t)) >= 3),
    st.sampled_from([(0.8, 0.1, 0.1), (0.5, 0.25, 0.25), (0.1, 0.1, 0.8), (0.7, 0.0, 0.3)]),
)
@settings(max_examples=100, deadline=None)
def test_ties_are_never_torn_and_order_holds(times, fractions):
    table = numbers(times)
    split = split_by_time(table, fractions=fractions)
    split.check(table)
    at, roles = table.time_values, split.roles
    assert (np.diff(roles[np.argsort(at, kind="stable")].astype(int)) >= 0).all()
    assert all(len(set(roles[at == t])) == 1 for t in set(times))
    assert split.record["events"] == {
        name: int((roles == role).sum()) for role, name in enumerate(ROLE_NAMES)
    }
    assert (VALIDATION in roles) == (fractions[1] > 0)


def test_cuts_lie_between_days_and_near_the_fractions():
    hours = pl.datetime_range(dt.datetime(2024, 1, 1), dt.datetime(2024, 4, 1), "1h", eager=True)
    table = EventTable.of(
        pl.DataFrame({"who": [1] * len(hours), "at": hours}), entity="who", time="at"
    )
    split = split_by_time(table)
    assert split.record["validation_from"] == "2024-03-14"
    assert split.record["test_from"] == "2024-03-23"
    assert split.record["events"]["train"] == 73 * 24


def test_given_cuts_of_every_kind_give_the_same_split():
    table = days()
    first = split_by_time(table, validation_from="2024-03-01", test_from="2024-03-20")
    for cuts in (
        (dt.date(2024, 3, 1), dt.date(2024, 3, 20)),
        (dt.datetime(2024, 3, 1), "2024-03-20T00:00"),
        ("2024-03-01T02:00+02:00", "2024-03-20"),
    ):
        again = split_by_time(table, validation_from=cuts[0], test_from=cuts[1])
        assert (again.roles == first.roles).all()
        assert again.record == first.record
    days_of_test = first.events(table, "test").frame["at"]
    assert days_of_test.min() >= dt.date(2024, 3, 20)


def test_one_given_cut_leaves_the_other_to_the_fractions():
    table = days()
    counts = split_by_time(table, test_from="2024-03-20").record["events"]
    assert 0.05 < counts["validation"] / (counts["train"] + counts["validation"]) < 0.2
    counts = split_by_time(table, validation_from="2024-03-01").record["events"]
    assert 0.3 < counts["validation"] / (counts["validation"] + counts["test"]) < 0.7
    same = split_by_time(table, validation_from="2024-03-20", test_from="2024-03-20")
    assert same.record["events"]["validation"] == 0


def test_events_without_time_are_training():
    table = numbers([None, 1, 2, 3, 4])
    assert split_by_time(table).roles.tolist() == [0, 0, 0, 1, 2]


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        (numbers([1, 2, 3]), {"test_from": 9}, "test part would be empty"),
        (numbers([1, 2, 3]), {"validation_from": 0, "test_from": 2}, "train part would be empty"),
        (numbers([1, 5]), {"validation_from": 2, "test_from": 3}, "validation part would be empty"),
        (numbers([1, 5]), {"validation_from": 3, "test_from": 2}, "wrong order"),
        (numbers([1, 1, 2]), {}, "only 2 different"),
        (numbers([4, 4]), {"fractions": (0.8, 0, 0.2)}, "cannot be told apart by time"),
        (numbers([1, 2, 3]), {"test_from": "2024-01-01"}, "no whole number"),
        (days(), {"test_from": "soon"}, "is no time"),
        (days(), {"test_from": 7}, "is no time"),
        (days(), {"fractions": (0.5, 0.2, 0.2)}, "add up to 1"),
        (days(), {"fractions": (0.0, 0.5, 0.5)}, "share above zero"),
        (EventTable.of(pl.DataFrame({"who": [1]}), entity="who"), {}, "without times"),
    ],
)
def test_bad_time_splits_name_the_part(table, options, words):
    with pytest.raises(DataError, match=words):
        split_by_time(table, **options)


@pytest.mark.parametrize("dtype", [pl.Int64, pl.String, pl.Binary, pl.UInt64])
def test_an_entitys_role_depends_on_its_id_and_the_seed_alone(dtype):
    ids = pl.Series("who", range(500)).cast(pl.String)
    ids = ids.cast(dtype) if dtype != pl.String else ids
    whole = EventTable.of(pl.DataFrame({"who": ids}), entity="who")
    split = split_by_entity(whole, seed=4)
    roles = dict(zip(whole.entity_ids.to_list(), split.roles.tolist(), strict=True))
    part = EventTable.of(pl.DataFrame({"who": ids.shuffle(seed=1).head(300)}), entity="who")
    again = split_by_entity(part, seed=4)
    assert [roles[i] for i in part.entity_ids.to_list()] == again.roles.tolist()
    assert (split_by_entity(whole, seed=5).roles != split.roles).any()
    assert np.bincount(split.roles)[[VALIDATION, TEST]].min() > 25
    split.check(whole)


def test_the_hash_is_the_same_forever():
    table = EventTable.of(pl.DataFrame({"who": [str(i) for i in range(10, 40)]}), entity="who")
    roles = split_by_entity(table, fractions=(0.5, 0.2, 0.3), seed=0).roles
    assert "".join(map(str, roles)) == "102102211220010020101000211022"


def test_a_part_that_was_left_out_stays_empty():
    table = EventTable.of(pl.DataFrame({"who": range(200)}), entity="who")
    assert set(split_by_entity(table, fractions=(0.6, 0, 0.4)).roles.tolist()) == {TRAIN, TEST}


def test_one_entity_is_refused_with_advice():
    with pytest.raises(DataError, match="split by time instead"):
        split_by_entity(numbers([1, 2, 3]))
    few = EventTable.of(pl.DataFrame({"who": [1, 2, 3]}), entity="who")
    with pytest.raises(DataError, match="part would be empty"):
        split_by_entity(few, fractions=(0.98, 0.01, 0.01))


@pytest.mark.parametrize("make", [split_by_time, split_by_entity])
def test_a_record_survives_json_and_makes_the_split_again(make):
    table = days()
    split = make(table)
    record = json.loads(json.dumps(split.record))
    assert record == split.record
    assert (Split.from_record(table, record).roles == split.roles).all()
    with pytest.raises(DataError, match="no record of a split"):
        Split.from_record(table, {"kind": "by hand"})


def test_events_by_role_or_name():
    table = days()
    split = split_by_time(table)
    assert split.events(table, "test").fingerprint() == split.events(table, TEST).fingerprint()
    with pytest.raises(DataError, match="did you mean 'validation'"):
        split.events(table, "valid")
    with pytest.raises(DataError, match="made for another table"):
        split.events(numbers([1, 2, 3]), TRAIN)


class TestLeaks:
    """A clean split passes; the same split with one planted event is caught."""

    def test_a_test_event_moved_into_training_is_caught(self):
        table = days()
        split = split_by_time(table)
        split.check(table)
        roles = split.roles.copy()
        roles[np.flatnonzero(roles == TEST)[0]] = TRAIN  # the sabotage
        with pytest.raises(DataError, match="train part leaks into the (validation|test) part"):
            Split("time", roles, split.record).check(table)

    def test_a_day_torn_in_two_is_caught(self):
        table = numbers([1, 2, 2, 3])
        Split("time", np.array([0, 0, 0, 2], np.uint8), {}).check(table)
        with pytest.raises(DataError, match="time 2"):
            Split("time", np.array([0, 0, 2, 2], np.uint8), {}).check(table)

    def test_an_entity_in_two_parts_is_caught(self):
        table = days()
        split = split_by_entity(table)
        roles = split.roles.copy()
        roles[0] = TEST if roles[0] == TRAIN else TRAIN
        with pytest.raises(DataError, match="1 entities are in both"):
            Split("entity", roles, {}).check(table)

    def test_fitting_on_the_whole_table_is_caught(self):
        table = days()
        split = split_by_time(table)
        test = split.events(table, TEST)
        check_disjoint(split.events(table, TRAIN), test, by="time")
        with pytest.raises(DataError, match="lie at or after this first test event"):
            check_disjoint(table, test, by="time")
        with pytest.raises(DataError, match="leaks"):
            check_disjoint(table, test, by="entity")


def test_birmingham_by_its_protocol(data_root):
    table = EventTable.read(
        data_root / "finance/birmingham_cards_2014_2018.parquet",
        entity="card",
        time="date",
        columns=["expense"],
    )
    split = split_by_time(table, validation_from="2016-10-01", test_from="2017-02-01")
    split.check(table)
    assert split.record["events"]["test"] == 49_406
    assert split.events(table, TEST).frame["expense"].drop_nulls().len() == 49_359


def test_training_entities_can_be_divided_once_more_without_a_test_part():
    table = EventTable.of(pl.DataFrame({"id": range(200), "day": [0] * 200}), entity="id")
    split = split_by_entity(table, fractions=(0.8, 0.2, 0.0))
    assert split.record["events"]["test"] == 0
    assert split.record["events"]["train"] + split.record["events"]["validation"] == 200
