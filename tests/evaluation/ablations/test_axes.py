"""Each axis changes one thing, says so where it cannot, and an unknown one is refused."""

import pytest

from domainformer.config import build
from domainformer.errors import ConfigError
from domainformer.evaluation.ablations import AXES, Base, Skip, Variant
from domainformer.evaluation.ablations.variants import variants_of
from domainformer.schema import FINANCE_SCHEMA, DomainSchema, FieldSpec
from domainformer.training.config import RunConfig

ONE_KIND = DomainSchema("one", [FieldSpec("kind", "categorical_fixed")])
NO_TEXT = DomainSchema("two", [FieldSpec("kind", "sign"), FieldSpec("place", "sign")])
TIMED = DomainSchema(
    "timed",
    [FieldSpec("kind", "sign"), FieldSpec("at", "temporal", calendar_fields=(), elapsed_bins=5)],
)
SOURCES = DomainSchema(
    "bank",
    [FieldSpec("amount", "sign"), FieldSpec("screen", "text", max_tokens=3)],
    sources={"cards": {"fields": ["amount"]}, "app": {"fields": ["screen"]}},
)


def base_of(schema=FINANCE_SCHEMA, **values):
    return Base(build(RunConfig, {"data": {"time": "timestamp"}, **values}), schema)


def found(base, axis, values=None):
    return list(variants_of(base, axis, values))


def names(base, axis, values=None):
    return [one.name for one in found(base, axis, values) if isinstance(one, Variant)]


def fields(variant):
    return [spec.name for spec in variant.schema.fields]


@pytest.mark.parametrize("axis", AXES)
def test_a_variant_differs_from_the_base_and_from_the_others(axis):
    base = base_of(NO_TEXT if axis == "merges" else FINANCE_SCHEMA)
    definitions = [one.definition() for one in found(base, axis) if isinstance(one, Variant)]
    assert definitions
    assert all(definitions.count(one) == 1 for one in definitions)
    assert all(one["overrides"] or one["schema"] for one in definitions)
    changed = [one.schema for one in found(base, axis) if one.schema is not None]
    assert base.schema not in changed


def test_context_of_the_base_is_no_variant_and_an_event_must_fit():
    base = base_of(SOURCES, training={"context": 64})
    assert names(base, "context") == ["16", "32", "128"] or names(base, "context") == ["16", "128"]
    assert names(base, "context", [64, 256]) == ["256"]
    skipped = [one for one in found(base, "context", [5, 6]) if isinstance(one, Skip)]
    assert [one.why.split(" has")[0] for one in skipped] == ["context 5"]


def test_a_column_goes_with_all_fields_that_read_it():
    variants = {one.name: one for one in found(base_of(), "data")}
    assert "amount" in {spec.source for spec in FINANCE_SCHEMA.fields}
    without = variants["without amount"]
    assert {spec.source for spec in without.schema.fields} == {
        spec.source for spec in FINANCE_SCHEMA.fields
    } - {"amount"}


def test_the_only_column_cannot_be_left_out():
    [one] = found(base_of(ONE_KIND), "data")
    assert isinstance(one, Skip)
    assert "no field would be left of the schema" in one.why


def test_sources_are_hidden_or_given_budgets():
    variants = {
        one.name: one for one in found(base_of(SOURCES), "data") if isinstance(one, Variant)
    }
    assert variants["without app"].hidden == ("app",)
    assert fields(variants["without app"]) == ["amount"]
    shares = variants["equal token budgets"].schema.sources.values()
    assert [source.share for source in shares] == [0.5, 0.5]
    shared = variants["equal token budgets"].schema
    [back] = [one for one in found(base_of(shared), "data") if "budget" in getattr(one, "name", "")]
    assert back.name == "no token budgets"
    assert back.schema == SOURCES


def test_time_axes_switch_what_is_there():
    [off] = found(base_of(), "calendar")
    assert off.name == "off"
    assert all(
        not spec.calendar_fields or spec.field_type != "temporal" for spec in off.schema.fields
    )
    [on] = found(base_of(TIMED), "calendar")
    assert on.schema.field("at").calendar_fields == ("month", "dow", "dom", "hour")
    [without] = found(base_of(TIMED), "elapsed")
    assert fields(without) == ["kind"]


@pytest.mark.parametrize("axis", ["bins", "calendar", "elapsed", "text"])
def test_what_does_not_apply_is_told(axis):
    [one] = found(base_of(ONE_KIND), axis)
    assert isinstance(one, Skip)
    assert one.axis == axis
    assert one.why


def test_position_and_objective_leave_the_base_out():
    assert names(base_of(), "position") == ["learned", "rope"]
    rope = base_of(model={"overrides": {"position_encoding": "rope"}})
    assert names(rope, "position") == ["none", "learned"]
    assert "next_token + contrastive" in names(base_of(), "objective")
    assert "next_token" not in names(base_of(), "objective")


def test_merges_are_switched_where_they_can_be():
    [one] = found(base_of(), "merges")
    assert "is text" in one.why
    assert names(base_of(NO_TEXT), "merges", [90, 100]) == ["90", "100"]
    merged = {"tokenizer": {"merges": {"vocab_size": 90}}}
    assert names(base_of(NO_TEXT, **merged), "merges") == ["off"]
    told = [
        one.why for one in found(base_of(NO_TEXT, **merged), "objective") if isinstance(one, Skip)
    ]
    assert any("masked_field" in why for why in told)
    masked = base_of(NO_TEXT, training={"substitute_values": 0.1})
    assert "leave one of them out" in found(masked, "merges")[0].why


def test_an_axis_of_the_users_own():
    keys = {"model.overrides.dropout": [0.0, 0.1], "training.weight_decay": [0, 1]}
    variants = found(base_of(), "regularisation", keys)
    assert [one.overrides for one in variants] == [
        {"model.overrides.dropout": 0.0, "training.weight_decay": 0},
        {"model.overrides.dropout": 0.1, "training.weight_decay": 1},
    ]
    assert variants[1].name == "dropout=0.1, weight_decay=1"
    assert names(base_of(), "rate", {"training.learning_rate": [0.1]}) == ["0.1"]


@pytest.mark.parametrize(
    ("axis", "values", "hint"),
    [
        ("contxt", None, "did you mean 'context'"),
        ("text", [1], "takes no values"),
        ("own", {"a.b": [1], "c.d": [1, 2]}, "a.b has 1, c.d has 2"),
        ("own", {}, "no key"),
        ("data", ["amonut"], "did you mean 'amount'"),
    ],
)
def test_mistakes_are_refused(axis, values, hint):
    with pytest.raises(ConfigError, match=hint):
        found(base_of(), axis, values)
