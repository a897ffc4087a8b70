"""Generation of events of several sources: whatever the grammar allows is an event."""

import itertools

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data import EventTable
from domainformer.errors import TokenizerError
from domainformer.inference import Bundle, GrammarState, SlotGrammar, generate
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.schema import DomainSchema, FieldSpec, Source
from domainformer.tokenizers import DomainTokenizer

FIELDS = [
    FieldSpec("kind", "categorical_fixed"),
    FieldSpec("day", "temporal", calendar_fields=("month", "dow"), optional=True),
    FieldSpec("note", "text", max_tokens=2, optional=True),
    FieldSpec("pieces", "numerical_discrete", optional=True),
    FieldSpec("screen", "categorical_fixed"),
]
SCHEMAS = {
    "sources": DomainSchema(
        "bank",
        FIELDS,
        sources={
            "cards": Source(["kind", "day", "note"], share=0.3),
            "app": Source(["screen", "day"]),
            "wires": Source(["pieces"]),
        },
    ),
    "optional": DomainSchema("lab", FIELDS[:4]),
}


def make_table(entities=5, each=30, seed=0):
    rng = np.random.default_rng(seed)
    n = entities * each
    days = pl.Series(rng.integers(0, 700, n)).cast(pl.Int32).cast(pl.Date)
    frame = pl.DataFrame(
        {
            "who": [f"client {i}" for i in np.repeat(np.arange(entities), each)],
            "day": pl.select(pl.when(pl.Series(rng.random(n) < 0.9)).then(days)).to_series(),
            "source": rng.choice(["cards", "app", "wires"], n),
            "kind": rng.choice(["a", "b"], n),
            "pieces": pl.Series([1, 2, None]).gather(rng.integers(0, 3, n)),
            "note": pl.Series(["", "x", None]).gather(rng.integers(0, 3, n)),
            "screen": rng.choice(["home", "pay"], n),
        }
    )
    return EventTable.of(frame, entity="who", time="day")


TABLE = make_table()
TOKENIZERS = {
    name: DomainTokenizer(schema, bpe_vocab_size=256).fit(TABLE) for name, schema in SCHEMAS.items()
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_encoded_histories_obey_the_grammar(name):
    tokenizer = TOKENIZERS[name]
    state = GrammarState(SlotGrammar.of(tokenizer), 1)
    for token in tokenizer.encode(TABLE).ids.astype(np.int64):
        assert state.allowed()[0, token], tokenizer.vocab[token]
        state.advance(np.array([token]))
    assert state.between_events().all()
    assert state.events[0] == TABLE.n_events


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from(sorted(SCHEMAS)))
def test_whatever_the_grammar_allows_decodes(seed, name):
    tokenizer = TOKENIZERS[name]
    rng = np.random.default_rng(seed)
    state = GrammarState(SlotGrammar.of(tokenizer), 3)
    rows = [[], [], []]
    for _ in range(30):
        ids = np.array([rng.choice(np.flatnonzero(row)) for row in state.allowed()])
        state.advance(ids)
        for row, token in zip(rows, ids.tolist(), strict=True):
            row.append(token)
    while not state.between_events().all():
        ids = np.array([np.flatnonzero(row)[0] for row in state.allowed()])
        open_rows = ~state.between_events()
        state.advance(ids, open_rows)
        for row, token, moved in zip(rows, ids.tolist(), open_rows, strict=True):
            row += [token] if moved else []
    for row, events in zip(rows, state.events, strict=True):
        assert tokenizer.decode(row).height == events


def test_ids_of_another_source_are_refused():
    tokenizer = TOKENIZERS["sources"]
    state = GrammarState(SlotGrammar.of(tokenizer), 1)
    state.advance(np.array([tokenizer.vocab.index("[SOURCE=app]")]))
    with pytest.raises(TokenizerError, match="slot 'screen' comes next"):
        state.advance(np.array([tokenizer.vocab.index("[KIND=a]")]))


@pytest.fixture(scope="module", params=sorted(SCHEMAS))
def bundle(request):
    torch.manual_seed(0)
    tokenizer = TOKENIZERS[request.param]
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.4,
    )
    model = DomainTransformerForCausalLM(config).eval()
    return Bundle(model, tokenizer, SCHEMAS[request.param])


def test_generated_events_are_events_of_their_source(bundle):
    found = generate(bundle, TABLE, n_events=12, n_samples=3, temperature=2.0)
    assert found.height == 5 * 3 * 12
    if not bundle.tokenizer.schema.sources:
        assert set(found["kind"].to_list()) <= {"a", "b", None}
        return
    assert set(found["source"].to_list()) == {"cards", "app", "wires"}
    for source, column in (("cards", "kind"), ("app", "screen")):
        assert found.filter(pl.col("source") != source)[column].null_count() == (
            found.filter(pl.col("source") != source).height
        )
    # What was generated can be encoded and comes back: nothing but whole events of known forms.
    for name in ("kind", "screen"):
        assert set(found[name].drop_nulls().to_list()) <= {"a", "b", "home", "pay"}


def test_the_future_does_not_depend_on_the_batch(bundle):
    together = generate(bundle, TABLE, n_events=4, n_samples=2)
    one_by_one = generate(bundle, TABLE, n_events=4, n_samples=2, batch_tokens=1)
    assert together.equals(one_by_one)
    names = TABLE.entity_ids.to_list()
    assert together["who"].unique(maintain_order=True).to_list() == names
    steps = list(itertools.chain(*[range(4)] * 10))
    assert together["step"].to_list() == steps
