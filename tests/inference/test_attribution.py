"""Attributions against what is known exactly: linear scores, planted signals, slow loops."""

import numpy as np
import polars as pl
import pytest
import torch

from domainformer.data import EventTable
from domainformer.data.tabular import TabularSchema
from domainformer.errors import DataError, InputError
from domainformer.inference import Bundle, FusionPredictor, FusionTarget
from domainformer.inference.attribution import IntegratedGradients, Occlusion, explain
from domainformer.inference.attribution.engine import Engine, Variant
from domainformer.inference.attribution.rows import RowReader
from domainformer.inference.attribution.scores import Score
from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    DomainTransformerForSequenceClassification,
    JointFusionConfig,
    JointFusionModel,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

KINDS, COLOURS = ["tea", "cake", "gin"], ["red", "blue"]
SCHEMA = DomainSchema(
    "shop",
    [
        FieldSpec("kind", "categorical_fixed"),
        FieldSpec("words", "text", max_tokens=4),
        FieldSpec("amount", "numerical_continuous", n_bins=5),
        FieldSpec("colour", "categorical_fixed"),
    ],
)
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def make_table(n=8, seed=0, most=7):
    """Histories of different lengths, with nulls in every field."""
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(n), rng.integers(2, most, n))
    size = len(owners)
    frame = pl.DataFrame(
        {
            "who": owners,
            "at": np.arange(size),
            "kind": rng.choice([*KINDS, None], size).tolist(),
            "words": [f"shop {i % 5}" if i % 9 else None for i in range(size)],
            "amount": rng.normal(20, 9, size),
            "colour": rng.choice([*COLOURS, None], size).tolist(),
        }
    ).with_columns(amount=pl.when(pl.col("at") % 11 != 0).then("amount"))
    return EventTable.of(frame, entity="who", time="at")


TABLE = make_table()


@pytest.fixture(scope="module")
def tokenizer():
    return DomainTokenizer(SCHEMA, bpe_vocab_size=260).fit(TABLE)


def config(tokenizer, **changes):
    sizes = {**SIZES, "vocab_size": tokenizer.vocab_size, "max_position_embeddings": 64, **changes}
    return DomainTransformerConfig.preset("tiny", **sizes)


def wide(model):
    """Weights large enough that a random model is far from linear."""
    with torch.no_grad():
        for weights in model.parameters():
            if weights.ndim == 2:
                weights.mul_(6.0)
    return model.eval()


@pytest.fixture(scope="module")
def classifier(tokenizer):
    torch.manual_seed(0)
    model = DomainTransformerForSequenceClassification(config(tokenizer, num_labels=3))
    record = {"task": {"label": "class", "classes": ["a", "b", "c"]}, "context": 64}
    return Bundle(wide(model), tokenizer, SCHEMA, record)


@pytest.fixture(scope="module")
def causal(tokenizer):
    return language_model(tokenizer, copy_heads=0)


@pytest.fixture(scope="module")
def copying(tokenizer):
    return language_model(tokenizer, copy_heads=2)


def language_model(tokenizer, copy_heads):
    torch.manual_seed(1)
    model = DomainTransformerForCausalLM(config(tokenizer, copy_heads=copy_heads))
    with torch.no_grad():
        for weights in model.model.parameters():
            if weights.ndim == 2:
                weights.mul_(4.0)
        if copy_heads:
            model.copy_head.sentinel.bias.fill_(-1.0)  # copies decide
    return Bundle(model.eval(), tokenizer, SCHEMA, {"context": 64})


@pytest.fixture(scope="module")
def fusion(tokenizer):
    torch.manual_seed(2)
    rng = np.random.default_rng(2)
    frame = pl.DataFrame(
        {
            "who": np.arange(8),
            "income": rng.normal(3, 1, 8),
            "age": [None if i % 7 == 0 else float(i) for i in range(8)],
            "region": list("nsnsnsns"),
        }
    )
    tabular = TabularSchema.fit(frame, exclude=["who"], min_count=2)
    targets = (
        FusionTarget("late", "binary", ("no", "yes")),
        FusionTarget("segment", "multiclass", ("x", "y", "z")),
        FusionTarget("spend", "regression", center=100.0, scale=20.0),
    )
    shape = [{"name": t.name, "kind": t.kind, "outputs": t.outputs} for t in targets]
    model = JointFusionModel(
        JointFusionConfig(
            backbone=config(tokenizer),
            n_numbers=2,
            category_sizes=tabular.sizes,
            targets=shape,
            frequency_scale=0.3,
        )
    )
    model.tabular.numbers.fit(tabular.encode(frame).numbers)
    torch.nn.init.normal_(model.tabular.numbers.missing)
    return FusionPredictor(model.eval(), tabular, targets, "who", tokenizer, context=64), frame


class LinearScore(Score):
    """The sum of w·e over the real tokens: every attribution is known."""

    def __init__(self, model, weights):
        super().__init__(model)
        self.weights = weights

    def __call__(self, batch):
        embedded = batch.embedded(self.model.model.embed_tokens.weight)
        return ((embedded @ self.weights) * batch.mask).sum(1, keepdim=True)


@pytest.fixture(scope="module")
def linear(classifier):
    reader = RowReader(classifier.tokenizer)
    events = classifier.tokenizer.encode(TABLE)
    rows = [
        reader.read(np.array([1, *np.asarray(events.history(i).ids)]))
        for i in range(len(TABLE.entity_ids))
    ]
    weights = torch.randn(16, generator=torch.Generator().manual_seed(3))
    score = LinearScore(classifier.model, weights)
    value_of_id = (classifier.model.model.embed_tokens.weight @ weights).detach().numpy()
    return Engine(score, rows, reader, None, 512), value_of_id


def test_the_owners_of_tokens_equal_a_walk_over_events(tokenizer):
    events, reader = tokenizer.encode(TABLE), RowReader(tokenizer)
    for index in range(TABLE.n_entities):
        history = events.history(index)
        row = reader.read(np.array([1, *np.asarray(history.ids)]))
        owners = [(-1, None)]
        for number in range(history.n_events):
            field = None
            for token in history.event(number):
                slot = tokenizer.layout.slot_of_id[token]
                field = tokenizer.slots[slot].field if slot >= 0 else field
                owners.append((number, field))
        found = [reader.fields[f] if f >= 0 else None for f in row.field]
        assert list(zip(row.event.tolist(), found, strict=True)) == owners
        assert row.n_events == history.n_events
        units = sorted({owner for owner in owners if owner[0] >= 0}, key=owners.index)
        names = [reader.fields[f] for f in row.unit_field]
        assert list(zip(row.unit_event.tolist(), names, strict=True)) == units


@pytest.mark.parametrize("steps", [1, 5])
def test_gradients_of_a_linear_score_are_exact(linear, steps):
    engine, value = linear
    none = np.zeros(len(engine.rows), np.int64)
    found = IntegratedGradients(steps=steps).attribute(engine, none, np.zeros(0), None)
    for row, tokens, units in zip(engine.rows, found.tokens, found.units, strict=True):
        expected = value[row.ids] - value[engine.reader.missing(row)]
        np.testing.assert_allclose(tokens, expected, atol=1e-4)
        sums = [expected[a:b].sum() for a, b in zip(row.starts, row.stops, strict=True)]
        np.testing.assert_allclose(units, sums, atol=1e-4)


def test_gradients_from_the_mean_of_a_linear_score_are_exact(linear, tokenizer):
    engine, value = linear
    none = np.zeros(len(engine.rows), np.int64)
    found = IntegratedGradients(steps=2, baseline="mean").attribute(engine, none, np.zeros(0), None)
    seen = np.concatenate([row.ids[row.free] for row in engine.rows])
    for slot in tokenizer.slots:
        own = np.isin(seen, slot.ids)
        mean = value[seen[own]].mean()
        for row, tokens in zip(engine.rows, found.tokens, strict=True):
            here = np.isin(row.ids, slot.ids)
            np.testing.assert_allclose(tokens[here], value[row.ids[here]] - mean, atol=1e-4)


@pytest.mark.parametrize("leave", ["field", "event"])
def test_occlusion_of_a_linear_score_is_exact(linear, leave):
    engine, value = linear
    none = np.zeros(len(engine.rows), np.int64)
    scores = np.array([value[row.ids].sum() for row in engine.rows])
    found = Occlusion(leave=leave).attribute(engine, none, scores, None)
    for row, units in zip(engine.rows, found.units, strict=True):
        if leave == "event":
            expected = [value[row.ids[row.event == e]].sum() for e in range(row.n_events)]
        else:
            missing = value[engine.reader.missing(row)]
            expected = [  # a text loses its pieces, and its marker becomes MISSING
                value[row.ids[a:b]].sum() - missing[a]
                for a, b in zip(row.starts, row.stops, strict=True)
            ]
        np.testing.assert_allclose(units, expected, atol=1e-4)


@pytest.fixture(scope="module")
def cases(classifier, causal, copying, fusion):
    predictor, frame = fusion
    return {
        "class": (classifier, None, {}),
        "next text": (causal, None, {"field": "words"}),
        "copied text": (copying, None, {"field": "words"}),
        "copied colour": (copying, None, {"field": "colour"}),
        "other side": (predictor, frame, {"choice": "no"}),
        "multiclass": (predictor, frame, {"target": "segment"}),
        "regression": (predictor, frame, {"target": "spend"}),
    }


NAMES = [
    *("class", "next text", "copied text", "copied colour"),
    *("other side", "multiclass", "regression"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("baseline", ["missing", "mean"])
def test_attributions_are_complete_and_steps_close_the_gap(cases, name, baseline):
    source, examples, options = cases[name]
    few, many = (
        explain(source, examples, TABLE, method=IntegratedGradients(steps, baseline), **options)
        for steps in (2, 48)
    )
    moved = (many.examples["score"] - many.examples["baseline"]).abs().mean()
    # These models are made sharp on purpose: few steps miss, and more close most of the gap.
    assert moved > 0.02
    assert many.convergence["relative_gap"] < 0.1
    assert many.convergence["mean_gap"] < 0.2 * few.convergence["mean_gap"]
    total = many.tokens.group_by("example", maintain_order=True).agg(pl.col("attribution").sum())
    of_units = many.units.group_by("example", maintain_order=True).agg(pl.col("attribution").sum())
    np.testing.assert_allclose(total["attribution"], of_units["attribution"], atol=1e-9)


def test_a_smooth_score_is_complete_to_rounding(classifier):
    torch.manual_seed(5)
    model = DomainTransformerForSequenceClassification(classifier.model.config).eval()
    torch.nn.init.normal_(model.score.weight)
    bundle = Bundle(model, classifier.tokenizer, SCHEMA, classifier.record)
    found = explain(bundle, None, TABLE, method=IntegratedGradients(steps=24))
    assert found.convergence["relative_gap"] < 1e-4
    assert not found.notes


def test_too_few_steps_are_told(classifier):
    """The sabotage twin of completeness: one step of a curved score does not sum up."""
    found = explain(classifier, None, TABLE, method=IntegratedGradients(steps=1))
    assert found.convergence["relative_gap"] > 0.05
    assert "take more than 1 steps" in found.notes[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("method", [IntegratedGradients(steps=4), Occlusion(), Occlusion("event")])
def test_batches_and_neighbours_never_matter(cases, name, method):
    source, examples, options = cases[name]
    keys = pl.Series("who", [3, 0, 5, 7])
    if examples is not None:
        examples = examples[keys.to_list()]
    whole = explain(source, keys if examples is None else examples, TABLE, method=method, **options)
    for place in (0, 3):
        alone = explain(
            source,
            keys[place : place + 1] if examples is None else examples[place : place + 1],
            TABLE,
            method=method,
            batch_tokens=1,
            **options,
        )
        own = whole.units.filter(pl.col("example") == place)
        assert own["value"].equals(alone.units["value"])
        np.testing.assert_allclose(own["attribution"], alone.units["attribution"], atol=2e-4)
        features = whole.features.filter(pl.col("example") == place)["attribution"]
        np.testing.assert_allclose(features, alone.features["attribution"], atol=2e-4)


def test_scores_are_what_the_model_says(classifier, fusion):
    found = explain(classifier, None, TABLE, method=Occlusion("event"))
    events, bos = classifier.tokenizer.encode(TABLE), 1
    for row in found.examples.iter_rows(named=True):
        ids = torch.tensor([[bos, *events.history(row["example"]).ids.tolist()]])
        p = classifier.model(ids).logits.softmax(-1)[0].detach().numpy()
        assert row["choice"] == "abc"[p.argmax()]
        assert row["score"] == pytest.approx(np.log(p.max() / (1 - p.max())), abs=1e-4)
    predictor, frame = fusion
    predicted = predictor.predict(frame, TABLE)
    late = explain(predictor, frame, TABLE, method=Occlusion("event")).examples["score"].to_numpy()
    np.testing.assert_allclose(1 / (1 + np.exp(-late)), predicted["late"], atol=1e-5)
    spend = explain(predictor, frame, TABLE, method=Occlusion("event"), target="spend")
    np.testing.assert_allclose(spend.examples["score"], predicted["spend"], atol=1e-3)


@pytest.mark.parametrize("name", ["next text", "copied text", "copied colour"])
def test_next_event_scores_equal_the_models_own_loss(cases, name):
    """The slow way: the whole model on ids alone, one history at a time, with and without units."""
    causal, _, options = cases[name]
    field, keys = options["field"], pl.Series("who", [2, 5])
    found = explain(causal, keys, TABLE, method=Occlusion(), field=field)
    events, reader = causal.tokenizer.encode(TABLE), RowReader(causal.tokenizer)
    place = {name: i for i, name in enumerate(TABLE.entity_ids.to_list())}

    def score(ids, scored):
        ids = torch.from_numpy(ids)[None]
        log_p = causal.model(ids).logits[0, :-1].log_softmax(-1)
        return float(log_p.gather(1, ids[0, 1:, None])[-scored:].sum().detach())

    for example, key in enumerate(keys):
        ids = np.array([1, *np.asarray(events.history(place[key]).ids)], np.int64)
        row = reader.question(ids, reader.fields.index(field))
        whole = score(row.ids, row.scored)
        own = found.units.filter(pl.col("example") == example)["attribution"]
        assert found.examples["score"][example] == pytest.approx(whole, rel=1e-4)
        for unit, attribution in enumerate(own):
            without = score(reader.without(row, unit), row.scored)
            assert whole - without == pytest.approx(attribution, rel=1e-3, abs=2e-3)


def test_features_without_a_value_are_the_baseline(fusion):
    """A missing feature moves nothing; all features and units absent give the baseline."""
    predictor, frame = fusion
    for method in (IntegratedGradients(steps=8), Occlusion()):
        found = explain(predictor, frame, TABLE, method=method)
        ages = found.features.filter(pl.col("feature") == "age")["attribution"].to_numpy()
        absent = frame["age"].is_null().to_numpy()
        np.testing.assert_allclose(ages[absent], 0, atol=1e-6)
        assert (np.abs(ages[~absent]) > 1e-6).all()
        names = found.features["feature"].unique(maintain_order=True).to_list()
        assert names == ["income", "age", "region"]


def test_a_tabular_model_alone_is_explained():
    torch.manual_seed(0)
    frame = pl.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.5, None, 1.5]})
    tabular = TabularSchema.fit(frame)
    for embedding in ("plain", "linear", "plr"):
        settings = JointFusionConfig(
            n_numbers=2,
            numeric_embedding=embedding,
            targets=[{"name": "y", "kind": "regression", "outputs": 1}],
        )
        model = JointFusionModel(settings).eval()
        predictor = FusionPredictor(model, tabular, (FusionTarget("y", "regression"),), "id")
        found = explain(predictor, frame, method=IntegratedGradients(steps=64))
        assert found.convergence["largest_gap"] < 5e-3
        assert not found.units.height
        assert found.features["attribution"][3] == pytest.approx(0, abs=1e-6)


def test_occlusion_and_gradients_start_from_the_same_baseline_without_text(tokenizer, classifier):
    schema = DomainSchema("s", [f for f in SCHEMA.fields if f.name != "words"])
    other = DomainTokenizer(schema).fit(TABLE)
    torch.manual_seed(4)
    model = DomainTransformerForSequenceClassification(config(other, num_labels=2))
    bundle = Bundle(wide(model), other, schema, {"context": 64})
    names = ("integrated-gradients", "occlusion")
    first, second = (explain(bundle, None, TABLE, method=name) for name in names)
    np.testing.assert_allclose(first.examples["baseline"], second.examples["baseline"], atol=1e-4)


def test_what_cannot_be_explained_is_refused(classifier, causal, fusion):
    predictor, frame = fusion
    for call, error, words in (
        (lambda: explain(classifier, None, TABLE, field="kind"), InputError, "means nothing"),
        (lambda: explain(causal, None, TABLE, choice="a"), InputError, "means nothing"),
        (lambda: explain(causal, None, TABLE, field="kinds"), InputError, "no field 'kinds'"),
        (lambda: explain(classifier, None, TABLE, choice="d"), InputError, "no class 'd'"),
        (lambda: explain(classifier, [99], TABLE), InputError, "no entity 99"),
        (lambda: explain(classifier, [], TABLE), DataError, "no examples"),
        (lambda: explain(classifier), DataError, "no events"),
        (lambda: explain(predictor, [1], TABLE), DataError, "frame of examples"),
        (lambda: explain(predictor, frame, TABLE, target="no"), InputError, "no target"),
        (
            lambda: explain(predictor, frame, TABLE, target="spend", choice=1),
            InputError,
            "regression",
        ),
        (lambda: explain(classifier, None, TABLE, method="shap"), InputError, "no method"),
        (lambda: IntegratedGradients(steps=0), InputError, "1 or more"),
        (lambda: Occlusion(leave="token"), InputError, "no leave"),
    ):
        with pytest.raises(error, match=words):
            call()


def test_histories_without_the_value_are_left_out_and_told(causal):
    frame = TABLE.frame.with_columns(
        kind=pl.when(pl.col("who") == 4).then(None).otherwise(pl.col("kind"))
    )
    table = EventTable.of(frame, entity="who", time="at")
    found = explain(causal, [4, 5], table, field="kind", method=Occlusion("event"))
    assert found.examples["key"].to_list() == [4, 5]  # a null is a value that can be asked for
    assert found.examples["n_events"].min() >= 1


def test_variants_of_one_example_keep_their_order(linear):
    engine, value = linear
    variants = [Variant(i, engine.rows[i].ids[: 3 + i % 4]) for i in (5, 2, 7, 1)]
    found = engine.values(variants, np.zeros(len(engine.rows), np.int64))
    np.testing.assert_allclose(found, [value[v.ids].sum() for v in variants], atol=1e-4)
