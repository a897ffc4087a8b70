import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domainformer.config import StrictConfig
from domainformer.errors import SchemaError
from domainformer.schema import CALENDAR_PARTS, GENERIC_SPECIALS, FieldSpec, FieldType, fields

NAMES = st.text(min_size=1, max_size=12).filter(str.strip)
ALLOWED = {
    FieldType.NUMERICAL_CONTINUOUS: {"n_bins": 7},
    FieldType.NUMERICAL_DISCRETE: {"vocab_size": 7, "min_frequency": 2},
    FieldType.CATEGORICAL_FIXED: {"vocab_size": 7, "min_frequency": 2, "hash_buckets": 4},
    FieldType.CATEGORICAL_ENTITY: {"semantic_levels": 3, "semantic_codes": 16},
    FieldType.TEMPORAL: {"calendar_fields": ("year",), "elapsed_bins": 16, "year_anchor": 2020},
    FieldType.TEXT: {"max_tokens": 5},
    FieldType.SIGN: {},
}
LABELS = {"vocab_size": 7, "min_frequency": 2, "hash_buckets": 4}
OPTIONS = {key: value for options in ALLOWED.values() for key, value in options.items()}


def test_positionals_and_strings_build_the_same_field():
    spec = FieldSpec("amount", FieldType.SIGN, column="x", description="money")
    assert spec == FieldSpec(name="amount", field_type="sign", column="x", description="money")
    assert (spec.source, FieldSpec("amount", "sign").source) == ("x", "amount")


def test_a_field_is_frozen_hashable_and_survives_pickle():
    spec = FieldSpec("amount", "numerical_continuous", n_bins=5)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert len({spec, FieldSpec("amount", "numerical_continuous", n_bins=5)}) == 1
    with pytest.raises(ValidationError):
        spec.n_bins = 6


@pytest.mark.parametrize("kind", FieldType)
def test_options_of_the_type_are_taken_and_shown(kind):
    spec = FieldSpec("x", kind, **ALLOWED[kind])
    assert FieldSpec(**spec.options()) == spec
    assert set(spec.options()) == {"name", "field_type", *ALLOWED[kind]}


@pytest.mark.parametrize("kind", FieldType)
def test_options_of_other_types_are_refused_all_at_once(kind):
    own = {*ALLOWED[kind], *(LABELS if kind.is_categorical else ())}
    foreign = {key: value for key, value in OPTIONS.items() if key not in own}
    with pytest.raises(SchemaError) as caught:
        FieldSpec("x", kind, **foreign)
    assert all(f"{key}: does not belong" in str(caught.value) for key in foreign)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"field_type": "sgin"}, "did you mean 'sign'"),
        ({"field_type": "sign", "colum": "x"}, "did you mean 'column'"),
        ({"field_type": "sign", "name": "  "}, "a field needs a name"),
        ({"field_type": "sign", "column": ""}, "cannot be empty"),
        ({"field_type": "categorical_entity", "semantic_levels": 9}, "from 0 to 8"),
        ({"field_type": "categorical_entity", "semantic_codes": 16}, "without semantic_levels"),
        (
            {"field_type": "categorical_entity", "semantic_levels": 2, "hash_buckets": 4},
            "hash_buckets: a semantic id has no use for it",
        ),
        ({"field_type": "numerical_continuous", "n_bins": 1}, "from 2 to"),
        ({"field_type": "numerical_continuous", "n_bins": 5000}, "from 2 to"),
        ({"field_type": "numerical_continuous", "n_bins": "many"}, "n_bins: "),
        ({"field_type": "numerical_continuous", "binning": "fixed"}, "needs them"),
        ({"field_type": "numerical_continuous", "edges": [1, 2]}, "only binning 'fixed'"),
        ({"field_type": "numerical_continuous", "binning": "fixed", "edges": []}, "increasing"),
        ({"field_type": "numerical_continuous", "binning": "fixed", "edges": [0, 1]}, "positive"),
        ({"field_type": "numerical_continuous", "binning": "fixed", "edges": [2, 2]}, "increasing"),
        (
            {"field_type": "numerical_continuous", "binning": "fixed", "edges": [1], "n_bins": 9},
            "1 edges make 3 bins",
        ),
        (
            {
                "field_type": "numerical_continuous",
                "binning": "fixed",
                "edges": [1.0, float("inf")],
            },
            "finite",
        ),
        ({"field_type": "temporal", "calendar_fields": ["mnoth"]}, "did you mean 'month'"),
        ({"field_type": "temporal", "calendar_fields": ["dow", "dow"]}, "named twice"),
        ({"field_type": "temporal", "calendar_fields": []}, "needs elapsed_bins"),
        ({"field_type": "temporal", "elapsed_bins": 1}, "one bin is the zero bin"),
        ({"field_type": "temporal", "elapsed_bins": -2}, "elapsed_bins: must be from 0"),
        ({"field_type": "temporal", "year_anchor": 2020}, "does not contain 'year'"),
        ({"field_type": "categorical_fixed", "vocab_size": 0}, "at least 1"),
        ({"field_type": "categorical_fixed", "min_frequency": 0}, "at least 1"),
        ({"field_type": "categorical_fixed", "hash_buckets": -1}, "from 0 to"),
        ({"field_type": "text", "max_tokens": 0}, "from 1 to"),
    ],
)
def test_impossible_fields_are_refused(options, message):
    with pytest.raises(SchemaError, match="cannot be built|has errors") as caught:
        FieldSpec(**{"name": "amount", **options})
    assert message in str(caught.value)


def test_inside_another_configuration_the_message_survives():
    class Holder(StrictConfig):
        field: FieldSpec

    assert Holder(field={"name": "a", "field_type": "text"}).field == FieldSpec("a", "text")
    with pytest.raises(ValidationError, match="did you mean 'max_tokens'"):
        Holder(field={"name": "a", "field_type": "text", "max_token": 3})


def test_fixed_edges_decide_the_number_of_bins():
    spec = FieldSpec("x", "numerical_continuous", binning="fixed", edges=(1, 10, 100))
    assert spec.bin_count == 5
    assert FieldSpec("x", "numerical_continuous").bin_count == 21


@given(st.text(max_size=40))
def test_escaping_is_undone_and_leaves_nothing_dangerous(value):
    escaped = fields.escape_value(value)
    assert fields.unescape_value(escaped) == value
    assert not set(escaped) & set("[] \n\t")
    assert all(char.isprintable() for char in escaped)


@given(st.text(max_size=10), st.text(max_size=10))
def test_different_values_have_different_tokens(a, b):
    same = fields.category_token("kind", a) == fields.category_token("kind", b)
    assert same == (a == b)


@given(NAMES)
@settings(max_examples=50)
def test_all_tokens_of_a_field_differ_and_begin_with_its_stems(name):
    spec = FieldSpec(name, "temporal", calendar_fields=tuple(CALENDAR_PARTS), elapsed_bins=4)
    tokens = [t for part in CALENDAR_PARTS for t in fields.calendar_tokens(name, part)]
    tokens += [fields.calendar_missing_token(name, part) for part in CALENDAR_PARTS]
    tokens += [fields.elapsed_bin_token(name, i) for i in range(4)]
    tokens += [fields.elapsed_first_token(name), fields.elapsed_missing_token(name)]
    assert len(set(tokens)) == len(tokens)
    assert all(token.startswith(tuple(fields.token_stems(spec))) for token in tokens)
    assert not set(tokens) & set(GENERIC_SPECIALS)


def test_the_spelling_of_tokens():
    assert fields.sign_tokens("a b") == ("[A_B=NEG]", "[A_B=POS]")
    assert fields.bin_token("amount", 0) == "[AMOUNT=B00]"
    assert fields.bin_token("amount", 123) == "[AMOUNT=B123]"
    assert fields.discrete_token("n", -1) == "[N=-1]"
    assert fields.hash_token("kind", 7) == "[KIND_HASH=07]"
    assert fields.missing_token("kind") == "[KIND_MISSING]"
    assert fields.unknown_token("kind") == "[KIND_UNK]"
    assert fields.text_token("merchant") == "[MERCHANT]"
    assert fields.calendar_tokens("t", "hour")[0] == "[T_HOUR=00]"
    assert fields.calendar_tokens("t", "dow") == tuple(f"[T_DOW={d}]" for d in range(1, 8))
    assert fields.calendar_missing_token("timestamp", "month") == "[TIMESTAMP_MONTH_MISSING]"
    assert fields.elapsed_missing_token("timestamp") == "[TIMESTAMP_ELAPSED_MISSING]"


def test_calendar_parts_have_the_sizes_of_the_paper():
    sizes = {part.name: part.size for part in CALENDAR_PARTS.values()}
    assert sizes == {"month": 12, "dow": 7, "dom": 31, "hour": 24, "quarter": 4, "year": 10}
