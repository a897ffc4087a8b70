"""Semantic ids inside a DomainTokenizer: three equal paths, files, and what does not fit."""

import itertools

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainformer.data import EventTable
from domainformer.errors import TokenizerError
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, SemanticIdTokenizer
from domainformer.tokenizers.change import extend

CODES = 3
NAMES = ["a", "b c", "[PAD]", "[SHOP_1=00]", "50%", "é\u00a0x", "", "7"]
LOOK_ALIKES = ["[SHOP_1=00][SHOP_2=01]", "[SHOP_N=00]", "[SHOP_1_UNK]", "plain", ""]
SHOP = FieldSpec("shop", "categorical_entity", semantic_levels=2, semantic_codes=CODES)
SCHEMAS = [
    DomainSchema(
        "first", [SHOP, FieldSpec("kind", "categorical_fixed"), FieldSpec("note", "text")]
    ),
    DomainSchema("last", [FieldSpec("note", "text", max_tokens=3), SHOP]),
    DomainSchema("alone", [SHOP]),
]


@st.composite
def cases(draw):
    """A schema, semantic ids of some of the names, and events with any of them."""
    schema = draw(st.sampled_from(SCHEMAS))
    known = draw(st.lists(st.sampled_from(NAMES), unique=True, min_size=1))
    code = st.integers(0, CODES - 1)
    codes = draw(st.lists(st.tuples(code, code), min_size=len(known), max_size=len(known)))
    values = {
        "shop": st.none() | st.sampled_from(NAMES),
        "kind": st.none() | st.sampled_from(["x", "y"]),
        "note": st.none() | st.sampled_from(LOOK_ALIKES) | st.text(max_size=6),
    }
    rows = draw(st.integers(1, 6))
    data = {k: draw(st.lists(v, min_size=rows, max_size=rows)) for k, v in values.items()}
    frame = pl.DataFrame(data, schema=dict.fromkeys(data, pl.String))
    shops = SemanticIdTokenizer.of_codes(SHOP, known, codes)
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=270).fit(frame, semantic_ids={"shop": shops})
    return tokenizer, frame, dict(zip(known, codes, strict=True))


@settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(cases())
def test_columns_events_and_hugging_face_agree(case):
    tokenizer, frame, codes = case
    hugging_face = tokenizer.to_hf()
    encoded = tokenizer.encode(frame, compiled=False)
    np.testing.assert_array_equal(tokenizer.encode(frame).ids, encoded.ids)
    vocab = tokenizer.vocab
    spans = itertools.pairwise(encoded.event_offsets.tolist())
    for (start, stop), event in zip(spans, frame.iter_rows(named=True), strict=True):
        ids = encoded.ids[start:stop].tolist()
        tokens = [vocab[i] for i in ids]
        assert [t for t in tokens if t.startswith("[SHOP_")] == spelt(event["shop"], codes)
        assert tokenizer.encode_event(event) == ids
        assert tokenizer.tokenize_event(event) == tokens
        assert hugging_face.convert_tokens_to_ids(tokens) == ids
        assert hugging_face(tokenizer.render_event(event))["input_ids"] == ids
    expected = [shop if shop in codes else None for shop in frame["shop"].to_list()]
    assert tokenizer.decode(encoded.ids)["shop"].to_list() == expected


def spelt(shop, codes):
    if shop not in codes:
        end = "MISSING" if shop is None else "UNK"
        return [f"[SHOP_{position}_{end}]" for position in "12N"]
    first, second = codes[shop]
    group = sorted(name for name, own in codes.items() if own == codes[shop])
    return [f"[SHOP_1=0{first}]", f"[SHOP_2=0{second}]", f"[SHOP_N=0{group.index(shop)}]"]


# ── fitting and files ────────────────────────────────────────────────────────────────────────

PRODUCT = FieldSpec("product", "categorical_entity", semantic_levels=2, semantic_codes=8)
PRICED = DomainSchema("shop", [PRODUCT, FieldSpec("price", "numerical_continuous", n_bins=8)])


@pytest.fixture(scope="module")
def priced(items, events):
    frame = events.frame.join(items.select("product", "price"), on="product")
    return EventTable.of(frame, entity="user", time="at")


def test_codes_are_fitted_on_the_table_where_none_are_given(priced):
    tokenizer = DomainTokenizer(PRICED).fit(priced)
    again = DomainTokenizer(PRICED).fit(priced)
    assert tokenizer.fingerprint == again.fingerprint
    decoded = tokenizer.decode(tokenizer.encode(priced).ids)
    assert decoded["product"].to_list() == priced.frame["product"].to_list()
    # Like prices were to become like codes: within a group prices differ less than overall.
    first = tokenizer.encode(priced).ids.reshape(-1, 4)[:, 0]
    logs = np.log(priced.frame["price"].to_numpy())
    within = np.mean([logs[first == code].var() for code in np.unique(first)])
    assert within < logs.var() / 2


def test_a_saved_tokenizer_keeps_its_ids(priced, found, tmp_path):
    tokenizer = DomainTokenizer(PRICED).fit(priced, semantic_ids={"product": found.tokenizer})
    loaded = DomainTokenizer.from_pretrained(tokenizer.save_pretrained(tmp_path / "tokenizer"))
    assert loaded.fingerprint == tokenizer.fingerprint
    assert [slot.name for slot in loaded.slots] == [
        "product.code1",
        "product.code2",
        "product.number",
        "price",
    ]
    np.testing.assert_array_equal(loaded.encode(priced).ids, tokenizer.encode(priced).ids)
    other = SemanticIdTokenizer.of_codes(PRODUCT, ["a"], [[0, 0]])
    changed = DomainTokenizer(PRICED).fit(priced, semantic_ids={"product": other})
    assert changed.fingerprint != tokenizer.fingerprint


def test_parts_fitted_elsewhere_need_the_ids_given(priced, found):
    parts = DomainTokenizer(PRICED).partial_fit(priced)
    with pytest.raises(TokenizerError, match="fit_semantic_ids"):
        parts.finish()
    finished = parts.finish(semantic_ids={"product": found.tokenizer})
    whole = DomainTokenizer(PRICED).fit(priced, semantic_ids={"product": found.tokenizer})
    assert finished.fingerprint == whole.fingerprint


def test_collapse_in_a_fit_is_told(priced):
    spec = FieldSpec("product", "categorical_entity", semantic_levels=3)
    with pytest.raises(TokenizerError, match="few for 256 codes"):
        DomainTokenizer(DomainSchema("s", [spec])).fit(priced)


def test_ids_that_do_not_fit_the_schema_are_told(priced, found):
    def fit(**given):
        return DomainTokenizer(PRICED).fit(priced, semantic_ids=given)

    with pytest.raises(TokenizerError, match="did you mean 'product'"):
        fit(prodcut=found.tokenizer)
    with pytest.raises(TokenizerError, match="no field 'price' with semantic ids"):
        fit(price=found.tokenizer)
    with pytest.raises(TokenizerError, match=r"pass the \.tokenizer"):
        fit(product=found)
    three = FieldSpec("product", "categorical_entity", semantic_levels=3, semantic_codes=8)
    with pytest.raises(TokenizerError, match="2 levels of 8 codes, they were fitted with 3"):
        fit(product=SemanticIdTokenizer.of_codes(three, ["a"], [[0, 0, 0]]))
    with pytest.raises(TokenizerError, match="not fitted"):
        fit(product=SemanticIdTokenizer(PRODUCT))


def test_ids_serve_a_field_of_another_name(priced, found):
    spec = FieldSpec(
        "thing", "categorical_entity", column="product", semantic_levels=2, semantic_codes=8
    )
    tokenizer = DomainTokenizer(DomainSchema("s", [spec])).fit(
        priced, semantic_ids={"thing": found.tokenizer}
    )
    assert tokenizer.tokenize_event({"product": "p0001"})[0].startswith("[THING_1=0")
    assert tokenizer.decode(tokenizer.encode_event({"product": "p0001"}))["product"][0] == "p0001"


def test_an_extension_takes_new_entities_and_moves_no_id(priced, items, found):
    tokenizer = DomainTokenizer(PRICED).fit(priced, semantic_ids={"product": found.tokenizer})
    twins = items[:20].with_columns(product="new " + pl.col("product"))
    grown = found.tokenizer.with_entities(twins)
    extended = extend(tokenizer, priced, semantic_ids={"product": grown}).tokenizer
    assert extended.vocab == tokenizer.vocab
    np.testing.assert_array_equal(extended.encode(priced).ids, tokenizer.encode(priced).ids)
    event = {"product": "new p0003", "price": 1.0}
    assert extended.decode(extended.encode_event(event))["product"].to_list() == ["new p0003"]
    assert tokenizer.decode(tokenizer.encode_event(event))["product"].to_list() == [None]
