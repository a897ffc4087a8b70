import sys

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data.store import TokenStore
from domainformer.data.table import EventTable
from domainformer.errors import ArtifactError, DataError, FingerprintError
from domainformer.inference import Bundle, embed, embed_to_parquet
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

SCHEMA = DomainSchema(
    "cards",
    [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("amount", "numerical_continuous", n_bins=6),
        FieldSpec("shop", "text", max_tokens=4),
    ],
)


def make_table(entities=17, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, size=entities)
    n = int(lengths.sum())
    frame = pl.DataFrame(
        {
            "card": np.repeat([f"card {i}" for i in rng.permutation(entities)], lengths),
            "day": np.arange(n),
            "kind": rng.choice(["a", "b", "c"], size=n),
            "amount": rng.normal(size=n),
            "shop": rng.choice(["corner shop", "petrol", ""], size=n),
        }
    )
    return EventTable.of(frame, entity="card", time="day")


TABLE = make_table()


@pytest.fixture(scope="module")
def bundle():
    torch.manual_seed(0)
    tokenizer = DomainTokenizer(SCHEMA, bpe_vocab_size=256).fit(TABLE)
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        position_encoding="learned",
    )
    return Bundle(DomainTransformerForCausalLM(config).eval(), tokenizer, SCHEMA)


def brute(bundle, table, how, context):
    """One entity at a time: the newest whole events that fit, one row, no padding."""
    vectors, used = [], []
    for index in range(table.n_entities):
        rows = table.frame[int(table.offsets[index]) : int(table.offsets[index + 1])]
        events = [bundle.tokenizer.encode_event(event) for event in rows.iter_rows(named=True)]
        kept = []
        while events and 1 + sum(map(len, kept)) + len(events[-1]) <= context:
            kept.insert(0, events.pop())
        ids = [1, *(i for event in kept for i in event)]
        with torch.no_grad():
            hidden = bundle.model.base_model(torch.tensor([ids])).last_hidden_state[0]
        vectors.append((hidden[-1] if how == "last" else hidden.mean(dim=0)).numpy())
        used.append(len(kept))
    return np.stack(vectors), used


@pytest.mark.parametrize("how", ["last", "mean"])
@pytest.mark.parametrize("context", [64, 20])
def test_batches_equal_one_entity_at_a_time(bundle, how, context):
    vectors, used = brute(bundle, TABLE, how, context)
    for batch_tokens in (1, 150, 10_000):
        found = embed(bundle, TABLE, how=how, context=context, batch_tokens=batch_tokens)
        assert found.columns == ["card", "n_events", "embedding"]
        assert found["card"].equals(TABLE.entity_ids.rename("card"))
        assert found["n_events"].to_list() == used
        assert found["embedding"].dtype == pl.Array(pl.Float32, 16)
        np.testing.assert_allclose(found["embedding"].to_numpy(), vectors, atol=1e-5)


def test_a_store_gives_the_same_vectors(bundle, tmp_path):
    events = bundle.tokenizer.encode(TABLE)
    expected = embed(bundle, TABLE)["embedding"]
    store = TokenStore.write(
        tmp_path / "store",
        [events.take_entities(np.arange(9)), events.take_entities(np.arange(9, 17))],
    )
    for source in (events, store):
        found = embed(bundle, source)
        assert found.columns[0] == "entity"
        assert found["embedding"].equals(expected)


def test_one_entitys_vector_ignores_the_others(bundle):
    """Sabotage twin inside: its own newest event does change it."""
    full = embed(bundle, TABLE)
    alone = embed(bundle, TABLE.take_entities([5]))
    np.testing.assert_allclose(
        alone["embedding"].to_numpy()[0], full["embedding"].to_numpy()[5], atol=1e-5
    )
    last = int(TABLE.offsets[6]) - 1
    changed = TABLE.filter(np.arange(TABLE.n_events) != last)
    assert not np.allclose(
        embed(bundle, changed)["embedding"].to_numpy()[5], full["embedding"].to_numpy()[5]
    )


def test_parquet_is_written_in_chunks_and_whole(bundle, tmp_path, monkeypatch):
    module = sys.modules[embed.__module__]
    monkeypatch.setattr(module, "CHUNK_ENTITIES", 5)
    seen = []
    path = embed_to_parquet(
        bundle, TABLE, tmp_path / "deep" / "vectors.parquet", progress=lambda *a: seen.append(a)
    )
    assert pl.read_parquet(path).equals(embed(bundle, TABLE))
    assert [f.name for f in path.parent.iterdir()] == ["vectors.parquet"]
    assert seen[-1] == (17, 17)


def test_a_failure_leaves_no_file(bundle, tmp_path, monkeypatch):
    module = sys.modules[embed.__module__]

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.pq.ParquetWriter, "write_table", full_disk)
    with pytest.raises(ArtifactError, match="could not be written"):
        embed_to_parquet(bundle, TABLE, tmp_path / "vectors.parquet")
    assert list(tmp_path.iterdir()) == []


def test_bad_requests(bundle):
    with pytest.raises(DataError, match="no pooling 'max'"):
        embed(bundle, TABLE, how="max")
    with pytest.raises(DataError, match="longer than the context"):
        embed(bundle, TABLE, context=3)
    other = DomainTokenizer(SCHEMA, bpe_vocab_size=260).fit(TABLE)
    with pytest.raises(FingerprintError, match="another tokenizer"):
        embed(bundle, other.encode(TABLE))
