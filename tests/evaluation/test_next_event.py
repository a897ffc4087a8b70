import json

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data.store import TokenStore
from domainformer.data.table import EventTable
from domainformer.errors import DataError, FingerprintError
from domainformer.evaluation import next_event
from domainformer.evaluation.baselines import slot_values
from domainformer.inference import Bundle, SlotGrammar
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

SCHEMA = DomainSchema(
    "cards",
    [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("amount", "numerical_continuous", n_bins=4),
        FieldSpec("day", "temporal", calendar_fields=(), elapsed_bins=4),
        FieldSpec("shop", "text", max_tokens=3),
    ],
)


def make_table(entities=25, seed=0):
    """The shop tells the next event's kind; the kind itself tells nothing about the next one."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 12, size=entities)
    n = int(lengths.sum())
    shop = rng.integers(4, size=n)
    frame = pl.DataFrame(
        {
            "card": np.repeat(np.arange(entities), lengths),
            "day": 3 * np.arange(n) + rng.integers(3, size=n),
            "kind": pl.Series(["a", "b", "c", "d"]).gather(np.roll(shop, 1)),
            "amount": rng.normal(size=n),
            "shop": pl.Series(["corner", "petrol", "", None]).gather(shop),
        }
    )
    return EventTable.of(frame, entity="card", time="day")


TABLE = make_table()
ROLES = np.random.default_rng(1).choice(3, size=TABLE.n_events, p=[0.6, 0.1, 0.3]).astype(np.uint8)


@pytest.fixture(scope="module")
def bundle():
    torch.manual_seed(0)
    tokenizer = DomainTokenizer(SCHEMA, bpe_vocab_size=256).fit(TABLE)
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
    )
    model = DomainTransformerForCausalLM(config)
    learn(model, tokenizer.encode(TABLE))
    return Bundle(model.eval(), tokenizer, SCHEMA)


def learn(model, events, steps=60):
    rows = [[1, *events.history(i).ids.tolist()] for i in range(events.n_entities)]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (longest - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        optimizer.zero_grad()
        model(ids, labels=labels).loss.backward()
        optimizer.step()


@pytest.fixture(scope="module")
def events(bundle):
    return bundle.tokenizer.encode(TABLE, roles=ROLES)


@pytest.fixture(scope="module")
def result(bundle, events):
    return next_event(bundle, events, samples=4, resamples=100)


def test_both_views_hold_every_slot(result):
    names = ["kind", "amount", "day.elapsed", "shop.present"]
    assert [s.name for s in result.view("history_only")] == names
    assert [s.name for s in result.view("within_event")] == names
    assert all(s.outside is None for s in result.view("history_only"))
    assert all(0 <= s.outside <= 1 for s in result.view("within_event"))
    for slot in result.slots:
        assert set(slot.accuracy) == set(slot.log_loss)
        assert list(slot.accuracy) == ["model", "most_popular", "repeat_last", "entity_frequency"]
        assert all(0 <= a <= 1 for a in slot.accuracy.values())
        for metric, best in slot.best.items():
            gain = slot.differences[best][metric]
            figure = getattr(slot, metric)
            assert gain.value == pytest.approx(figure["model"] - figure[best])
            assert gain.low <= gain.value <= gain.high


def test_baselines_are_the_same_in_both_views(result):
    for one, other in zip(result.view("history_only"), result.view("within_event"), strict=True):
        for name in ("most_popular", "repeat_last", "entity_frequency"):
            assert one.accuracy[name] == other.accuracy[name]
            assert one.log_loss[name] == other.log_loss[name]


def test_a_model_that_learned_the_rule_beats_both_baselines(result):
    kind = result.view("history_only")[0]
    assert kind.accuracy["repeat_last"] < 0.5
    assert kind.accuracy["model"] > 0.9
    assert kind.beats_baselines
    assert kind.differences["repeat_last"]["accuracy"].low > 0.2


def test_baseline_figures_equal_a_naive_count(result, events, bundle):
    """On exactly the scored events: test events with something before them."""
    values = slot_values(events, SlotGrammar.of(bundle.tokenizer))[:, 0]
    first = set(TABLE.offsets.tolist())
    scored = [e for e in range(TABLE.n_events) if ROLES[e] == 2 and e not in first]
    train = [e for e in range(TABLE.n_events) if ROLES[e] == 0 and e not in first]
    popular = np.bincount(values[train]).argmax()
    slot = result.view("history_only")[0]
    assert result.events == result.candidates == len(scored)
    assert slot.accuracy["most_popular"] == pytest.approx(np.mean(values[scored] == popular))
    assert slot.accuracy["repeat_last"] == np.mean([values[e] == values[e - 1] for e in scored])


def test_text_is_told_per_token(result, events, bundle):
    (text,) = result.text
    assert text.field == "shop"
    assert 0 < text.log_loss["model"] < np.log(256)
    first = set(TABLE.offsets.tolist())
    start, _ = bundle.tokenizer.bpe_range
    tokens = sum(
        int((events.ids[events.event_offsets[e] : events.event_offsets[e + 1]] >= start).sum())
        for e in range(TABLE.n_events)
        if ROLES[e] == 2 and e not in first
    )
    assert text.tokens == tokens


def test_the_result_is_plain_data_and_depends_on_the_seed_alone(bundle, events, result):
    json.dumps(result.to_json())
    again = next_event(bundle, events, samples=4, resamples=100)
    assert again.to_json() == result.to_json()
    other = next_event(bundle, events, samples=4, resamples=100, seed=1)
    assert other.to_json() != result.to_json()


def test_a_sample_of_events(bundle, events, result):
    part = next_event(bundle, events, max_events=10, samples=2, resamples=20)
    assert part.events == 10
    assert part.candidates == result.candidates
    assert part.entities <= 10


def test_first_events_only_when_asked(bundle, events, result):
    full = next_event(bundle, events, samples=0, resamples=20, include_first=True)
    first = TABLE.offsets[:-1]
    assert full.candidates == result.candidates + int((ROLES[first] == 2).sum())
    assert full.first_events
    assert not full.view("history_only")


def test_a_store_gives_the_same(bundle, events, result, tmp_path):
    store = TokenStore.write(
        tmp_path / "store",
        [events.take_entities(np.arange(12)), events.take_entities(np.arange(12, 25))],
    )
    assert next_event(bundle, store, samples=4, resamples=100).to_json() == result.to_json()


def test_what_cannot_be_judged_is_told(bundle, events):
    with pytest.raises(DataError, match="no split roles"):
        next_event(bundle, bundle.tokenizer.encode(TABLE))
    only_train = bundle.tokenizer.encode(TABLE, roles=np.zeros(TABLE.n_events, np.uint8))
    with pytest.raises(DataError, match="no test events"):
        next_event(bundle, only_train)
    only_test = bundle.tokenizer.encode(TABLE, roles=np.full(TABLE.n_events, 2, np.uint8))
    with pytest.raises(DataError, match="no training events"):
        next_event(bundle, only_test, samples=0)
    other = DomainTokenizer(SCHEMA, bpe_vocab_size=260).fit(TABLE)
    with pytest.raises(FingerprintError, match="another tokenizer"):
        next_event(bundle, other.encode(TABLE, roles=ROLES))
