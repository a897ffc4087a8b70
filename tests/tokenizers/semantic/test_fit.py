import json

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from domainformer.data import EventTable
from domainformer.errors import DataError, InputError, TokenizerError
from domainformer.schema import FieldSpec
from domainformer.tokenizers import EntityFeaturePlan, fit_semantic_ids
from domainformer.tokenizers.semantic import RQVAESettings
from domainformer.tokenizers.semantic.items import items_of_events, merged_items, read_items

SPEC = FieldSpec("product", "categorical_entity", semantic_levels=2, semantic_codes=8)
QUICK = RQVAESettings(hidden=(32,), latent=8, epochs=40, reset_every=5)


def fit(events, items, **options):
    return fit_semantic_ids(events, SPEC, items=items, **{"method": "kmeans", **options})


@pytest.mark.parametrize("method", ["kmeans", "rqvae"])
def test_both_methods_give_codes_and_a_report(items, events, method):
    told = []
    found = fit(
        events, items, method=method, settings=QUICK, examples=4, progress=lambda *n: told.append(n)
    )
    report, tokenizer = found.report, found.tokenizer
    assert told
    assert (report.field, report.method, report.entities) == ("product", method, 300)
    assert report.features.keys() == {"text", "sets", "numbers", "histories"}
    assert min(report.usage) >= 0.8
    assert all(1 < spread <= 8 for spread in report.perplexity)
    codes = tokenizer.ids[:, :2]
    distinct, sizes = np.unique(codes, axis=0, return_counts=True)
    assert report.collision_rate == pytest.approx(1 - len(distinct) / 300)
    assert report.largest_group == sizes.max()
    assert 0 < report.unexplained < 0.8
    assert report.neighbours_share_first > 0.4
    assert (
        tokenizer.decode(tokenizer.encode(items["product"])).to_list() == items["product"].to_list()
    )
    np.testing.assert_array_equal(
        codes, tokenizer.model.quantizer.codes(features_of(found, items, events))
    )


def features_of(found, items, events):
    """The features of the fit, histories included, by fitting them again."""
    from domainformer.tokenizers.semantic.features import EntityFeatures
    from domainformer.tokenizers.semantic.fit import _gathered

    given, near = _gathered(events, SPEC, items, 5, EntityFeaturePlan(), 0)
    plan = EntityFeaturePlan().inferred(given.frame)
    return EntityFeatures.fit(given.frame, plan, near)[1]


def test_the_report_is_json_and_a_table(found):
    plain = json.loads(json.dumps(found.to_json()))
    assert len(plain["usage"]) == 2
    example = plain["neighbours"][0]
    assert len(example["nearest"]) == 3
    cosines = [cosine for _, _, cosine in example["nearest"]]
    assert cosines == sorted(cosines, reverse=True)
    console = Console(record=True, width=100)
    with console.capture() as shown:
        console.print(found.render())
    for text in ("semantic ids of 'product'", "collision rate", "nearest by features", "cosine"):
        assert text in shown.get()


def test_codes_depend_on_no_order_of_items_and_on_the_seed(items, events, found):
    assert fit(events, items[::-1]).tokenizer.state() == found.tokenizer.state()
    assert fit(events, items, seed=1).tokenizer.state() != found.tokenizer.state()


def test_a_path_of_items_and_pandas(items, events, found, tmp_path):
    items.write_parquet(tmp_path / "items.parquet")
    assert fit(events, tmp_path / "items.parquet").tokenizer.state() == found.tokenizer.state()
    assert fit(events, str(tmp_path / "items.parquet")).report == found.report
    frame = items.drop("tags")
    assert fit(None, frame.to_pandas()).tokenizer.state() == fit(None, frame).tokenizer.state()


def test_items_alone_events_alone_and_weights(items, events):
    assert "histories" not in fit(None, items).report.features
    assert (
        "histories"
        not in fit(events, items, plan=EntityFeaturePlan(weights={"histories": 0})).report.features
    )
    table = EventTable.of(
        events.frame.join(items.select("product", "price", "title"), on="product"),
        entity="user",
        time="at",
    )
    report = fit(table, None).report
    assert report.features.keys() == {"text", "numbers", "histories"}


def test_entities_of_events_without_a_row_of_items_get_ids_too(items, events):
    found = fit(events, items[:200])
    assert found.report.entities == len({*items["product"][:200], *events.frame["product"]})


def test_collapse_is_an_error_with_advice(items, events):
    few = items[:20]
    with pytest.raises(TokenizerError, match="collapsed") as caught:
        fit(None, few.with_columns(price=1.0).select("product", "price", "tags"))
    assert "set semantic_codes to" in str(caught.value)
    same = pl.DataFrame({"product": range(400), "price": [float(i % 3) for i in range(400)]})
    with pytest.raises(TokenizerError, match="collapsed"):
        fit(None, same)
    assert min(fit(None, same, least_usage=0.0).report.usage) < 0.8
    with pytest.raises(TokenizerError, match="train longer"):
        hopeless = RQVAESettings(hidden=(4,), latent=1, epochs=1, learning_rate=10.0)
        fit(events, items, method="rqvae", settings=hopeless)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"items": None, "events": None}, InputError, "semantic ids need features"),
        ({"method": "magic"}, InputError, "choose rqvae or kmeans"),
        ({"field": FieldSpec("product", "categorical_entity")}, InputError, "no semantic levels"),
        (
            {"items": pl.DataFrame({"product": ["a"], "x": [1]}), "events": None},
            DataError,
            "1 entities",
        ),
        ({"items": pl.DataFrame({"product": [1.0, 1.0], "x": [1, 2]})}, DataError, "has two rows"),
        ({"items": pl.DataFrame({"x": [1, 2]})}, DataError, "no column 'product'"),
        ({"items": "nowhere.parquet"}, DataError, "nowhere"),
        (
            {"field": FieldSpec("shop", "categorical_entity", semantic_levels=2)},
            DataError,
            "'shop'",
        ),
        ({"items": 7}, DataError, "int"),
        ({"events": "events.parquet"}, InputError, "EventTable.read"),
        ({"events": pl.DataFrame({"product": ["a", "b"]})}, InputError, "items=…"),
    ],
)
def test_bad_input_is_told(items, events, options, error, message):
    given = {"events": events, "field": SPEC, "items": items} | options
    with pytest.raises(error, match=message):
        fit_semantic_ids(given.pop("events"), given.pop("field"), **{"method": "kmeans", **given})


def test_a_name_stands_for_three_levels_of_256(items):
    with pytest.raises(TokenizerError, match="few for 256 codes"):
        fit_semantic_ids(None, "product", items=items, method="kmeans")


# ── tables of entities ───────────────────────────────────────────────────────────────────────


def test_events_say_what_their_entities_are_like():
    events = pl.DataFrame(
        {
            "p": ["b", "a", "b", None, "b"],
            "price": [2.0, 5.0, None, 7.0, 4.0],
            "note": ["two words", "one more", "two words", "no entity here", None],
            "kind": ["x", "y", "y", "z", "x"],
            "at": pl.Series([1, 2, 3, 4, 5]).cast(pl.Date),
        }
    )
    items = items_of_events(events, "p")
    assert items.names == ["a", "b"]
    assert items.frame.to_dicts() == [
        {"events": 1, "price_mean": 5.0, "price_spread": 0.0, "note": "one more", "kind": ["y"]},
        {
            "events": 3,
            "price_mean": 3.0,
            "price_spread": 1.0,
            "note": "two words",
            "kind": ["x", "y"],
        },
    ]


def test_the_owner_and_the_time_of_events_say_nothing():
    frame = pl.DataFrame({"who": [1, 1], "at": [1, 2], "p": ["a", "b"], "n": [1, 2]})
    items = items_of_events(EventTable.of(frame, entity="who", time="at"), "p")
    assert items.frame.columns == ["events", "n_mean", "n_spread"]


def test_items_are_sorted_checked_and_filled():
    given = read_items(pl.DataFrame({"p": ["c", None, "a"], "x": [1, 2, 3]}), "p")
    assert (given.names, given.frame["x"].to_list()) == (["a", "c"], [3, 1])
    more = merged_items(given, ["b", "c"])
    assert (more.names, more.frame["x"].to_list()) == (["a", "b", "c"], [3, None, 1])
    assert merged_items(given, ["a"]) is given
