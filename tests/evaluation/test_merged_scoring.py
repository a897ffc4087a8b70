"""Scores of merged tokens against all completions of an event, one by one, without cache."""

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data.tokens import TokenizedEvents, id_dtype
from domainformer.errors import InputError
from domainformer.evaluation.baselines import slot_values
from domainformer.evaluation.merged_scoring import score_merged_events
from domainformer.evaluation.scoring import score_events
from domainformer.inference.grammar import SlotGrammar
from domainformer.inference.merged_grammar import MergedGrammar
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.schema import FieldType
from domainformer.tokenizers import ActionPieceMerges, Slot

BOS, CONTEXT, BASE = 1, 40, 13


def slot(name, start, stop):
    return Slot(name, "", start, stop, False, FieldType.CATEGORICAL_FIXED, start, 0)


SLOTS = (slot("a", 4, 7), slot("b", 7, 11), slot("c", 11, 13))
NONE = np.zeros(0, np.int64)
FIELDS = SlotGrammar(SLOTS, BASE, BASE, NONE, NONE)
SLOT_OF_ID = FIELDS.slot_of_id.astype(np.int64)


def random_events(lengths, seed=0):
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    ids = np.stack([rng.integers(s.start, s.start + 2, size=n) for s in SLOTS], axis=1)
    return TokenizedEvents(
        ids=ids.ravel().astype(id_dtype(BASE)),
        event_offsets=np.arange(n + 1) * 3,
        entity_offsets=np.cumsum([0, *lengths]),
        entity_ids=pl.Series([f"e{i}" for i in range(len(lengths))]),
        times=np.arange(n),
        roles=None,
        tokenizer_fingerprint="f00d",
        vocab_size=BASE,
    )


EVENTS = random_events([7, 4, 6, 3])
MERGES = ActionPieceMerges.fit(
    EVENTS, vocab_size=BASE + 9, slot_of_id=SLOT_OF_ID, across_events=False
)
CHOSEN = np.array([3, 9, 15])


def make_model(vocab_size, copy=False, seed=0):
    torch.manual_seed(seed)
    config = DomainTransformerConfig(
        vocab_size=vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3,
        position_encoding="none" if copy else "rope",
        copy_heads=2 if copy else 0,
        copy_width=8,
    )
    return DomainTransformerForCausalLM(config).eval()


@torch.inference_mode()
def logits_after(model, ids):
    tokens = torch.tensor([[BOS, *ids]])
    return model(input_ids=tokens).logits[0, -1].double().numpy()


def history_of(encoded, event):
    entity = int(np.searchsorted(encoded.entity_offsets, event, side="right")) - 1
    first = encoded.event_offsets[encoded.entity_offsets[entity]]
    return encoded.ids[first : encoded.event_offsets[event]].tolist()


def slow_marginals(model, history, merges, ordered):
    """P(value) of each slot by going through every completion of the event."""
    sums = [np.zeros(s.width) for s in SLOTS]
    parts = [merges.table.parts(token)[0] for token in range(merges.vocab_size)]
    slots_of = [{int(SLOT_OF_ID[i]) for i in part} for part in parts]

    def follow(written, values, p):
        open_slots = set(range(3)) - values.keys()
        if not open_slots:
            for slot, place in values.items():
                sums[slot][place] += p
            return
        able = [
            token
            for token, own in enumerate(slots_of)
            if min(own) >= 0 and own <= open_slots and (not ordered or min(own) == min(open_slots))
        ]
        logits = logits_after(model, history + written)[able]
        q = np.exp(logits - logits.max())
        for token, one in zip(able, q / q.sum(), strict=True):
            new = {int(SLOT_OF_ID[i]): i - SLOTS[SLOT_OF_ID[i]].start for i in parts[token]}
            follow([*written, token], values | new, p * one)

    follow([], {}, 1.0)
    return sums


def test_the_merges_are_worth_testing():
    sizes = [len(MERGES.describe(t)["events"][0]) for t in range(BASE, MERGES.vocab_size)]
    assert MERGES.n_merges == 9
    assert not MERGES.crosses_events
    assert {2, 3} <= set(sizes)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("copy", [False, True])
def test_history_only_is_the_mean_over_all_completions(ordered, copy):
    model = make_model(MERGES.vocab_size, copy)
    grammar = MergedGrammar(FIELDS, MERGES, ordered)
    encoded, values = MERGES.encode(EVENTS), slot_values(EVENTS, FIELDS)
    scores = score_merged_events(
        model, encoded, values, grammar, CHOSEN, context=CONTEXT, samples=256, bos_id=BOS
    )
    for row, event in enumerate(CHOSEN):
        exact = slow_marginals(model, history_of(encoded, event), MERGES, ordered)
        expected = [exact[k][values[event, k]] for k in range(3)]
        assert np.exp(scores.history.log_p[row]) == pytest.approx(expected, abs=0.02)
        if ordered:  # the first field is filled by the first token: nothing is drawn
            assert np.exp(scores.history.log_p[row, 0]) == pytest.approx(expected[0], abs=1e-5)
            best = exact[0].argmax() == values[event, 0]
            assert scores.history.correct[row, 0] == best
    assert scores.within is None


def test_what_no_merged_token_holds_is_never_impossible():
    """A model that prefers merged tokens closes slots before single values get their turn."""
    model = make_model(MERGES.vocab_size)
    bias = torch.zeros(MERGES.vocab_size)
    bias[BASE:] = 6.0
    model.get_output_embeddings().bias = torch.nn.Parameter(bias)
    encoded, values = MERGES.encode(EVENTS), slot_values(EVENTS, FIELDS)
    grammar = MergedGrammar(FIELDS, MERGES)
    settings = {"context": CONTEXT, "bos_id": BOS}
    few, many = (
        score_merged_events(
            model, encoded, values, grammar, np.arange(1, 7), samples=samples, **settings
        ).history
        for samples in (2, 256)
    )
    assert few.log_p.min() > -25
    for row, event in enumerate(range(1, 7)):
        exact = slow_marginals(model, history_of(encoded, event), MERGES, ordered=True)
        expected = [exact[k][values[event, k]] for k in range(3)]
        assert many.log_p[row] == pytest.approx(np.log(expected), abs=0.25)
    with pytest.raises(InputError, match="2 or more"):
        score_merged_events(model, encoded, values, grammar, CHOSEN, samples=1, **settings)


def test_one_sabotaged_rule_is_seen_by_the_comparison():
    model = make_model(MERGES.vocab_size)
    encoded, values = MERGES.encode(EVENTS), slot_values(EVENTS, FIELDS)
    exact = slow_marginals(model, history_of(encoded, 6), MERGES, ordered=True)
    wrong = slow_marginals(model, history_of(encoded, 6), MERGES, ordered=False)
    differences = [abs(exact[k][values[6, k]] - wrong[k][values[6, k]]) for k in range(3)]
    assert max(differences) > 0.03


def test_whole_events_are_scored_over_the_full_vocabulary():
    model = make_model(MERGES.vocab_size)
    encoded, values = MERGES.encode(EVENTS), slot_values(EVENTS, FIELDS)
    grammar = MergedGrammar(FIELDS, MERGES)
    scores = score_merged_events(
        model, encoded, values, grammar, CHOSEN, context=CONTEXT, samples=0, bos_id=BOS
    )
    for row, event in enumerate(CHOSEN):
        written = history_of(encoded, event)
        expected = 0.0
        for token in encoded.ids[encoded.event_offsets[event] : encoded.event_offsets[event + 1]]:
            logits = logits_after(model, written)
            expected += logits[token] - np.log(np.exp(logits).sum())
            written = [*written, int(token)]
        assert scores.event_log_p[row] == pytest.approx(expected, abs=1e-4)
    assert scores.history is None


def test_without_any_merge_the_scores_are_those_of_single_fields():
    none = ActionPieceMerges.fit(EVENTS, vocab_size=BASE, slot_of_id=SLOT_OF_ID)
    model, values = make_model(BASE), slot_values(EVENTS, FIELDS)
    settings = {"context": CONTEXT, "samples": 4, "seed": 3, "bos_id": BOS}
    plain = score_events(model, EVENTS, FIELDS, CHOSEN, **settings)
    grammar = MergedGrammar(FIELDS, none)
    merged = score_merged_events(model, none.encode(EVENTS), values, grammar, CHOSEN, **settings)
    assert merged.history.log_p == pytest.approx(plain.history.log_p, abs=1e-6)
    assert (merged.history.correct == plain.history.correct).all()
    assert merged.event_log_p == pytest.approx(plain.event_log_p, abs=1e-4)


def test_the_batch_changes_nothing():
    model = make_model(MERGES.vocab_size)
    encoded, values = MERGES.encode(EVENTS), slot_values(EVENTS, FIELDS)
    grammar = MergedGrammar(FIELDS, MERGES)
    one, all_at_once = (
        score_merged_events(
            model, encoded, values, grammar, CHOSEN, context=CONTEXT, batch_tokens=size, samples=4
        )
        for size in (1, 100_000)
    )
    assert one.history.log_p == pytest.approx(all_at_once.history.log_p, abs=1e-5)


def test_permuted_models_have_no_log_likelihood_of_whole_events():
    model = make_model(MERGES.vocab_size)
    grammar = MergedGrammar(FIELDS, MERGES, ordered=False)
    encoded, values = MERGES.encode(EVENTS), slot_values(EVENTS, FIELDS)
    scores = score_merged_events(model, encoded, values, grammar, CHOSEN, context=CONTEXT)
    assert scores.event_log_p is None
