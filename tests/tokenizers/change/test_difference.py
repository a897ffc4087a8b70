import io

import polars as pl
from rich.console import Console

from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import (
    DomainTokenizer,
    SemanticIdTokenizer,
    diff_tokenizers,
    extend,
)

SCHEMA = DomainSchema(
    "shop",
    [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("price", "numerical_continuous", n_bins=4),
        FieldSpec("day", "temporal", calendar_fields=("year",)),
        FieldSpec("name", "text"),
    ],
)


def frame(kinds, prices, years, names):
    days = pl.Series(years).cast(pl.String).str.to_date("%Y")
    return pl.DataFrame({"kind": kinds, "price": prices, "day": days, "name": names})


FIRST = frame(["tea", "tea", "mug"], [1.0, 2.0, 3.0], [2020, 2021, 2022], ["low", "low", "lower"])
SECOND = frame(["mug", "cake"], [1.0, 9.0], [2019, 2021], ["high", "high"])


def fit(events, schema=SCHEMA):
    return DomainTokenizer(schema, bpe_vocab_size=300).fit(events)


def test_a_tokenizer_equals_itself():
    found = diff_tokenizers(fit(FIRST), fit(FIRST))
    assert found.equal
    assert not any(one.changed for one in found.fields)
    assert found.pieces_added == found.pieces_removed == ()


def test_what_differs_between_two_fits(tmp_path):
    first, second = fit(FIRST), fit(SECOND)
    folders = [t.save_pretrained(tmp_path / n) for t, n in ((first, "a"), (second, "b"))]
    found = diff_tokenizers(*folders)
    kind, price, day, name = found.fields
    assert found.relation == "different"
    assert (kind.added, kind.removed) == (("[KIND=cake]",), ("[KIND=tea]",))
    assert "[KIND=mug]" not in kind.moved  # the seventh id in both
    assert price.edges_changed
    assert price.edges_after == tuple(second.fields[1].edges.tolist())
    assert day.changes == ("anchor: 2020 → 2019",)
    assert "high" in "".join(found.pieces_added)
    assert found.merges_kept == 0
    assert name.moved  # fewer bins before it
    assert found.to_json()["relation"] == "different"
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(found.render())
    assert "anchor: 2020 → 2019" in console.export_text()


def test_an_extension_is_told_from_both_sides():
    first = fit(FIRST)
    last = extend(extend(first, SECOND).tokenizer, SECOND.with_columns(kind=pl.lit("z"))).tokenizer
    found = diff_tokenizers(first, last)
    assert found.relation == "extension"
    assert not any(one.removed or one.moved for one in found.fields)
    assert found.fields[0].added == ("[KIND=cake]", "[KIND=z]")
    assert found.pieces_removed == ()
    back = diff_tokenizers(last, first)
    assert back.relation == "extended"
    assert back.fields[0].removed == found.fields[0].added


def test_fields_of_one_side_alone_and_changed_options():
    other = DomainSchema(
        "shop",
        [FieldSpec("kind", "categorical_fixed", hash_buckets=1), FieldSpec("tax", "sign")],
    )
    second = fit(FIRST.with_columns(tax=pl.lit(1.0)), other)
    by_name = {one.field: one for one in diff_tokenizers(fit(FIRST), second).fields}
    assert by_name["kind"].changes == ("hash_buckets: None → 1",)
    assert by_name["tax"].removed == ()
    assert len(by_name["tax"].added) == 3
    assert by_name["name"].added == ()
    assert len(by_name["name"].removed) == 2


def test_semantic_ids_differ_by_their_entities_not_by_their_tokens():
    spec = FieldSpec("item", "categorical_entity", semantic_levels=1, semantic_codes=4)
    codes = [{"cup": 1, "mug": 3}, {"mug": 2, "pan": 0, "pot": 2}]
    first, second = (
        DomainTokenizer(DomainSchema("s", [spec])).fit(
            pl.DataFrame({"item": list(known)}),
            semantic_ids={
                "item": SemanticIdTokenizer.of_codes(spec, list(known), list(known.values()))
            },
        )
        for known in codes
    )
    found = diff_tokenizers(first, second)
    assert found.relation == "different"
    assert found.fields[0].changes == (
        "new entities: 2",
        "entities gone: 1",
        "entities with other codes: 1",
    )
    assert found.fields[0].changed
