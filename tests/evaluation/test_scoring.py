"""The two views against slow, obvious versions: one event at a time, no cache, no batches."""

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data.tokens import TokenizedEvents, id_dtype
from domainformer.evaluation import scoring
from domainformer.evaluation.scoring import score_events, stratified_draws
from domainformer.inference.grammar import SlotGrammar
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.schema import FieldType
from domainformer.tokenizers import Slot

BOS = 1
CONTEXT = 64


def slot(name, start, stop, max_tokens=0):
    kind = FieldType.TEXT if max_tokens else FieldType.CATEGORICAL_FIXED
    return Slot(name, "", start, stop, max_tokens > 0, kind, start, max_tokens)


NO_TEXT = (slot("a", 4, 7), slot("b", 7, 11), slot("c", 11, 13))
# Ids 13 to 15 are BPE; the marker of the text is 12, its MISSING 11.
TEXT_LAST = (slot("a", 4, 7), slot("b", 7, 11), slot("t", 11, 13, 2))
TEXT_INSIDE = (slot("a", 4, 7), slot("t", 7, 9, 2), slot("c", 9, 13))
GRAMMARS = {"no text": NO_TEXT, "text last": TEXT_LAST, "text inside": TEXT_INSIDE}


def grammar_of(name):
    none = np.zeros(0, np.int64)
    size = 13 if name == "no text" else 16
    return SlotGrammar(GRAMMARS[name], size, 13, none, none)


def random_event(rng, grammar):
    ids = []
    for one in grammar.slots:
        ids.append(int(rng.integers(one.start, one.stop)))
        if one.ragged and ids[-1] != one.missing:
            count = rng.integers(one.max_tokens + 1)
            ids += rng.integers(grammar.text_start, grammar.vocab_size, size=count).tolist()
    return ids


def random_events(grammar, lengths, seed=0):
    rng = np.random.default_rng(seed)
    return pack([[random_event(rng, grammar) for _ in range(n)] for n in lengths], grammar)


def pack(histories, grammar):
    flat = [event for history in histories for event in history]
    n = len(flat)
    return TokenizedEvents(
        ids=np.array([i for event in flat for i in event], id_dtype(grammar.vocab_size)),
        event_offsets=np.cumsum([0, *map(len, flat)]),
        entity_offsets=np.cumsum([0, *map(len, histories)]),
        entity_ids=pl.Series([f"e{i}" for i in range(len(histories))]),
        times=np.arange(n),
        roles=np.zeros(n, np.uint8),
        tokenizer_fingerprint="f",
        vocab_size=grammar.vocab_size,
    )


def model_for(grammar, position_encoding="none"):
    torch.manual_seed(0)
    config = DomainTransformerConfig(
        vocab_size=grammar.vocab_size,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        initializer_range=0.3 if position_encoding == "copy" else 0.6,
        position_encoding="none" if position_encoding == "copy" else position_encoding,
        copy_heads=2 if position_encoding == "copy" else 0,
        copy_width=8,
    )
    model = DomainTransformerForCausalLM(config).eval()
    if model.copy_head is not None:  # copy often, so that a wrong candidate shows
        torch.nn.init.constant_(model.copy_head.sentinel.bias, -1.0)
    return model


@torch.no_grad()
def next_logits(model, ids):
    return model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().numpy()


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def split_history(events, event):
    """The tokens before an event (with BOS), and its own."""
    owner = int(np.searchsorted(events.entity_offsets, event, side="right")) - 1
    start = events.event_offsets[events.entity_offsets[owner]]
    first, last = events.event_offsets[event], events.event_offsets[event + 1]
    return [BOS, *events.ids[start:first].tolist()], events.ids[first:last].tolist()


def brute_within(model, grammar, events, event):
    """Per slot: log p, correct, outside; the event's log-likelihood; text log p and count."""
    ids, own = split_history(events, event)
    slots, total, text, tokens = {}, 0.0, 0.0, 0
    for target in own:
        logits = next_logits(model, ids)
        full = softmax(logits)
        total += np.log(full[target])
        index = int(grammar.slot_of_id[target])
        low, high = (
            (grammar.slots[index].start, grammar.slots[index].stop)
            if index >= 0
            else (grammar.text_start, grammar.vocab_size)
        )
        inside = softmax(logits[low:high])
        if index >= 0:
            slots[index] = (
                np.log(inside[target - low]),
                inside.argmax() == target - low,
                1 - full[low:high].sum(),
            )
        else:
            text, tokens = text + np.log(inside[target - low]), tokens + 1
        ids = [*ids, target]
    return slots, total, text, tokens


def enumerate_history(model, grammar, ids):
    """The exact P(slot | history) of every slot, by walking through all possible events."""
    result = [np.zeros(one.width) for one in grammar.slots]

    def walk(ids, index, left, weight):
        if index == len(grammar.slots):
            return
        one = grammar.slots[index]
        logits = next_logits(model, ids)
        allowed = np.arange(one.start, one.stop)
        if left:
            allowed = np.r_[allowed, grammar.text_start : grammar.vocab_size]
        p = softmax(logits[allowed])
        result[index] += weight * p[: one.width]
        for token, share in zip(allowed.tolist(), p, strict=True):
            if token >= grammar.text_start:
                walk([*ids, token], index, left - 1, weight * share)
            else:
                budget = 0 if token == one.missing else one.max_tokens
                walk([*ids, token], index + 1, budget, weight * share)

    walk(ids, 0, 0, 1.0)
    return result


def heads_of(grammar, own):
    return [i for i in own if grammar.slot_of_id[i] >= 0]


@pytest.mark.parametrize("name", GRAMMARS)
@pytest.mark.parametrize("encoding", ["none", "learned", "rope", "copy"])
def test_within_event_equals_one_event_at_a_time(name, encoding):
    grammar = grammar_of(name)
    events = random_events(grammar, [5, 1, 7, 3])
    model = model_for(grammar, encoding)
    chosen = np.array([0, 2, 4, 5, 8, 12, 15])
    found = score_events(
        model, events, grammar, chosen, context=CONTEXT, samples=0, batch_tokens=50
    )
    assert found.history is None
    for row, event in enumerate(chosen):
        slots, total, text, tokens = brute_within(model, grammar, events, event)
        for index, (log_p, correct, outside) in slots.items():
            assert found.within.log_p[row, index] == pytest.approx(log_p, abs=1e-4)
            assert found.within.correct[row, index] == correct
            assert found.within.outside[row, index] == pytest.approx(outside, abs=1e-4)
        assert found.event_log_p[row] == pytest.approx(total, abs=1e-4)
        assert found.text_log_p[row].sum() == pytest.approx(text, abs=1e-4)
        assert found.text_tokens[row].sum() == tokens


def test_within_event_adds_up_to_the_events_likelihood_where_nothing_is_outside():
    """Chain rule: with all mass inside the slots, the slots' log p sum to the event's."""
    grammar = grammar_of("no text")
    events = random_events(grammar, [4])
    found = score_events(
        model_for(grammar), events, grammar, np.arange(4), context=CONTEXT, samples=0
    )
    inside = found.within.log_p + np.log1p(-found.within.outside)
    assert inside.sum(axis=1) == pytest.approx(found.event_log_p, abs=1e-4)


@pytest.mark.parametrize("name", GRAMMARS)
def test_history_only_approaches_exact_enumeration(name):
    grammar = grammar_of(name)
    events = random_events(grammar, [4, 2])
    model = model_for(grammar)
    chosen = np.array([3, 5])
    found = score_events(model, events, grammar, chosen, context=CONTEXT, samples=400)
    for row, event in enumerate(chosen):
        ids, own = split_history(events, event)
        exact = enumerate_history(model, grammar, ids)
        for index, (one, target) in enumerate(
            zip(grammar.slots, heads_of(grammar, own), strict=True)
        ):
            p = exact[index]
            assert p.sum() == pytest.approx(1.0)
            tolerance = 1e-5 if index == 0 else 0.02
            assert np.exp(found.history.log_p[row, index]) == pytest.approx(
                p[target - one.start], abs=tolerance
            )
            top = np.sort(p)
            if top[-1] - top[-2] > 0.05:
                assert found.history.correct[row, index] == (p.argmax() == target - one.start)


@pytest.mark.parametrize("encoding", ["none", "learned", "rope", "copy"])
def test_few_samples_are_unbiased(encoding):
    """The mean of many small estimates is the exact probability."""
    grammar = grammar_of("no text")
    events = random_events(grammar, [3])
    model = model_for(grammar, encoding)
    ids, own = split_history(events, 2)
    exact = enumerate_history(model, grammar, ids)
    target = own[2] - grammar.slots[2].start
    estimates = [
        np.exp(
            score_events(
                model, events, grammar, np.array([2]), context=CONTEXT, samples=4, seed=seed
            ).history.log_p[0, 2]
        )
        for seed in range(60)
    ]
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert np.mean(estimates) == pytest.approx(exact[2][target], abs=4 * error + 1e-4)


def test_the_first_slot_is_the_same_in_both_views():
    grammar = grammar_of("text last")
    events = random_events(grammar, [6, 3])
    found = score_events(
        model_for(grammar), events, grammar, np.arange(9), context=CONTEXT, samples=4
    )
    assert found.history.log_p[:, 0] == pytest.approx(found.within.log_p[:, 0], abs=1e-4)
    assert (found.history.correct[:, 0] == found.within.correct[:, 0]).all()


@pytest.mark.parametrize("name", GRAMMARS)
def test_batches_do_not_matter(name):
    grammar = grammar_of(name)
    events = random_events(grammar, [9, 2, 5, 6], seed=3)
    model = model_for(grammar)
    chosen = np.array([1, 2, 3, 7, 8, 10, 12, 17, 20, 21])
    small, large = (
        score_events(
            model, events, grammar, chosen, context=CONTEXT, samples=5, batch_tokens=tokens
        )
        for tokens in (1, 10_000)
    )
    np.testing.assert_allclose(small.within.log_p, large.within.log_p, atol=1e-4)
    np.testing.assert_allclose(small.history.log_p, large.history.log_p, atol=1e-4)


def test_long_histories_keep_at_least_half_a_context():
    """Events beyond the context are scored with the newest events that fit."""
    grammar = grammar_of("no text")
    events = random_events(grammar, [40])
    model = model_for(grammar)
    context = 22  # BOS and seven events
    chosen = np.arange(40)
    found = score_events(model, events, grammar, chosen, context=context, samples=0)
    for event in (0, 6, 7, 20, 39):
        full_ids, own = split_history(events, event)
        depths = range(3, 7) if event > 6 else [event]
        possible = [
            np.log(softmax(next_logits(model, [BOS, *full_ids[1:][-3 * depth :]])[4:7]))[own[0] - 4]
            if depth
            else np.log(softmax(next_logits(model, [BOS])[4:7]))[own[0] - 4]
            for depth in depths
        ]
        assert np.abs(np.array(possible) - found.within.log_p[event, 0]).min() < 1e-4


def test_a_longer_text_than_the_real_one_has_a_position_of_its_own():
    """Completions draw texts of their own, which may reach behind the table of positions."""
    grammar = grammar_of("text inside")
    short = pack([[[4, 7, 9]] * 40], grammar)  # events of three ids; one with a text has up to five
    model = model_for(grammar, "learned")
    found = score_events(model, short, grammar, np.arange(40), context=CONTEXT, samples=8)
    assert np.isfinite(found.history.log_p).all()


def leaks(events, grammar, model):
    """Whether a history-only prediction changes with what it must not see.

    Two altered worlds: another future after the event, and another first field in the event
    itself. What was predicted for the event's later fields must be the same in all three.
    """
    event = 3
    changed_future = events.ids.copy()
    start = events.event_offsets[event + 1]
    changed_future[start::3] = 4 + (changed_future[start::3] - 4 + 1) % 3
    changed_self = events.ids.copy()
    own = events.event_offsets[event]
    changed_self[own] = 4 + (changed_self[own] - 4 + 1) % 3
    predicted = []
    for ids in (events.ids, changed_future, changed_self):
        world = TokenizedEvents(**{**vars(events), "ids": ids})
        scores = score_events(
            model, world, grammar, np.array([event, event + 2]), context=CONTEXT, samples=6
        )
        predicted.append(scores.history.log_p[0, 1:])
    return not (
        np.allclose(predicted[0], predicted[1], atol=1e-4)
        and np.allclose(predicted[0], predicted[2], atol=1e-4)
    )


def test_history_only_sees_neither_the_event_nor_its_future():
    grammar = grammar_of("no text")
    assert not leaks(random_events(grammar, [8]), grammar, model_for(grammar))


def test_a_planted_leak_is_caught(monkeypatch):
    """Sabotage twin: a boundary that is one token late lets every branch see the first field."""
    grammar = grammar_of("no text")
    honest = scoring.Batch.of

    def late(*args):
        batch = honest(*args)
        batch.boundary[batch.place >= 0] += 1
        return batch

    monkeypatch.setattr(scoring.Batch, "of", late)
    assert leaks(random_events(grammar, [8]), grammar, model_for(grammar))


def test_a_branch_that_sees_the_whole_window_is_caught(monkeypatch):
    """Sabotage twin: without the boundary in the mask, branches see the future."""
    grammar = grammar_of("no text")
    honest = scoring.Branches._feed

    def careless(self, ids, step):
        exact = self.boundary
        self.boundary = torch.full_like(exact, self.batch.ids.shape[1])
        honest(self, ids, step)
        self.boundary = exact

    monkeypatch.setattr(scoring.Branches, "_feed", careless)
    assert leaks(random_events(grammar, [8]), grammar, model_for(grammar))


def test_draws_are_stratified_and_belong_to_the_event():
    grammar = grammar_of("text last")
    draws = stratified_draws(np.array([3, 11]), grammar, 8, seed=5)
    assert draws.shape == (2, grammar.longest_event, 8)
    assert (np.sort(np.floor(draws * 8), axis=-1) == np.arange(8)).all()
    np.testing.assert_array_equal(draws[1], stratified_draws(np.array([11]), grammar, 8, 5)[0])
    assert (draws[0] != draws[1]).any()


def test_progress_counts_every_event_once():
    grammar = grammar_of("no text")
    events = random_events(grammar, [5, 4])
    seen = []
    score_events(
        model_for(grammar),
        events,
        grammar,
        np.arange(9),
        context=CONTEXT,
        samples=0,
        batch_tokens=20,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (9, 9)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
