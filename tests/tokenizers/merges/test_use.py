"""Merges in use: files, stores, training rows, a model trained on a merged store."""

import json
import pickle

import numpy as np
import pytest

from domainformer.data import DomainSequenceDataset, TokenStore
from domainformer.errors import ArtifactError, ConfigError
from domainformer.tokenizers.merges import (
    ActionPieceMerges,
    PermutedSequenceDataset,
    files,
    learn_merges,
)

from .conftest import make_events, random_histories

BASE = 20


@pytest.fixture(scope="module")
def merged():
    """Events with roles (ids from 4 on, as below lie specials), and merges of the training ones."""
    histories = random_histories(4, entities=50, events=8, base=BASE - 4)
    histories = [[[token + 4 for token in one] for one in history] for history in histories]
    roles = [min(2, place // 4) for history in histories for place in range(len(history))]
    names = [f"user {i}" for i in range(50)]
    events = make_events(histories, BASE, roles=roles, names=names)
    return events, ActionPieceMerges.fit(events, vocab_size=90)


def test_saved_and_loaded_merges_are_equal(merged, tmp_path):
    events, merges = merged
    path = merges.save(tmp_path / "merges.json")
    again = ActionPieceMerges.load(path)
    assert again == merges
    assert (again.weights, again.note) == (merges.weights, merges.note)
    assert again.encode(events) == merges.encode(events)
    with pytest.raises(ArtifactError, match="exists already"):
        merges.save(path)
    assert ActionPieceMerges.load(merges.save(path, overwrite=True)) == merges


def test_slots_are_saved_too(tmp_path):
    events = make_events([[[2, 1], [2, 0]]] * 2, 3)
    merges = ActionPieceMerges.fit(events, vocab_size=5, slot_of_id=[1, 1, 0])
    again = ActionPieceMerges.load(merges.save(tmp_path / "merges.json"))
    assert again.decode_ids(again.encode(events).ids) == [[2, 1], [2, 0]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["state"]["rules"][0].__setitem__(0, 3), "differs from its checksum"),
        (lambda c: c.update(version=2), "format version 2"),
        (lambda c: c.update(version=None), "format version None"),
        (lambda c: c.update(kind="something"), "holds no merges"),
        (lambda c: c.pop("state"), "differs from its checksum"),
    ],
)
def test_altered_files_are_refused(merged, tmp_path, change, message):
    path = merged[1].save(tmp_path / "merges.json")
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match=message):
        ActionPieceMerges.load(path)


def test_files_that_are_none(tmp_path):
    with pytest.raises(ArtifactError, match="there is no file"):
        ActionPieceMerges.load(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot be read"):
        ActionPieceMerges.load(tmp_path / "broken.json")
    files.write(tmp_path / "bare.json", {"base_vocab_size": 3}, overwrite=False)
    with pytest.raises(ArtifactError, match="KeyError"):
        ActionPieceMerges.load(tmp_path / "bare.json")


def test_merges_pickle(merged):
    events, merges = merged
    merges.encode(events)
    assert pickle.loads(pickle.dumps(merges)).encode(events) == merges.encode(events)


def test_a_merged_store_is_a_store(merged, tmp_path):
    events, merges = merged
    parts = [events.take_entities(range(20)), events.take_entities(range(20, 50))]
    store = TokenStore.write(tmp_path / "store", (merges.encode(part) for part in parts))
    assert store.tokenizer_fingerprint == merges.fingerprint
    assert merges.decode(store.events()) == events
    assert (
        ActionPieceMerges.fit(
            TokenStore.write(tmp_path / "plain", parts), vocab_size=90
        ).fingerprint
        == merges.fingerprint
    )
    rows = DomainSequenceDataset(store, context=32)
    trained = np.concatenate([rows[i]["input_ids"] for i in range(len(rows))])
    assert set(trained.tolist()) - {1} == set(store_ids(store, role=0))


def store_ids(store, role):
    events = store.events()
    return events.ids[np.repeat(events.roles == role, np.diff(events.event_offsets))].tolist()


def test_permuted_rows_change_with_the_epoch_and_come_back(merged):
    events, merges = merged
    rows = PermutedSequenceDataset(events, merges, context=48, seed=3)
    first = [rows[i]["input_ids"].tolist() for i in range(len(rows))]
    copy = pickle.loads(pickle.dumps(rows))
    rows.set_epoch(1)
    second = [rows[i]["input_ids"].tolist() for i in range(len(rows))]
    assert first != second
    rows.set_epoch(0)
    assert first == [rows[i]["input_ids"].tolist() for i in range(len(rows))]
    assert first == [copy[i]["input_ids"].tolist() for i in range(len(copy))]
    assert rows.rows.n_documents == len(
        {int(e) for i in range(len(rows)) for e in rows[i]["entity"]}
    )
    with pytest.raises(ConfigError, match="for training"):
        PermutedSequenceDataset(events, merges, score_roles=(1,))
    with pytest.raises(ConfigError, match="must not be negative"):
        rows.set_epoch(-1)


def test_learn_merges_says_what_was_saved(merged):
    events, merges = merged
    told = []
    result = learn_merges(events, 90, lambda *numbers: told.append(numbers))
    assert result.merges == merges
    assert told[-1] == (70, 70)
    data = json.loads(json.dumps(result.to_json()))
    assert [part["part"] for part in data["shortening"]] == ["train", "validation"]
    assert sum(part["before"] for part in data["shortening"]) == events.n_tokens
    assert sum(part["after"] for part in data["shortening"]) == merges.encode(events).n_tokens
    assert data["shortening"][0]["share"] > 0.25
    assert len(data["examples"]) == 10
    assert result.render().row_count == 2
    plain = make_events([[[4, 5]] * 3], BASE)
    assert learn_merges(plain, BASE + 1).to_json()["shortening"][0]["part"] == "all"


def test_a_model_trains_on_a_merged_store(merged):
    torch = pytest.importorskip("torch")
    from domainformer.models import (
        Collator,
        DomainTransformerConfig,
        DomainTransformerForCausalLM,
    )

    events, merges = merged
    torch.manual_seed(0)
    config = DomainTransformerConfig.preset(
        "tiny", vocab_size=merges.vocab_size, max_position_embeddings=48
    )
    model = DomainTransformerForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    collate = Collator(0, packed=True, pad_to=48)
    rows = PermutedSequenceDataset(events, merges, context=48)
    losses = []
    for epoch in range(6):
        rows.set_epoch(epoch)
        loss = model(**collate([rows[i] for i in range(min(8, len(rows)))])).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    greedy = DomainSequenceDataset(merges.encode(events), context=48, score_roles=(1,))
    with torch.no_grad():
        assert torch.isfinite(model.eval()(**collate([greedy[0]])).loss)


@pytest.mark.slow
def test_beauty_histories_become_shorter(data_root):
    """Attributes of real items: a small vocabulary already saves more than a quarter."""
    import polars as pl

    folder = data_root / "commerce"
    items = pl.read_parquet(folder / "beauty_items.parquet")
    table = pl.read_parquet(folder / "beauty_events.parquet").sort("user_id", "position")
    table = table.filter(table["user_id"] % 10 == 0).join(items, on="item_id")
    table = table.sort("user_id", "position")
    histories = [
        [sorted(set(one)) for one in rows]
        for rows in table.group_by("user_id", maintain_order=True).agg("attribute_ids")[
            "attribute_ids"
        ]
    ]
    base = max(max(one) for history in histories for one in history) + 1
    events = make_events([h[:-2] for h in histories], base)
    merges = ActionPieceMerges.fit(events, vocab_size=base + 300)
    held_out = make_events(histories, base)
    encoded = merges.encode(held_out)
    assert merges.decode(encoded) == held_out
    assert encoded.n_tokens < 0.75 * held_out.n_tokens
