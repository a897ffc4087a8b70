import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.config import StrictConfig, build
from domainformer.errors import ConfigError, SchemaError
from domainformer.schema import CALENDAR_PARTS, PRESETS, DomainSchema, FieldSpec, FieldType


@st.composite
def specs(draw, name):
    kind = draw(st.sampled_from(FieldType))
    options = {}
    if kind is FieldType.TEMPORAL:
        parts = st.lists(st.sampled_from(list(CALENDAR_PARTS)), unique=True, min_size=1)
        options = {"calendar_fields": draw(parts), "elapsed_bins": draw(st.sampled_from([0, 8]))}
    elif kind is FieldType.NUMERICAL_CONTINUOUS:
        options = {"n_bins": draw(st.integers(2, 99)), "binning": draw(st.sampled_from(["log"]))}
    elif kind.is_categorical:
        options = {"vocab_size": draw(st.none() | st.integers(1, 99))}
    column = draw(st.none() | st.text(min_size=1, max_size=8))
    return FieldSpec(name, kind, column=column, description=draw(st.text(max_size=20)), **options)


@st.composite
def schemas(draw):
    count = draw(st.integers(1, 6))
    # Numbered names: the random part (any script, blanks, quotes) cannot make two of them equal.
    names = [f"f{i}{draw(st.text(max_size=6))}{i}" for i in range(count)]
    return DomainSchema(
        draw(st.text(min_size=1).filter(str.strip)), [draw(specs(n)) for n in names]
    )


@given(schemas())
@settings(deadline=None, max_examples=30)
def test_yaml_round_trip(schema):
    again = DomainSchema.from_yaml(schema.to_yaml())
    assert again == schema
    assert again.fingerprint() == schema.fingerprint()


@given(schemas())
@settings(deadline=None, max_examples=20)
def test_the_count_is_the_sum_of_its_parts(schema):
    alone = [DomainSchema("one", [spec]).special_token_count for spec in schema.fields]
    assert schema.special_token_count == sum(alone)


def test_yaml_file_round_trip(tmp_path):
    path = tmp_path / "schema.yaml"
    text = PRESETS["finance"].to_yaml(path)
    assert path.read_text() == text
    assert DomainSchema.from_yaml(path) == DomainSchema.from_yaml(str(path)) == PRESETS["finance"]


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("name: x\nfeilds: []\n", ["feilds: unknown key (did you mean 'fields'?)", "at least one"]),
        ("fields:\n- {name: a, field_type: text}\n", ["a schema needs a name"]),
        ("name: x\nfields: 3\n", ["a list of fields is expected"]),
        ("name: x\nfields: [3]\n", ["a mapping of options is expected"]),
        (
            "name: x\nfields:\n- {name: a, field_type: txet}\n"
            "- {name: b, field_type: sign, n: 1}\n",
            ["field 'a'", "did you mean 'text'", "field 'b'", "n: unknown key"],
        ),
        ("name: x\nfields:\n- {field_type: text}\n", ["a field needs a name"]),
    ],
)
def test_wrong_yaml_tells_everything_at_once(text, messages):
    with pytest.raises(SchemaError, match="cannot be read") as caught:
        DomainSchema.from_yaml(text)
    assert all(message in str(caught.value) for message in messages)


def test_a_missing_file_and_broken_yaml_are_told(tmp_path):
    with pytest.raises(ConfigError, match="no file"):
        DomainSchema.from_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        DomainSchema.from_yaml("name: [\n")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([("a", "text"), ("a", "sign")], "2 fields are called 'a'"),
        ([("Amount", "sign"), ("amount", "text")], "spell their tokens alike"),
        ([("a b", "sign"), ("A-B", "text")], r"[A_B…]"),
        ([("t", "temporal"), ("t_month", "categorical_fixed")], "[T_MONTH=…]"),
        ([("a_missing", "text"), ("a", "sign")], "[A_MISSING]"),
        ([("a_unk", "text"), ("a", "categorical_entity")], "[A_UNK]"),
        ([("pad", "text")], "[PAD]"),
        ([("Unk", "text")], "[UNK]"),
        ([], "at least one field"),
    ],
)
def test_duplicates_and_collisions_are_refused(fields, message):
    with pytest.raises(SchemaError, match="cannot be built") as caught:
        DomainSchema("x", [FieldSpec(*field) for field in fields])
    assert message in str(caught.value)


def test_hash_buckets_collide_only_where_they_exist():
    pair = [FieldSpec("a", "categorical_fixed"), FieldSpec("a_hash", "categorical_fixed")]
    DomainSchema("x", pair)
    with pytest.raises(SchemaError, match="could both own"):
        DomainSchema("x", [FieldSpec("a", "categorical_fixed", hash_buckets=4), pair[1]])


def test_harmless_neighbours_are_allowed():
    DomainSchema("x", [FieldSpec("a", "text"), FieldSpec("b", "text"), FieldSpec("pad", "sign")])


def test_names_and_fields_of_the_wrong_type():
    for name, fields in (
        ("", [FieldSpec("a", "text")]),
        (3, [FieldSpec("a", "text")]),
        ("x", "ab"),
    ):
        with pytest.raises(SchemaError):
            DomainSchema(name, fields)


def test_inside_another_configuration():
    class Holder(StrictConfig):
        schema_: DomainSchema | None = None

    plain = {"name": "x", "fields": [{"name": "a", "field_type": "text"}]}
    held = build(Holder, {"schema_": plain}).schema_
    assert held == DomainSchema("x", [FieldSpec("a", "text")])
    with pytest.raises(ConfigError, match="did you mean 'fields'"):
        build(Holder, {"schema_": {**plain, "field": 1}})


def test_field_by_name():
    schema = PRESETS["finance"]
    assert schema.field("amount").field_type is FieldType.NUMERICAL_CONTINUOUS
    with pytest.raises(SchemaError, match="did you mean 'amount'"):
        schema.field("amonut")


def test_fingerprint_follows_what_decides_tokens():
    base = DomainSchema("x", [FieldSpec("a", "numerical_continuous")])
    noted = DomainSchema("y", [FieldSpec("a", "numerical_continuous", description="money")])
    finer = DomainSchema("x", [FieldSpec("a", "numerical_continuous", n_bins=22)])
    turned = DomainSchema("x", [FieldSpec("b", "sign"), FieldSpec("a", "numerical_continuous")])
    straight = DomainSchema("x", tuple(reversed(turned.fields)))
    assert base.fingerprint() == noted.fingerprint()
    assert len({s.fingerprint() for s in (base, finer, turned, straight)}) == 4


def test_check_tells_all_missing_columns_and_wrong_types():
    schema = DomainSchema(
        "x",
        [
            FieldSpec("amount", "numerical_continuous"),
            FieldSpec("when", "temporal"),
            FieldSpec("note", "text"),
            FieldSpec("kind", "categorical_fixed"),
            FieldSpec("n", "numerical_discrete"),
        ],
    )
    good = pl.DataFrame({"amount": [1.0], "note": ["a"], "kind": [True], "n": [1]}).with_columns(
        when=pl.date(2024, 1, 1)
    )
    for table in (good, good.lazy(), good.columns, dict(good.schema)):
        schema.check(table)
    schema.check(good.with_columns(note=None, when=None))
    bad = good.select(
        amonut="amount", when="amount", note="amount", kind=pl.concat_list("n"), n="note"
    )
    with pytest.raises(SchemaError) as caught:
        schema.check(bad)
    message = str(caught.value)
    for told in ("did you mean 'amonut'", "a date or a datetime", "strings", "whole numbers"):
        assert told in message
    with pytest.raises(SchemaError, match="no columns"):
        schema.check([])


def test_check_takes_integer_times_only_without_calendar():
    table = pl.DataFrame({"t": [1, 2]})
    DomainSchema("x", [FieldSpec("t", "temporal", calendar_fields=(), elapsed_bins=8)]).check(table)
    with pytest.raises(SchemaError, match="a date or a datetime"):
        DomainSchema("x", [FieldSpec("t", "temporal")]).check(table)


def test_yaml_keeps_the_line_breaks_of_unicode():
    spec = FieldSpec("a\x85b\u2028c", "text", description="é")
    assert DomainSchema.from_yaml(DomainSchema("x", [spec]).to_yaml()).fields == (spec,)
