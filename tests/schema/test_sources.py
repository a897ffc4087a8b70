import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.errors import SchemaError
from domainformer.schema import DomainSchema, FieldSpec, Source
from domainformer.schema.sources import least_tokens

FIELDS = [
    FieldSpec("time", "temporal", elapsed_bins=4),
    FieldSpec("amount", "numerical_continuous"),
    FieldSpec("shop", "text", optional=True),
    FieldSpec("screen", "categorical_fixed"),
]
SOURCES = {
    "cards": Source(["time", "amount", "shop"], max_tokens_per_event=9, share=0.5),
    "app": Source(["time", "screen"], share=0.25, description="visits"),
}


def schema(sources=SOURCES, **options):
    return DomainSchema("bank", FIELDS, sources=sources, **options)


@given(st.data())
@settings(deadline=None, max_examples=40, derandomize=True)
def test_yaml_round_trip(data):
    names = st.text(min_size=1, max_size=6).filter(str.strip)
    fields = [spec.name for spec in FIELDS]
    sources = {}
    for name in data.draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        sources[name] = {
            "fields": data.draw(st.permutations(fields)),
            "max_tokens_per_event": data.draw(st.none() | st.integers(20, 99)),
            "share": data.draw(st.none() | st.sampled_from([0.1, 1 / 3])),
        }
    one = schema(sources, source_column=data.draw(st.none() | st.sampled_from(["table", "kind"])))
    again = DomainSchema.from_yaml(one.to_yaml())
    assert again == one
    assert list(again.sources) == list(one.sources)
    assert again.fingerprint() == one.fingerprint()
    assert hash(again) == hash(one)


def test_the_fingerprint_knows_what_decides_tokens():
    assert schema().fingerprint() != DomainSchema("bank", FIELDS).fingerprint()
    reordered = {name: SOURCES[name] for name in reversed(SOURCES)}
    assert schema(reordered).fingerprint() != schema().fingerprint()
    assert schema(source_column="table").fingerprint() != schema().fingerprint()
    cards = SOURCES["cards"].model_dump()
    for change, same in (
        ({"share": None}, True),
        ({"description": "new"}, True),
        ({"max_tokens_per_event": 8}, False),
        ({"fields": ["amount", "time", "shop"]}, False),
    ):
        other = schema({**SOURCES, "cards": {**cards, **change}})
        assert (other.fingerprint() == schema().fingerprint()) == same


def test_without_sources_the_fingerprint_is_what_it_was():
    """Stores and models that exist must go on: this value was written before there were sources."""
    old = DomainSchema("s", [FieldSpec("amount", "sign"), FieldSpec("kind", "categorical_fixed")])
    assert old.fingerprint() == "13b70840914f25d3"
    assert "sources" not in old.to_yaml()
    assert "optional" not in old.to_yaml()


@pytest.mark.parametrize(
    ("sources", "messages"),
    [
        ({"cards": {"fields": ["tiem"]}}, ["no field 'tiem' (did you mean 'time'?)"]),
        ({"app": {"fields": ["screen"]}}, ["field 'time': no source uses it", "field 'amount'"]),
        ({"cards": {"fields": []}}, ["source 'cards': fields: a source needs at least one field"]),
        ({"cards": {"feilds": ["time"]}}, ["feilds: unknown key (did you mean 'fields'?)"]),
        ({"cards": {"fields": ["time", "time"]}}, ["'time' is named twice"]),
        ({"cards": ["time"]}, ["source 'cards': a mapping of options is expected"]),
        (["cards"], ["sources: a mapping of names to sources is expected"]),
        ({}, ["sources: there is none"]),
        ({" ": {"fields": ["time"]}}, ["a source needs a name"]),
        ({"cards": {"fields": ["time"], "share": 1.5}}, ["share: must be above 0"]),
        ({"cards": {"fields": ["time"], "share": 0}}, ["share: must be above 0"]),
        (
            {
                "cards": {"fields": ["time", "amount", "shop"], "share": 0.7},
                "app": {"fields": ["time", "screen"], "share": 0.4},
            },
            ["the sources' shares add up to 1.1"],
        ),
        (
            {
                "cards": {"fields": ["time", "amount", "shop"], "max_tokens_per_event": 6},
                "app": {"fields": ["screen"]},
            },
            ["source 'cards': max_tokens_per_event: its shortest event has 7 tokens (given: 6)"],
        ),
    ],
)
def test_wrong_sources_tell_everything_at_once(sources, messages):
    with pytest.raises(SchemaError, match="cannot be built") as caught:
        schema(sources)
    assert all(message in str(caught.value) for message in messages), caught.value


def test_a_field_that_could_own_the_token_of_a_source_is_told():
    fields = [FieldSpec("source", "categorical_fixed"), FieldSpec("amount", "sign")]
    assert DomainSchema("bank", fields).field("source").column is None
    with pytest.raises(SchemaError, match=r"'source' and the name of the source could both own"):
        DomainSchema("bank", fields, sources={"a": {"fields": ["source", "amount"]}})


def test_the_source_column_needs_sources():
    with pytest.raises(SchemaError, match="there are no sources that it could name"):
        DomainSchema("bank", FIELDS, source_column="table")


def test_the_first_field_of_a_plain_event_is_not_optional():
    optional = FieldSpec("a", "sign", optional=True)
    with pytest.raises(SchemaError, match="the first field cannot be optional"):
        DomainSchema("s", [optional, FieldSpec("b", "sign")])
    DomainSchema("s", [FieldSpec("b", "sign"), optional])
    DomainSchema("s", [optional], sources={"x": {"fields": ["a"]}})


def test_what_a_schema_says_of_its_sources():
    one = schema()
    assert one.columns == ("source", "time", "amount", "shop", "screen")
    assert [spec.name for spec in one.fields_of("app")] == ["time", "screen"]
    assert one.field("source").vocab_size == 2
    assert one.special_token_count == 2 + DomainSchema("b", FIELDS).special_token_count
    assert least_tokens(one.fields_of("cards")) == 7
    with pytest.raises(SchemaError, match="did you mean 'cards'"):
        one.fields_of("crads")
    with pytest.raises(SchemaError, match="all of one kind"):
        DomainSchema("b", FIELDS).fields_of("cards")


def test_check_tells_which_source_misses_a_column():
    types = {"source": pl.String, "time": pl.Date, "amount": pl.String, "screen": pl.String}
    with pytest.raises(SchemaError) as caught:
        schema().check(types)
    told = str(caught.value)
    assert "field 'amount' of cards: the column 'amount' is String" in told
    assert "field 'shop' of cards: there is no column 'shop'" in told
    assert "field 'screen'" not in told
    schema().check({"time": pl.Date, "screen": pl.String}, source="app")
    with pytest.raises(SchemaError, match="there is no column 'source'"):
        schema().check(
            {"time": pl.Date, "amount": pl.Float64, "shop": pl.String, "screen": pl.String}
        )
