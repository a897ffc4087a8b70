"""A bundle for an extended tokenizer: old rows and logits stay, new rows begin sensibly."""

import json

import numpy as np
import polars as pl
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from domainformer.data import EventTable
from domainformer.errors import ArtifactError, FingerprintError
from domainformer.evaluation.scoring import score_events
from domainformer.inference import (
    SlotGrammar,
    embed,
    extend_bundle,
    generate,
    load_bundle,
    save_bundle,
)
from domainformer.inference.extension import first_rows
from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, extend

SCHEMA = DomainSchema(
    "cards",
    [
        FieldSpec("kind", "categorical_fixed", min_frequency=2),
        FieldSpec("place", "categorical_entity", hash_buckets=2),
        FieldSpec("count", "numerical_discrete"),
        FieldSpec("shop", "text", max_tokens=4),
        FieldSpec("amount", "numerical_continuous", n_bins=4),
    ],
)


def table_of(kinds, places, counts, shops):
    rows = len(kinds)
    frame = pl.DataFrame(
        {
            "card": [i // 3 for i in range(rows)],
            "kind": kinds,
            "place": places,
            "count": counts,
            "shop": shops,
            "amount": [float(i) for i in range(rows)],
        }
    )
    return EventTable.of(frame, entity="card")


OLD = table_of(
    ["a", "a", "rare", "b", "b", "a"], ["x", "y", "x", None, "y", "x"], [1, 2, 1, 2, 1, 1],
    ["corner shop", "shop", "", "corner", None, "shop"],
)  # fmt: skip
NEW = table_of(
    ["q", "a", "q", "q", "b", "a"], ["z", "y", "x", "z", "y", "x"], [7, 2, 1, 7, 1, 1],
    ["petrol shop", "petrol", "petrol", "corner", None, "shop"],
)  # fmt: skip


@pytest.fixture(scope="module")
def old():
    return DomainTokenizer(SCHEMA, bpe_vocab_size=265).fit(OLD)


@pytest.fixture(scope="module")
def new(old):
    return extend(old, NEW).tokenizer


def model_of(tokenizer, cls=DomainTransformerForCausalLM, **options):
    torch.manual_seed(0)
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=96,
        **options,
    )
    return cls(config).eval()


KINDS = {
    "tied": {"tie_word_embeddings": True},
    "untied": {"tie_word_embeddings": False},
    "copy heads": {"copy_heads": 2, "copy_width": 4},
}


@pytest.fixture(params=KINDS, ids=list(KINDS))
def extended(request, old, new, tmp_path):
    model = model_of(old, **KINDS[request.param])
    save_bundle(tmp_path / "old", model, old, {"context": 90})
    result = extend_bundle(tmp_path / "old", new, tmp_path / "new")
    return model, load_bundle(result.folder), result


def logits(model, ids):
    with torch.no_grad():
        return model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0]


def test_old_rows_and_old_answers_stay(extended, old):
    model, bundle, _ = extended
    size = old.vocab_size
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        before, after = (getattr(one, layer)().weight for one in (model, bundle.model))
        assert torch.equal(after[:size], before)
    assert bundle.model.config.tie_word_embeddings == model.config.tie_word_embeddings
    ids = np.concatenate([[1], old.encode(OLD).ids])
    before, after = (logits(one, ids).log_softmax(dim=-1) for one in (model, bundle.model))
    with torch.no_grad():
        hidden = bundle.model.base_model(torch.from_numpy(ids.astype(np.int64))[None])[0][0]
        own = bundle.model.get_output_embeddings()(hidden)
    # What the new ids' exponentials add to the old sum: r of p / (1 + r).
    taken = torch.log1p((own[:, size:].logsumexp(-1) - own[:, :size].logsumexp(-1)).exp())
    lost = before - after[:, :size]
    if model.config.copy_heads:  # what is copied keeps its share
        assert ((lost > -1e-5) & (lost < taken[:, None] + 1e-5)).all()
        assert lost.max() > 1e-3
    else:
        torch.testing.assert_close(lost, taken[:, None].expand_as(lost), rtol=1e-4, atol=1e-5)


def test_without_copy_heads_the_old_logits_are_the_same_numbers(old, new, tmp_path):
    model = model_of(old, tie_word_embeddings=False)
    save_bundle(tmp_path / "old", model, old)
    grown = load_bundle(extend_bundle(tmp_path / "old", new, tmp_path / "new").folder).model
    ids = np.concatenate([[1], old.encode(OLD).ids])
    kept = logits(grown, ids)[:, : old.vocab_size]
    torch.testing.assert_close(kept, logits(model, ids), rtol=1e-6, atol=1e-6)


def test_new_rows_begin_as_the_unknown_value_an_average_or_their_parts(extended, old, new):
    _, bundle, _ = extended
    rows = bundle.model.get_input_embeddings().weight
    id_of = {token: index for index, token in enumerate(new.vocab)}
    # Something unknown was seen in training: its row has learned what that means.
    assert torch.equal(rows[id_of["[KIND=q]"]], rows[id_of["[KIND_UNK]"]])
    # Nothing was: the row of UNK is as it was drawn, so the average of the known values stands in.
    numbers = [id_of["[COUNT=1]"], id_of["[COUNT=2]"]]
    torch.testing.assert_close(rows[id_of["[COUNT=7]"]], rows[numbers].mean(dim=0))
    places = [id_of["[PLACE=x]"], id_of["[PLACE=y]"]]
    torch.testing.assert_close(rows[id_of["[PLACE=z]"]], rows[places].mean(dim=0))
    assert "Ġshop" in new.vocab or "shop" in new.vocab
    first = next(i for i in new.bpe_ids.tolist() if i >= old.vocab_size)
    left, right = first_rows(old, new)[first - old.vocab_size]
    assert new.vocab[left] + new.vocab[right] == new.vocab[first]
    torch.testing.assert_close(rows[first], rows[[left, right]].mean(dim=0))


def test_a_value_of_a_hash_bucket_begins_as_its_bucket():
    before = table_of(["a"] * 6, list("xxyyzw"), [1] * 6, [""] * 6)
    schema = DomainSchema("s", [FieldSpec("place", "categorical_entity", hash_buckets=2,
                                          min_frequency=2)])  # fmt: skip
    old = DomainTokenizer(schema).fit(before)
    later = pl.DataFrame({"place": ["z", "w", "v"] * 2})
    last = extend(old, later).tokenizer
    assert last.vocab[old.vocab_size :] == ["[PLACE=v]", "[PLACE=w]", "[PLACE=z]"]
    for name, sources in zip("vwz", first_rows(old, last), strict=True):
        assert sources.tolist() == old.encode_event({"place": name})


def test_the_model_reads_a_new_value_as_it_read_the_unknown_one(old, new, tmp_path):
    model = model_of(old, tie_word_embeddings=True)
    save_bundle(tmp_path / "old", model, old)
    grown = load_bundle(extend_bundle(tmp_path / "old", new, tmp_path / "new").folder).model
    event = {"kind": "q", "place": "x", "count": 1, "shop": None, "amount": 1.0}
    before, after = (np.array([1, *t.encode_event(event)]) for t in (old, new))
    assert before.tolist() != after.tolist()
    size = old.vocab_size
    # The same numbers, but a product of another width may add them up in another order.
    torch.testing.assert_close(
        logits(grown, after)[:, :size], logits(model, before), rtol=1e-6, atol=1e-6
    )


def test_an_extension_of_an_extension_grows_the_first_model(old, new, tmp_path):
    third = table_of(["w"] * 6, ["v"] * 6, [9] * 6, ["harbour"] * 6)
    last = extend(new, third).tokenizer
    model = model_of(old)
    save_bundle(tmp_path / "old", model, old)
    at_once = load_bundle(extend_bundle(tmp_path / "old", last, tmp_path / "b").folder)
    extend_bundle(tmp_path / "old", new, tmp_path / "c")
    by_steps = load_bundle(extend_bundle(tmp_path / "c", last, tmp_path / "d").folder)
    assert at_once.tokenizer.fingerprint == by_steps.tokenizer.fingerprint
    size = old.vocab_size
    for bundle in (at_once, by_steps):
        assert torch.equal(
            bundle.model.get_input_embeddings().weight[:size], model.get_input_embeddings().weight
        )
    assert by_steps.record["extended_from"] == new.fingerprint


def test_the_new_bundle_is_whole(extended, new):
    _, bundle, result = extended
    assert bundle.tokenizer.fingerprint == new.fingerprint == result.fingerprint
    assert bundle.record == {"context": 90, "extended_from": result.parent}
    assert bundle.context == 90
    assert result.new_size == bundle.model.config.vocab_size == new.vocab_size
    assert json.dumps(result.to_json())
    hf, model = (
        auto.from_pretrained(result.folder) for auto in (AutoTokenizer, AutoModelForCausalLM)
    )
    text = new.render_event(
        {"kind": "q", "place": "z", "count": 7, "shop": "petrol", "amount": 2.0}
    )
    ids = hf(text, return_tensors="pt")["input_ids"]
    assert model(ids).logits.shape[-1] == new.vocab_size


def test_all_that_uses_a_bundle_works_with_ids_that_lie_apart(extended, new):
    _, bundle, _ = extended
    assert embed(bundle, NEW).height == 2
    future = generate(bundle, NEW, n_events=2, n_samples=3, seed=1)
    assert future.height == 2 * 3 * 2
    events = new.encode(NEW)
    grammar = SlotGrammar.of(new)
    chosen = np.arange(1, events.n_events)
    scores = score_events(bundle.model, events, grammar, chosen, context=90, samples=4)
    # Within an event the logs of slots and texts, and what lies outside, are the event's own.
    assert np.isfinite(scores.within.log_p).all()
    assert (scores.history.log_p <= 1e-9).all()
    ids = np.concatenate([[1], events.ids])
    full = logits(bundle.model, ids).double().log_softmax(dim=-1).numpy()
    event, slot = 1, 0
    position = int(events.event_offsets[event])
    own = full[position][grammar.slots[slot].ids]
    place = grammar.slots[slot].ids.tolist().index(int(events.ids[position]))
    expected = own[place] - np.log(np.exp(own).sum())
    assert scores.within.log_p[0, slot] == pytest.approx(expected, abs=1e-4)


def test_a_classifier_grows_its_input_alone(old, new, tmp_path):
    model = model_of(old, DomainTransformerForSequenceClassification, num_labels=2)
    save_bundle(tmp_path / "old", model, old)
    grown = load_bundle(extend_bundle(tmp_path / "old", new, tmp_path / "new").folder).model
    ids = torch.from_numpy(np.concatenate([[1], old.encode(OLD).ids]).astype(np.int64))[None]
    torch.testing.assert_close(grown(ids).logits, model(ids).logits)


def test_only_an_extension_of_the_bundles_tokenizer_will_do(old, new, tmp_path):
    save_bundle(tmp_path / "new", model_of(new), new)
    with pytest.raises(FingerprintError, match="does not extend") as caught:
        extend_bundle(tmp_path / "new", old, tmp_path / "out")
    assert "tokenizer extend" in caught.value.next_step
    save_bundle(tmp_path / "old", model_of(old), old)
    other = DomainTokenizer(SCHEMA, bpe_vocab_size=265).fit(NEW)
    folder = other.save_pretrained(tmp_path / "other")
    with pytest.raises(FingerprintError, match="does not extend"):
        extend_bundle(tmp_path / "old", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ArtifactError, match="exists already"):
        extend_bundle(tmp_path / "old", new, tmp_path / "new")
