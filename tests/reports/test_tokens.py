import numpy as np
import pytest

from domainformer.data.store import TokenStore
from domainformer.reports.tokens import count_store, log_histogram, slot_statistics
from domainformer.tokenizers import DomainTokenizer


@pytest.fixture
def opened(build_run):
    folder = build_run("store")
    return DomainTokenizer.from_pretrained(folder / "tokenizer"), TokenStore.open(folder / "store")


def test_counts_equal_a_loop_over_all_events(opened, monkeypatch):
    tokenizer, store = opened
    assert len(store.shards) > 1
    monkeypatch.setattr("domainformer.reports.tokens._CHUNK_EVENTS", 7)
    counts = count_store(store)
    by_id = np.zeros((3, tokenizer.vocab_size), np.int64)
    widths = []
    for index in range(store.n_entities):
        history = store.history(index)
        for event in range(history.n_events):
            widths.append(len(history.event(event)))
            for token in history.event(event).tolist():
                by_id[history.roles[event], token] += 1
        assert counts.entity_events[index] == history.n_events
        assert counts.entity_tokens[index] == history.n_tokens
    assert np.array_equal(counts.by_id, by_id)
    assert np.array_equal(counts.event_tokens, np.bincount(widths))
    assert counts.events.sum() == store.n_events
    assert counts.n_tokens == by_id.sum() == store.n_tokens
    times = store.events().times
    assert (counts.first_time, counts.last_time) == (times.min(), times.max())
    assert not counts.whole_days


def test_shares_of_a_slot_sum_to_one(opened):
    tokenizer, store = opened
    slots = slot_statistics(tokenizer, count_store(store))
    assert [one.slot.name for one in slots] == [slot.name for slot in tokenizer.slots]
    for one in slots:
        shown = sum(token.train for token in one.tokens)
        assert shown + one.hidden_share == pytest.approx(1.0)


def test_missing_and_unknown_equal_the_table(opened, table):
    tokenizer, store = opened
    slots = {one.slot.name: one for one in slot_statistics(tokenizer, count_store(store))}
    roles = store.events().roles
    null = table.frame["kind"].is_null().to_numpy()
    for role, name in enumerate(("train", "validation", "test")):
        assert slots["kind"].missing[name] == pytest.approx(null[roles == role].mean())
    assert slots["kind"].has_unknown
    assert slots["kind"].unknown["train"] == 0
    assert not slots["amount"].has_unknown


def test_labels_are_readable_and_bins_keep_their_order(opened):
    tokenizer, store = opened
    slots = {one.slot.name: one for one in slot_statistics(tokenizer, count_store(store))}
    assert {t.label for t in slots["amount_sign"].tokens} == {"negative", "positive or zero"}
    assert [t.label for t in slots["when.dow"].tokens] == [
        *("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
    ]
    assert [t.label for t in slots["count"].tokens] == ["1", "2", "3", "4"]
    assert slots["kind"].tokens[0].label == "tea & cake"
    elapsed = [t.label for t in slots["when.elapsed"].tokens]
    assert elapsed[0] == "first"
    assert elapsed[-1].startswith("≥ ")


def test_few_tokens_are_shown_and_the_rest_is_counted(opened):
    tokenizer, store = opened
    kind = slot_statistics(tokenizer, count_store(store), most=1)[0]
    assert len(kind.tokens) == 1
    assert kind.hidden == kind.slot.width - 1
    assert kind.hidden_share == pytest.approx(1 - kind.tokens[0].train)


@pytest.mark.parametrize("seed", range(5))
def test_log_histogram_counts_every_positive_value(seed):
    rng = np.random.default_rng(seed)
    values = np.ceil(rng.lognormal(3, 1.5, 500)).astype(np.int64)
    found = log_histogram(values, bins=9)
    assert sum(found["count"]) == len(values)
    assert len(found["label"]) == len(set(found["label"])) <= 9
    assert found["from"][0] == values.min()


def test_log_histogram_of_nothing_and_of_one_value():
    assert log_histogram(np.zeros(3, np.int64))["count"] == []
    assert log_histogram(np.full(3, 7))["label"] == ["7"]
