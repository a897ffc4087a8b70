"""Events of several sources are scored given their source, each source as a contest of its own."""

import itertools

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data import EventTable
from domainformer.evaluation.next_event import next_event
from domainformer.evaluation.scoring import score_events
from domainformer.inference import Bundle, SlotGrammar
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.schema import DomainSchema, FieldSpec, Source
from domainformer.tokenizers import DomainTokenizer

SCHEMA = DomainSchema(
    "bank",
    [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("pieces", "numerical_discrete", optional=True),
        FieldSpec("note", "text", max_tokens=2),
        FieldSpec("screen", "categorical_fixed"),
    ],
    sources={
        "cards": Source(["kind", "note", "pieces"]),
        "app": Source(["screen", "kind"]),
    },
)


def make_table(entities=8, each=9, seed=0):
    rng = np.random.default_rng(seed)
    n = entities * each
    frame = pl.DataFrame(
        {
            "who": np.repeat(np.arange(entities), each),
            "day": np.arange(n),
            "source": rng.choice(["cards", "app"], n),
            "kind": rng.choice(["a", "b"], n),
            "pieces": pl.Series([1, 2, None]).gather(rng.integers(0, 3, n)),
            "note": rng.choice(["", "x", "yz"], n),
            "screen": rng.choice(["home", "pay"], n),
        }
    )
    return EventTable.of(frame, entity="who", time="day")


@pytest.fixture(scope="module")
def table():
    return make_table()


@pytest.fixture(scope="module")
def bundle(table):
    torch.manual_seed(0)
    tokenizer = DomainTokenizer(SCHEMA, bpe_vocab_size=256).fit(table)
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=96,
        initializer_range=0.4,
    )
    return Bundle(DomainTransformerForCausalLM(config).eval(), tokenizer, SCHEMA)


def probabilities(bundle, ids):
    with torch.no_grad():
        return bundle.model(torch.tensor([ids])).logits[0, -1].double().softmax(-1).numpy()


def within(p, slot):
    return p[slot.ids] / p[slot.ids].sum()


def test_scores_are_those_of_the_model_given_the_source(bundle, table):
    """The first field is exact; the mean over the second of what it depends on is a sum."""
    tokenizer = bundle.tokenizer
    events, grammar = tokenizer.encode(table), SlotGrammar.of(tokenizer)
    first = np.asarray(events.ids)[events.event_offsets[:-1]]
    source, kind, _, _, screen = grammar.slots
    app = first == tokenizer.vocab.index("[SOURCE=app]")
    # First events of entities, so that their window is BOS alone.
    chosen = np.asarray(events.entity_offsets[:-1])
    scores = score_events(bundle.model, events, grammar, chosen, context=96, samples=64)
    start = probabilities(bundle, [1])
    for row, event in enumerate(chosen):
        ids = events.ids[events.event_offsets[event] : events.event_offsets[event + 1]].tolist()
        wanted = within(start, source)[ids[0] - source.start]
        assert np.isclose(scores.history.log_p[row, 0], np.log(wanted), atol=1e-4)
        given = probabilities(bundle, [1, ids[0]])
        if not app[event]:
            wanted = within(given, kind)[ids[1] - kind.start]
            assert np.isclose(scores.history.log_p[row, 1], np.log(wanted), atol=1e-4)
            assert np.isnan(scores.history.log_p[row, 4])
            assert np.isnan(scores.within.log_p[row, 4])
            has_pieces = grammar.slot_of_id[ids[-1]] == 2
            assert np.isnan(scores.within.log_p[row, 2]) != has_pieces
            continue
        wanted = within(given, screen)[ids[1] - screen.start]
        assert np.isclose(scores.history.log_p[row, 4], np.log(wanted), atol=1e-4)
        mean = sum(
            within(given, screen)[i] * within(probabilities(bundle, [1, ids[0], one]), kind)
            for i, one in enumerate(screen.ids.tolist())
        )
        estimate = np.exp(scores.history.log_p[row, 1])
        assert np.isclose(estimate, mean[ids[2] - kind.start], atol=0.03)
    total = sum_of_log_p(bundle, events, chosen)
    assert np.allclose(scores.event_log_p, total, atol=1e-3)


def sum_of_log_p(bundle, events, chosen):
    totals = []
    for event in chosen:
        ids = events.ids[events.event_offsets[event] : events.event_offsets[event + 1]].tolist()
        steps = (probabilities(bundle, [1, *ids[:i]])[ids[i]] for i in range(len(ids)))
        totals.append(float(np.sum(np.log(list(steps)))))
    return totals


def test_each_source_is_a_contest_of_its_own(bundle, table):
    roles = np.tile(np.repeat([0, 2], [6, 3]), 8).astype(np.uint8)
    events = bundle.tokenizer.encode(table, roles=roles)
    result = next_event(bundle, events, samples=2, resamples=20)
    names = [slot.name for slot in result.view("within_event")]
    assert names == [
        "source", "cards: kind", "cards: note.present", "cards: pieces", "app: screen", "app: kind",
    ]  # fmt: skip
    by_name = {slot.name: slot for slot in result.view("history_only")}
    tested = table.frame.filter(pl.Series(roles == 2))
    counts = dict(tested["source"].value_counts().iter_rows())
    assert by_name["source"].events == 24
    assert by_name["app: kind"].events == counts["app"]
    some = tested.filter((pl.col("source") == "cards") & pl.col("pieces").is_not_null())
    assert by_name["cards: pieces"].events == some.height
    assert all(np.isfinite(slot.log_loss["model"]) for slot in result.slots)
    repeated = previous_of_source(table, roles, "app", "screen")
    assert np.isclose(by_name["app: screen"].accuracy["repeat_last"], repeated)


def previous_of_source(table, roles, source, column):
    """How often the entity's last event of this source had the same value."""
    hits = []
    rows = zip(table.frame.iter_rows(named=True), roles.tolist(), strict=True)
    for _, group in itertools.groupby(rows, key=lambda pair: pair[0]["who"]):
        last = None
        for row, role in group:
            if row["source"] != source:
                continue
            if role == 2 and last is not None:
                hits.append(row[column] == last)
            elif role == 2:
                hits.append(None)
            last = row[column]
    assert None not in hits
    return float(np.mean(hits))
