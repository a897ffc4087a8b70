import json
import pickle

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data import EventTable
from domainformer.errors import DataError, TokenizerError
from domainformer.schema import FieldSpec
from domainformer.tokenizers import SemanticIdTokenizer, fit_semantic_ids
from domainformer.tokenizers.fields import field_tokenizers, restore

SPEC = FieldSpec("product", "categorical_entity", semantic_levels=2, semantic_codes=8)
TWO = FieldSpec("product", "categorical_entity", semantic_levels=2, semantic_codes=3)
NAMES = st.one_of(
    st.sampled_from(["", " ", "[PAD]", "[PRODUCT_1=00]", "50%", "é\u00a0x", "\x00", "3", "-0"]),
    st.text(max_size=6),
)


@st.composite
def fitted(draw):
    names = draw(st.lists(NAMES, unique=True, max_size=12))
    codes = draw(
        st.lists(st.tuples(*[st.integers(0, 2)] * 2), min_size=len(names), max_size=len(names))
    )
    return SemanticIdTokenizer.of_codes(TWO, names, codes), dict(zip(names, codes, strict=True))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(fitted(), st.lists(st.none() | NAMES, min_size=1, max_size=8))
def test_ids_are_codes_and_number_and_decode_exactly(case, values):
    tokenizer, codes = case
    column = pl.Series("product", values, dtype=pl.String)
    ids = tokenizer.encode(column)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids).to_list() == [v if v in codes else None for v in values]
    groups = {}
    for name in sorted(codes):
        groups.setdefault(codes[name], []).append(name)
    for value, row in zip(values, ids.tolist(), strict=True):
        tokens = [tokenizer.vocab[i] for i in row]
        assert tuple(row) == tokenizer.encode_one(value)
        if value is None:
            assert tokens == ["[PRODUCT_1_MISSING]", "[PRODUCT_2_MISSING]", "[PRODUCT_N_MISSING]"]
        elif value not in codes:
            assert tokens == ["[PRODUCT_1_UNK]", "[PRODUCT_2_UNK]", "[PRODUCT_N_UNK]"]
        else:
            first, second = codes[value]
            number = groups[first, second].index(value)
            expected = [f"[PRODUCT_1=0{first}]", f"[PRODUCT_2=0{second}]", f"[PRODUCT_N=0{number}]"]
            assert tokens == [
                *expected[:2],
                expected[2] if number < 10 else f"[PRODUCT_N={number}]",
            ]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(fitted())
def test_state_round_trip_and_the_order_of_entities_does_not_matter(case):
    tokenizer, codes = case
    state = json.loads(json.dumps(tokenizer.state()))
    again = restore(TWO, state)
    backwards = SemanticIdTokenizer.of_codes(TWO, list(codes)[::-1], list(codes.values())[::-1])
    for other in (again, backwards, pickle.loads(pickle.dumps(tokenizer))):
        assert other.vocab == tokenizer.vocab
        assert other.state() == tokenizer.state()
        np.testing.assert_array_equal(other.ids, tokenizer.ids)


def test_slots_and_descriptions():
    tokenizer = SemanticIdTokenizer.of_codes(TWO, ["a", "b", "c"], [[0, 1], [0, 1], [2, 1]])
    assert [tuple(slot) for slot in tokenizer.slots] == [
        ("code1", 0, 5),
        ("code2", 5, 10),
        ("number", 10, 20),
    ]
    assert tokenizer.describe(0) == {
        "token": "[PRODUCT_1_MISSING]",
        "kind": "missing",
        "part": "code1",
    }
    assert tokenizer.describe(6)["kind"] == "unknown"
    assert tokenizer.describe(2) == {
        "token": "[PRODUCT_1=00]",
        "kind": "code",
        "part": "code1",
        "entities": 2,
        "examples": ["a", "b"],
        "meaning": "2 entities: a, b",
    }
    assert tokenizer.describe(3)["meaning"] == "no entity yet"
    assert tokenizer.describe(13)["meaning"] == "number 1 among those with the same codes"
    assert tokenizer.describe(13)["examples"] == ["b"]
    with pytest.raises(TokenizerError, match="no local id 20"):
        tokenizer.describe(20)


def test_values_of_any_type_are_compared_by_their_text():
    tokenizer = SemanticIdTokenizer.of_codes(TWO, [3, 4.0, "x"], [[0, 0], [1, 1], [2, 2]])
    assert tokenizer.entities == ["3", "4", "x"]
    expected = tokenizer.encode(pl.Series(["3", "4"])).tolist()
    for values in ([3, 4], [3.0, 4.0]):
        assert tokenizer.encode(pl.Series(values)).tolist() == expected
    assert tokenizer.encode_one(float("nan")) == tokenizer.encode_one(None)


def test_ids_that_no_entity_has_decode_to_null():
    tokenizer = SemanticIdTokenizer.of_codes(TWO, ["a"], [[0, 1]])
    real = tokenizer.encode_one("a")
    wrong = [(real[0] + 1, *real[1:]), (real[0], real[1], real[2] + 1), (0, 6, real[2])]
    assert tokenizer.decode([real, *wrong]).to_list() == ["a", None, None, None]
    with pytest.raises(TokenizerError, match="does not belong there"):
        tokenizer.decode([[5, 5, 10]])


def test_fields_with_levels_get_this_tokenizer_and_names_alone_do_not_fit_it():
    (tokenizer,) = field_tokenizers(SPEC)
    assert isinstance(tokenizer, SemanticIdTokenizer)
    with pytest.raises(TokenizerError, match="not fitted"):
        tokenizer.encode(pl.Series(["a"]))
    with pytest.raises(TokenizerError, match="fit_semantic_ids"):
        tokenizer.fit(pl.Series(["a"]))
    with pytest.raises(TokenizerError, match="no semantic levels"):
        SemanticIdTokenizer(FieldSpec("p", "categorical_entity"))


@pytest.mark.parametrize(
    ("names", "codes", "message"),
    [
        (["a", "a"], [[0, 0], [0, 0]], "2 entities, 1 distinct"),
        ([3, "3"], [[0, 0], [0, 0]], "2 entities, 1 distinct"),
        (["a", None], [[0, 0], [0, 0]], "2 entities, 1 distinct"),
        (["a"], [[0, 0], [0, 0]], "1 entities, 1 distinct, 2 codes"),
        (["a"], [[0, 3]], "from 0 to 2"),
        (["a"], [[-1, 0]], "from 0 to 2"),
    ],
)
def test_codes_that_do_not_fit_are_told(names, codes, message):
    with pytest.raises(DataError, match=message):
        SemanticIdTokenizer.of_codes(TWO, names, codes)


# ── new entities ─────────────────────────────────────────────────────────────────────────────


def test_new_entities_get_the_codes_of_their_like(items, found):
    tokenizer = found.tokenizer
    twins = items.with_columns(product="twin of " + pl.col("product"))[:40]
    grown = tokenizer.with_entities(twins)
    assert grown.vocab == tokenizer.vocab
    old = items["product"]
    np.testing.assert_array_equal(grown.encode(old), tokenizer.encode(old))
    new = grown.encode(twins["product"])
    assert len(np.unique(new, axis=0)) == 40
    assert grown.decode(new).to_list() == twins["product"].to_list()
    model = tokenizer.model
    vectors = model.features.read(twins)
    same = (
        grown.ids[[grown.entities.index(n) for n in twins["product"]], :2]
        == model.quantizer.codes(vectors)
    ).all(axis=1)
    assert same.mean() > 0.8  # full groups send the others on
    assert (tokenizer.encode(twins["product"]) == tokenizer.encode_one("never seen")).all()


def test_new_entities_do_not_depend_on_the_order_of_rows(items, found):
    twins = items.with_columns(product="twin of " + pl.col("product"))[:40]
    first = found.tokenizer.with_entities(twins)
    assert first.state() == found.tokenizer.with_entities(twins[::-1]).state()
    assert first.with_entities(twins) is first


def test_new_entities_of_a_path_and_of_events(items, found, tmp_path):
    twins = items.with_columns(product="twin of " + pl.col("product"))[:5]
    twins.write_parquet(tmp_path / "new.parquet")
    grown = found.tokenizer.with_entities(tmp_path / "new.parquet")
    assert grown.state() == found.tokenizer.with_entities(twins).state()
    rows = {"who": [i // 4 for i in range(160)], "product": [f"p{i % 40:02d}" for i in range(160)]}
    frame = pl.DataFrame({**rows, "price": [float(i % 40) for i in range(160)]})
    events = EventTable.of(frame, entity="who")
    of_events = fit_semantic_ids(events, TWO, method="kmeans").tokenizer
    later = frame.with_columns(product=pl.col("product").replace("p39", "new"))
    grown = of_events.with_entities(EventTable.of(later, entity="who"))
    assert set(grown.entities) - set(of_events.entities) == {"new"}
    assert grown.decode(grown.encode(later["product"])).to_list() == later["product"].to_list()


def test_new_entities_need_a_model_and_their_columns(items, found):
    bare = SemanticIdTokenizer.from_state(SPEC, found.tokenizer.state())
    with pytest.raises(TokenizerError, match=r"SemanticIdTokenizer\.load"):
        bare.with_entities(items)
    with pytest.raises(DataError, match="no column 'price'"):
        found.tokenizer.with_entities(
            pl.DataFrame({"product": ["new"], "title": ["x"], "tags": [["a"]]})
        )
    with pytest.raises(DataError, match="no column 'product'"):
        found.tokenizer.with_entities(items.rename({"product": "item"}))
