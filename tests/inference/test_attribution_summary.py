"""Importances find what was planted, and nothing where nothing was; maps say what they are not."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data import EventTable
from domainformer.errors import DataError, InputError
from domainformer.inference import Bundle, embed
from domainformer.inference.attribution import (
    IntegratedGradients,
    Occlusion,
    attention_map,
    explain,
    linear_head,
    permutation_check,
    rank_agreement,
    summarise,
)
from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, learn_merges

FIELDS = ("signal", "noise", "other")
EVENTS, WHERE = 4, 1  # the label is told by the second field of the event before the newest
METHODS = [IntegratedGradients(steps=8), IntegratedGradients(steps=8, baseline="mean"), Occlusion()]


@pytest.fixture(scope="module")
def planted():
    """A table whose label is one value of one field of one event, and a model that has learned it.

    The sabotage twin is the same model with its first weights.
    """
    rng = np.random.default_rng(0)
    n = 96
    frame = pl.DataFrame({name: rng.choice(["a", "b"], n * EVENTS) for name in FIELDS})
    frame = frame.with_columns(who=np.repeat(np.arange(n), EVENTS), at=np.tile(range(EVENTS), n))
    table = EventTable.of(frame, entity="who", time="at")
    schema = DomainSchema("planted", [FieldSpec(name, "categorical_fixed") for name in FIELDS])
    tokenizer = DomainTokenizer(schema).fit(table)
    labels = frame["signal"].to_numpy().reshape(n, EVENTS)[:, EVENTS - 1 - WHERE] == "b"
    ids = torch.from_numpy(tokenizer.encode(table).ids.astype(np.int64).reshape(n, -1))
    ids = torch.cat([torch.ones(n, 1, dtype=torch.long), ids], dim=1)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_labels": 2}
    settings = DomainTransformerConfig.preset(
        "tiny", **sizes, vocab_size=tokenizer.vocab_size, position_encoding="learned"
    )
    bundles = []
    for learns in (True, False):
        torch.manual_seed(0)
        model = DomainTransformerForSequenceClassification(settings)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(60 if learns else 0):
            optimizer.zero_grad()
            torch.autograd.backward(model(ids, labels=torch.from_numpy(labels).long()).loss)
            optimizer.step()
        record = {"context": 64, "task": {"label": "won", "classes": ["no", "yes"]}}
        bundles.append(Bundle(model.eval(), tokenizer, schema, record))
    return table, labels, *bundles


@pytest.mark.parametrize("method", METHODS, ids=["missing", "mean", "occlusion"])
def test_the_planted_field_of_the_planted_event_is_found(planted, method):
    table, _, learned, random = planted
    found = explain(learned, list(range(24)), table, method=method)
    summary = summarise(found, resamples=50)
    assert summary.fields["name"][0] == "signal"
    assert summary.fields["share"][0] > 0.6
    farthest = summary.distances.sort("importance", descending=True)["distance"][0]
    assert farthest == WHERE
    largest = (
        found.units.with_columns(pl.col("attribution").abs())
        .group_by("example")
        .agg(pl.all().sort_by("attribution").last())
    )
    assert (largest["field"] == "signal").mean() > 0.9
    assert (largest["distance"] == WHERE).mean() > 0.9
    twin = summarise(explain(random, list(range(24)), table, method=method), resamples=50)
    shares = dict(twin.fields.select("name", "share").iter_rows())
    assert shares["signal"] < 0.5
    assert twin.distances.sort("importance", descending=True)["distance"][0] != WHERE


def test_a_sign_says_which_way_a_value_speaks(planted):
    table, labels, learned, _ = planted
    found = explain(learned, list(range(24)), table, method="integrated-gradients")
    own = found.units.filter((pl.col("field") == "signal") & (pl.col("distance") == WHERE))
    gap = (
        own["attribution"].to_numpy()[labels[:24]].mean()
        - own["attribution"].to_numpy()[~labels[:24]].mean()
    )
    assert gap > 1


def test_permutation_agrees_and_the_random_twin_has_nothing_to_lose(planted):
    table, labels, learned, random = planted
    keys, truth = list(range(24)), np.where(labels[:24], "yes", "no").tolist()
    checked = permutation_check(learned, keys, table, labels=truth)
    assert checked["name"][0] == "signal"
    assert checked["worse"][0] > 0.5
    assert checked["worse"][1:].max() < 0.1
    summary = summarise(explain(learned, keys, table), resamples=20)
    assert rank_agreement(summary, checked) > 0
    assert permutation_check(random, keys, table, labels=truth)["worse"].abs().max() < 0.1
    assert permutation_check(learned, keys, table, repeats=1)["worse"].null_count() == 3


def test_bootstrap_intervals_hold_the_mean_and_repeat(planted):
    table, _, learned, _ = planted
    found = explain(learned, list(range(12)), table, method=IntegratedGradients(steps=4))
    first, second = summarise(found, resamples=200), summarise(found, resamples=200)
    assert first.fields.equals(second.fields)
    by_hand = found.units.filter(pl.col("field") == "noise")["attribution"].abs().sum() / 12
    noise = first.fields.filter(pl.col("name") == "noise")
    assert noise["importance"][0] == pytest.approx(by_hand)
    assert (first.fields["low"] <= first.fields["importance"]).all()
    assert (first.fields["importance"] <= first.fields["high"]).all()
    assert first.distances["examples"].to_list() == [12] * EVENTS
    assert first.fields["share"].sum() == pytest.approx(1)


def test_a_linear_head_equals_its_own_logits_and_learns(planted):
    table, labels, learned, _ = planted
    torch.manual_seed(1)
    model = DomainTransformerForCausalLM(learned.model.config)
    model.model.load_state_dict(learned.model.model.state_dict())
    bundle = Bundle(model.eval(), learned.tokenizer, learned.schema, {"context": 64})
    vectors = embed(bundle, table)["embedding"].to_numpy()
    head = linear_head(bundle, vectors[:64], labels[:64].tolist(), name="won")
    found = explain(head, None, table, method=IntegratedGradients(steps=4))
    assert found.subject == "log-odds of won = True"
    right = (found.examples["score"].to_numpy() > 0) == labels
    assert right[64:].mean() > 0.9
    weight, bias = head.model.score.weight.detach().numpy(), head.model.score.bias.detach().numpy()
    logits = vectors @ weight.T + bias
    np.testing.assert_allclose(found.examples["score"], logits[:, 1] - logits[:, 0], atol=1e-3)
    with pytest.raises(DataError, match="cannot be learned"):
        linear_head(bundle, vectors[:5], [1] * 5)
    with pytest.raises(DataError, match="cannot be learned"):
        linear_head(bundle, vectors[:5], [1, 0])
    merges = learn_merges(bundle.encode(table), bundle.tokenizer.vocab_size + 2).merges
    merged = replace(bundle, merges=merges)
    assert linear_head(merged, vectors[:64], labels[:64].tolist()).merges is merges


def test_next_event_scores_keep_their_farthest_event_and_need_no_labels(planted):
    table, _, learned, _ = planted
    model = DomainTransformerForCausalLM(learned.model.config).eval()
    bundle = Bundle(model, learned.tokenizer, learned.schema, {"context": 64})
    with torch.no_grad():
        found = explain(bundle, [0, 1], table, method=IntegratedGradients(2), field=FIELDS[0])
    # The newest event is asked for its first field: nothing stands before it.
    assert summarise(found).distances["distance"].to_list() == list(range(1, EVENTS))
    with pytest.raises(InputError, match="already"):
        permutation_check(bundle, [0, 1], table, labels=["a", "b"])


def test_an_attention_map_is_labelled_and_sums_to_one(planted):
    table, _, learned, _ = planted
    before = learned.model.base_model.config._attn_implementation
    found = attention_map(learned, 3, table)
    assert "not an explanation" in found.label
    np.testing.assert_allclose(found.weights.sum(-1), 1, atol=1e-5)
    assert found.weights.shape == (1, 2, 1 + EVENTS * len(FIELDS))
    assert found.by_field["attention"].sum() == pytest.approx(1)
    assert learned.model.base_model.config._attn_implementation == before


def test_what_cannot_be_summed_up_is_refused(planted):
    table, _, learned, _ = planted
    events = explain(learned, [0, 1], table, method=Occlusion("event"))
    for call, error in (
        (lambda: summarise(events), InputError),
        (lambda: summarise(events, resamples=0), InputError),
        (lambda: permutation_check(learned, [0], table), DataError),
        (lambda: permutation_check(learned, [0, 1], table, labels=[1]), DataError),
        (lambda: permutation_check(learned, [0, 1], table, repeats=0), InputError),
        (lambda: permutation_check(learned, [0, 1], table, labels=[0, 1]), InputError),
    ):
        with pytest.raises(error):
            call()
