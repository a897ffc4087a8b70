"""Generation with semantic ids: what is written always is an entity, because the trie says so."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data.table import EventTable
from domainformer.errors import TokenizerError
from domainformer.inference import Bundle, GrammarState, SlotGrammar, generate
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, SemanticIdTokenizer

ENTITIES = [f"p{index}" for index in range(12)]
PRODUCT = FieldSpec("product", "categorical_entity", semantic_levels=3, semantic_codes=8)
KIND = FieldSpec("kind", "categorical_fixed")
NOTE = FieldSpec("note", "text", max_tokens=2)


def make_table():
    random = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "who": np.repeat(np.arange(8), 5),
            "product": random.choice([*ENTITIES, "never given codes"], 40),
            "kind": random.choice(["a", "b"], 40),
            "note": random.choice(["corner", "shop", ""], 40),
        }
    ).with_columns(product=pl.when(pl.int_range(40) % 9 == 0).then(None).otherwise("product"))
    return EventTable.of(frame, entity="who")


TABLE = make_table()


def tokenizer_of(*fields):
    codes = np.random.default_rng(1).integers(8, size=(len(ENTITIES), 3))
    codes[1] = codes[0]
    ids = SemanticIdTokenizer.of_codes(PRODUCT, ENTITIES, codes)
    schema = DomainSchema("shop", list(fields))
    tokenizer = DomainTokenizer(schema, bpe_vocab_size=260)
    return tokenizer.fit(TABLE, semantic_ids={"product": ids})


ORDERS = [(PRODUCT,), (KIND, PRODUCT), (PRODUCT, KIND), (NOTE, PRODUCT), (PRODUCT, NOTE)]


def random_walks(grammar, rows, steps, seed):
    """Whatever the grammar allows, each row at its own pace; begun events are closed."""
    random = np.random.default_rng(seed)
    state = GrammarState(grammar, rows, np.concatenate([grammar.unknown, grammar.first]))
    written = [[] for _ in range(rows)]
    for _ in range(steps):
        ids = np.array([random.choice(np.flatnonzero(row)) for row in state.allowed()])
        moving = random.random(rows) < 0.8
        state.advance(ids, moving)
        for row in np.flatnonzero(moving):
            written[row].append(int(ids[row]))
    while (begun := ~state.between_events()).any():
        ids = np.array([random.choice(np.flatnonzero(row)) for row in state.allowed()])
        state.advance(ids, begun)
        for row in np.flatnonzero(begun):
            written[row].append(int(ids[row]))
    return written


@pytest.mark.parametrize("order", ORDERS)
def test_every_id_that_the_grammar_allows_exists(order):
    tokenizer = tokenizer_of(*order)
    for written in random_walks(SlotGrammar.of(tokenizer), 6, 60, 0):
        products = tokenizer.decode(written)["product"].to_list()
        missing = sum("_1_MISSING" in tokenizer.vocab[i] for i in written)
        assert products.count(None) == missing
        assert set(products) <= {*ENTITIES, None}


def test_without_the_trie_ids_appear_that_do_not_exist():
    """The sabotage twin of the test above."""
    tokenizer = tokenizer_of(KIND, PRODUCT)
    grammar = replace(SlotGrammar.of(tokenizer), existing=None)
    written = random_walks(grammar, 6, 60, 0)
    products = [p for ids in written for p in tokenizer.decode(ids)["product"].to_list()]
    assert products.count(None) > len(products) / 2


@pytest.mark.parametrize("order", ORDERS)
def test_encoded_histories_obey_the_grammar(order):
    """Missing and unknown entities, too."""
    tokenizer = tokenizer_of(*order)
    state = GrammarState(SlotGrammar.of(tokenizer), 1)
    for token in tokenizer.encode(TABLE).ids.astype(np.int64):
        assert state.allowed()[0, token]
        state.advance(np.array([token]))
    assert state.events[0] == TABLE.n_events


def test_every_entity_can_be_written():
    tokenizer = tokenizer_of(PRODUCT)
    reached = set()
    for written in random_walks(SlotGrammar.of(tokenizer), 20, 200, 3):
        reached |= set(tokenizer.decode(written)["product"].to_list())
    assert reached == {*ENTITIES, None}


def test_ids_that_do_not_exist_are_refused():
    tokenizer = tokenizer_of(KIND, PRODUCT)
    state = GrammarState(SlotGrammar.of(tokenizer), 1)
    kind, first, second, *_ = tokenizer.encode_event({"kind": "a", "product": "p3"})
    other = tokenizer.slots[2].ids[~state_allows(tokenizer, [kind, first])[tokenizer.slots[2].ids]]
    for token in (kind, first):
        state.advance(np.array([token]))
    with pytest.raises(TokenizerError, match="no entity's id goes on like that"):
        state.advance(other[:1])
    state.advance(np.array([second]))


def state_allows(tokenizer, ids):
    state = GrammarState(SlotGrammar.of(tokenizer), 1)
    for token in ids:
        state.advance(np.array([token]))
    return state.allowed()[0]


def bundle_of(tokenizer):
    torch.manual_seed(0)
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,
    )
    model = DomainTransformerForCausalLM(config).eval()
    return Bundle(model, tokenizer, tokenizer.schema)


@pytest.mark.parametrize("order", [(KIND, PRODUCT), (PRODUCT, NOTE)])
def test_a_model_generates_entities_that_exist(order, monkeypatch):
    tokenizer = tokenizer_of(*order)
    bundle = bundle_of(tokenizer)
    found = generate(bundle, TABLE, n_events=12, n_samples=2, temperature=3.0)
    entities = found["product"].drop_nulls()
    assert set(entities) <= set(ENTITIES)
    assert entities.n_unique() > 3
    # The twin: the same model without the trie writes ids that no entity has.
    whole = SlotGrammar.of
    monkeypatch.setattr(
        SlotGrammar, "of", classmethod(lambda cls, t: replace(whole(t), existing=None))
    )
    free = generate(bundle, TABLE, n_events=12, n_samples=2, temperature=3.0)
    assert free["product"].null_count() > found["product"].null_count() + free.height / 4
