"""Beams over item tokens: as wide as the catalogue they are brute force, and always real items."""

import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data import EventTable
from domainformer.errors import DataError, InputError
from domainformer.inference import Bundle
from domainformer.inference.recommend import ItemPaths, recommend
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, SemanticIdTokenizer

ITEMS = [f"p{index}" for index in range(14)]
SEMANTIC = FieldSpec("product", "categorical_entity", semantic_levels=2, semantic_codes=4)
PLAIN = FieldSpec("product", "categorical_fixed", hash_buckets=2)
KIND = FieldSpec("kind", "categorical_fixed")


def make_table():
    random = np.random.default_rng(0)
    lengths = [1, 4, 2, 9, 6]
    rows = sum(lengths)
    frame = pl.DataFrame(
        {
            "who": np.repeat(["a", "b", "c", "d", "e"], lengths),
            "product": [*ITEMS, *random.choice(ITEMS, rows - len(ITEMS))],
            "kind": random.choice(["x", "y"], rows),
        }
    )
    return EventTable.of(frame, entity="who")


TABLE = make_table()
module = sys.modules[recommend.__module__]  # the package gives the function by this name


def make_bundle(*fields, context=24, seed=0, **more):
    schema = DomainSchema("shop", list(fields))
    codes = np.random.default_rng(3).integers(4, size=(len(ITEMS), 2))
    codes[1] = codes[0]  # a collision, which the number tells apart
    given = {"product": SemanticIdTokenizer.of_codes(SEMANTIC, ITEMS, codes)}
    semantic = {"semantic_ids": given} if SEMANTIC in fields else {}
    tokenizer = DomainTokenizer(schema).fit(TABLE, **semantic)
    torch.manual_seed(seed)
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        initializer_range=0.6,
        **more,
    )
    model = DomainTransformerForCausalLM(config).eval()
    return Bundle(model, tokenizer, schema, {"context": context})


@torch.no_grad()
def brute_force(bundle, table):
    """Every item's tokens behind every history, one forward pass each."""
    paths = ItemPaths.of(bundle, "product")
    events = bundle.tokenizer.encode(table)
    rows = []
    for index, name in enumerate(events.entity_ids):
        history = events.history(index)
        room = bundle.context - len(paths.slots)
        keep = next(s for s in history.event_offsets if history.event_offsets[-1] - s <= room)
        past = [bundle.tokenizer.bos_id, *np.asarray(history.ids)[keep:].tolist()]
        for row, item in enumerate(paths.names):
            tokens = paths.tokens(row)
            logits = bundle.model(input_ids=torch.tensor([past + tokens[:-1]])).logits[0].double()
            each = logits.log_softmax(-1)[len(past) - 1 :]
            rows.append((name, item, sum(each[i, t].item() for i, t in enumerate(tokens))))
    frame = pl.DataFrame(rows, schema=["who", "product", "score"], orient="row")
    return frame.sort("who", "score", descending=[False, True])


VARIANTS = {
    "semantic": ((SEMANTIC, KIND), {}),
    "semantic alone, learned positions": ((SEMANTIC,), {"position_encoding": "learned"}),
    "semantic, copying": ((SEMANTIC, KIND), {"copy_heads": 1, "copy_width": 8}),
    "plain ids, rope": ((PLAIN, KIND), {"position_encoding": "rope"}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_beam_as_wide_as_the_catalogue_is_brute_force(variant):
    fields, more = VARIANTS[variant]
    bundle = make_bundle(*fields, **more)
    found = recommend(bundle, TABLE, len(ITEMS), field="product", beam=len(ITEMS), batch_tokens=700)
    oracle = brute_force(bundle, TABLE)
    assert found["who"].to_list() == oracle["who"].to_list()
    assert found["product"].to_list() == oracle["product"].to_list()
    assert np.allclose(found["log_probability"], oracle["score"], atol=1e-4)
    assert found["rank"].to_list() == list(range(1, len(ITEMS) + 1)) * 5


def test_a_narrow_beam_finds_existing_items_with_their_own_probabilities():
    bundle = make_bundle(SEMANTIC, KIND)
    found = recommend(bundle, TABLE, 2, beam=2)
    assert found.height == 10
    assert set(found["product"]) <= set(ITEMS)
    oracle = brute_force(bundle, TABLE)
    joined = found.join(oracle, on=["who", "product"], how="inner")
    assert joined.height == found.height
    assert np.allclose(joined["log_probability"], joined["score"], atol=1e-4)


def test_without_the_trie_beams_end_at_no_item(monkeypatch):
    """The sabotage twin: all labels allowed, so the best path is often an id that nobody has."""
    bundle = make_bundle(SEMANTIC, KIND)
    paths = ItemPaths.of(bundle)

    def everything(self, depth, nodes):
        return np.ones((len(nodes), self.labels[depth]), np.bool_)

    monkeypatch.setattr(type(paths.trie), "allowed", everything)
    found = recommend(bundle, TABLE, 5, beam=5)
    assert found.height < 25


def test_the_context_keeps_the_newest_events():
    short = make_bundle(SEMANTIC, KIND, context=12)
    found = recommend(short, TABLE, len(ITEMS), beam=len(ITEMS))
    assert np.allclose(found["log_probability"], brute_force(short, TABLE)["score"], atol=1e-4)


def test_a_step_never_holds_more_chances_than_allowed(monkeypatch):
    """Many short histories would fit into ``batch_tokens``; a large vocabulary must not."""
    bundle = make_bundle(SEMANTIC, KIND)
    whole = recommend(bundle, TABLE, 3, beam=4)
    monkeypatch.setattr(module, "_MOST_CHANCES", 4 * bundle.tokenizer.vocab_size)
    batches = []
    run = module._BeamSearch.run
    monkeypatch.setattr(
        module._BeamSearch, "run", lambda self, rows: batches.append(len(rows)) or run(self, rows)
    )
    found = recommend(bundle, TABLE, 3, beam=4)
    assert batches == [1] * 5
    assert found["product"].equals(whole["product"])


def test_what_cannot_be_answered_is_refused():
    bundle = make_bundle(KIND, SEMANTIC)
    nobody = replace(
        bundle.tokenizer.encode(TABLE),
        event_offsets=np.zeros(1, np.int64),
        entity_offsets=np.zeros(1, np.int64),
        entity_ids=pl.Series([], dtype=pl.String),
        ids=np.empty(0, np.uint8),
        times=np.empty(0, np.int64),
    )
    with pytest.raises(DataError, match="no entities"):
        recommend(make_bundle(KIND, SEMANTIC), nobody, 1)
    with pytest.raises(DataError, match="do not begin with the field 'product'"):
        recommend(bundle, TABLE, field="product")
    with pytest.raises(InputError, match="no field 'prodct'"):
        recommend(bundle, TABLE, field="prodct")
    with pytest.raises(InputError, match="k is 5"):
        recommend(make_bundle(SEMANTIC), TABLE, 5, beam=3)
    with pytest.raises(InputError, match="k is 15"):
        recommend(make_bundle(SEMANTIC), TABLE, 15)
    text = FieldSpec("kind", "text")
    with pytest.raises(DataError, match="do not begin"):
        recommend(make_bundle(text, SEMANTIC), TABLE)
