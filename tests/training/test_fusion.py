"""Fusion end to end: what neither part tells alone, by seed, from raw rows, through one folder."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal

from domainformer.data import EventTable
from domainformer.errors import ArtifactError, ConfigError, DataError, FingerprintError
from domainformer.inference import (
    FusionPredictor,
    embed,
    late_fusion_frame,
    load_bundle,
    save_bundle,
)
from domainformer.models import (
    DomainTransformerConfig,
    DomainTransformerForCausalLM,
    JointFusionConfig,
    JointFusionModel,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.training import fit_fusion
from domainformer.training.fusion_config import FusionConfig
from domainformer.training.fusion_targets import read_fusion_targets
from domainformer.training.fusion_trainer import fusion_groups

SCHEMA = DomainSchema("kinds", [FieldSpec("kind", "categorical_fixed")])
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
N, TRAIN = 240, 180


def settings(**values):
    rates = {"backbone": 1e-2, "tabular": 1e-2, "head": 1e-2}
    base = {"epochs": 10, "patience": 10, "batch_rows": 16, "context": 16, "rates": rates}
    base |= {"backbone": {"overrides": SMALL}}
    return FusionConfig(**{**base, **values})


@pytest.fixture(scope="module")
def data():
    """The label: the newest kind counts as much as a standard deviation of the number."""
    generator = np.random.default_rng(0)
    events, newest = [], []
    for who in range(N):
        kinds = generator.permutation(["a", "a", "b", "b"])
        events += [(who, day, str(kind)) for day, kind in enumerate(kinds)]
        newest.append(kinds[-1] == "b")
    table = EventTable.of(
        pl.DataFrame(events, schema=["who", "day", "kind"], orient="row"), entity="who", time="day"
    )
    income = generator.normal(size=N)
    frame = pl.DataFrame(
        {
            "who": np.arange(N),
            "income": income,
            "region": generator.choice(["n", "s"], N),
            "late": (np.where(newest, 1, -1) + income > 0).astype(int),
        }
    )
    return table, frame


@pytest.fixture(scope="module")
def fitted(data):
    table, frame = data
    return fit_fusion(frame[:TRAIN], "late", events=table, schema=SCHEMA, config=settings())


def accuracy(predictor, frame, events=None):
    return float(
        ((predictor.predict_array(frame, events) > 0.5) == frame["late"].to_numpy()).mean()
    )


def test_it_learns_what_only_both_parts_together_tell(data, fitted):
    table, frame = data
    test = frame[TRAIN:]
    alone = fit_fusion(frame[:TRAIN], "late", key="who", config=settings())
    history = fit_fusion(
        frame[:TRAIN].select("who", "late"), "late", events=table, schema=SCHEMA, config=settings()
    )
    assert history.model.tabular is None
    best_of_one = max(accuracy(alone, test), accuracy(history, test, table))
    assert accuracy(fitted, test, table) > max(0.9, best_of_one + 0.02)


def few_rows(n, seed=0):
    """Labels that no feature tells alone: whether two signs differ, and a curve."""
    a, b = np.random.default_rng(seed).normal(size=(2, n))
    return pl.DataFrame(
        {"a": a, "b": b, "xor": (a > 0) ^ (b > 0), "curve": np.sin(2 * a) + b**2 / 2}
    )


def test_default_settings_learn_from_a_few_hundred_rows_what_features_tell_only_together():
    test = few_rows(1000, seed=1)
    truth = test["xor"].to_numpy()
    rows = few_rows(180).drop("curve")

    def right(config):
        return ((fit_fusion(rows, "xor", config=config).predict_array(test) > 0.5) == truth).mean()

    assert right(FusionConfig()) > 0.9
    # The twin: counted in passes it stops at 60 steps, while it still guesses.
    assert right(FusionConfig(epochs=20)) < 0.75
    rows = few_rows(300).drop("xor")
    found = fit_fusion(rows, {"curve": "regression"}, config=FusionConfig()).predict_array(test)
    left = np.mean((found - test["curve"].to_numpy()) ** 2) / test["curve"].to_numpy().var()
    assert left < 0.1


def test_the_same_seed_gives_the_same_weights_and_another_does_not(data):
    table, frame = data
    runs = [
        fit_fusion(
            frame[:60], "late", events=table, schema=SCHEMA, config=settings(epochs=1, seed=seed)
        )
        for seed in (3, 3, 4)
    ]
    first, second, third = (run.model.state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["score.weight"], third["score.weight"])


def test_training_stops_and_takes_the_best_weights(data):
    _, frame = data
    noise = frame.with_columns(late=pl.Series(np.random.default_rng(5).integers(0, 2, N)))
    config = settings(epochs=30, patience=2, rates={"tabular": 0.05, "head": 0.05})
    fitted = fit_fusion(noise[:120], "late", key="who", validation=noise[120:], config=config)
    losses = fitted.record["losses"]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 30
    found = fitted.predict_array(noise[120:])
    truth = noise["late"][120:].to_numpy()
    loss = -np.log(np.where(truth == 1, found, 1 - found)).mean()
    assert loss == pytest.approx(losses[best], rel=1e-4)


def test_scaler_categories_and_tokenizer_see_training_rows_alone(data):
    table, frame = data
    train, other = frame[:60], frame[60:120]
    strange = other.with_columns(income=pl.lit(1e6), region=pl.lit("moon"))
    kinds = table.frame.with_columns(
        kind=pl.when(pl.col("who") >= 60).then(pl.lit("z")).otherwise(pl.col("kind"))
    )
    events = EventTable.of(kinds, entity="who", time="day")
    config = settings(epochs=1, model={"scaling": "standard"})
    found = fit_fusion(
        train, "late", events=events, schema=SCHEMA, validation=strange, config=config
    )
    clean = fit_fusion(train, "late", events=table, schema=SCHEMA, validation=other, config=config)
    scaler = found.model.tabular.numbers.scaler
    assert torch.equal(scaler.center, clean.model.tabular.numbers.scaler.center)
    assert float(scaler.center) == pytest.approx(train["income"].mean(), abs=1e-6)
    assert found.tabular == clean.tabular
    assert found.tokenizer.fingerprint == clean.tokenizer.fingerprint


def test_every_parameter_is_in_one_group_with_its_rate():
    backbone = DomainTransformerConfig.preset("tiny", vocab_size=9, **SMALL)
    model = JointFusionModel(JointFusionConfig(backbone=backbone, n_numbers=2, category_sizes=[3]))
    groups = fusion_groups(model, settings(rates={"backbone": 1e-5, "head": 0.3}))
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(id(p) for p in model.parameters())
    rates = {(group["name"], group["lr"]) for group in groups}
    assert rates == {("backbone", 1e-5), ("tabular", 1e-3), ("cross", 1e-3), ("head", 0.3)}
    free = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    embed = model.tabular.numbers.embed
    assert {id(embed.frequencies), id(model.tabular.numbers.missing)} <= free
    assert id(model.tabular.categories[0].weight) in free
    assert id(model.tabular.cross[0].linear.weight) not in free
    decays = {g["name"]: g["weight_decay"] for g in groups if g["weight_decay"]}
    assert decays == {"backbone": 0.01, "tabular": 0.01, "cross": 0.05, "head": 0.01}


def test_it_starts_from_a_pretrained_backbone_and_can_freeze_it(data, fitted, tmp_path):
    table, frame = data
    torch.manual_seed(7)
    config = DomainTransformerConfig.preset(
        "tiny", vocab_size=fitted.tokenizer.vocab_size, **SMALL, max_position_embeddings=16
    )
    language = DomainTransformerForCausalLM(config)
    bundle = load_bundle(save_bundle(tmp_path / "model", language, fitted.tokenizer))
    rates = {"backbone": 0.0, "tabular": 1e-2, "head": 1e-2}
    frozen = fit_fusion(
        frame[:60], "late", events=table, bundle=bundle, config=settings(epochs=1, rates=rates)
    )
    before = bundle.model.base_model.state_dict()
    after = frozen.model.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert frozen.tokenizer.fingerprint == bundle.tokenizer.fingerprint
    joined = late_fusion_frame(frame.drop("late"), embed(bundle, table), "who")
    assert joined.shape == (N, 3 + 16)
    assert (
        joined.select(pl.selectors.starts_with("embedding_")).null_count().sum_horizontal()[0] == 0
    )


def test_one_folder_predicts_from_raw_rows_as_before(data, fitted, tmp_path):
    table, frame = data
    folder = fitted.save(tmp_path / "fusion")
    assert {"fusion.json", "schema.yaml", "tokenizer.json", "model.safetensors"} <= {
        path.name for path in folder.iterdir()
    }
    loaded = FusionPredictor.load(folder)
    rows = frame[TRAIN:].drop("late")
    assert_frame_equal(loaded.predict(rows, table), fitted.predict(rows, table), abs_tol=1e-6)
    assert loaded.predict(rows, table).columns == ["who", "late"]
    assert loaded.embed(rows, table)["embedding"].dtype.shape == (80,)
    assert loaded.record["losses"] == fitted.record["losses"]
    with pytest.raises(ArtifactError, match="exists already"):
        fitted.save(folder)


def test_a_row_depends_on_itself_alone(data, fitted):
    table, frame = data
    rows = frame[TRAIN:]
    together = fitted.predict_array(rows, table)
    shuffled = rows.sample(fraction=1, shuffle=True, seed=1)
    alone = [float(fitted.predict_array(rows[i : i + 1], table)[0]) for i in range(5)]
    assert np.allclose(together[:5], alone, atol=1e-6)
    back = shuffled.with_columns(p=fitted.predict_array(shuffled, table)).sort("who")["p"]
    assert np.allclose(together, back.to_numpy(), atol=1e-6)


def test_a_damaged_or_mixed_folder_is_refused(fitted, tmp_path):
    folder = fitted.save(tmp_path / "fusion")
    (folder / "fusion.json").write_text("{}")
    with pytest.raises(ArtifactError):
        FusionPredictor.load(folder)
    with pytest.raises(ArtifactError, match="is not a fusion model"):
        (folder / "fusion.json").unlink()
        FusionPredictor.load(folder)
    other = fitted.save(tmp_path / "other")
    _rewrite(other, tokenizer_fingerprint="feedbeef")
    with pytest.raises(FingerprintError, match="trained with another tokenizer"):
        FusionPredictor.load(other)


def _rewrite(folder, **values):
    """Change facts and make the manifest agree, as someone who mixes folders would."""
    from domainformer.artifacts import _write_manifest

    facts = json.loads((folder / "fusion.json").read_text())
    (folder / "fusion.json").write_text(json.dumps({**facts, **values}))
    (folder / "manifest.json").unlink()
    _write_manifest(folder, {})


def test_several_targets_at_once_with_labels_missing(data):
    _, frame = data
    labels = frame.with_columns(
        sum=1000 + 50 * pl.col("income"),
        next=pl.when(pl.col("income") > 0.5).then(pl.lit("x")).when(pl.col("income") > -0.5)
        .then(pl.lit("y")).otherwise(pl.lit("z")),
        late=pl.when(pl.col("who") % 3 > 0).then(pl.col("income") > 0),
    )  # fmt: skip
    config = settings(epochs=8, target_weights={"sum": 0.5})
    predictor = fit_fusion(labels[:TRAIN], ["late", "next", "sum"], key="who", config=config)
    found = predictor.predict(labels[TRAIN:])
    assert found.columns == ["who", "late", "next_x", "next_y", "next_z", "sum"]
    classes = found.select("next_x", "next_y", "next_z").to_numpy()
    assert np.allclose(classes.sum(axis=1), 1)
    assert np.corrcoef(found["sum"], labels["sum"][TRAIN:])[0, 1] > 0.9
    assert abs(found["sum"].mean() - labels["sum"][TRAIN:].mean()) < 15, "in the label's own units"
    assert predictor.predict_array(labels[TRAIN:], target="next").shape == (N - TRAIN, 3)
    assert predictor.model.config.targets[2]["weight"] == 0.5
    with pytest.raises(DataError, match=r"no target 'nxt'[\s\S]*did you mean 'next'"):
        predictor.predict_array(labels, target="nxt")


def test_missing_infinite_and_unknown_values_are_predicted(data, fitted):
    table, frame = data
    rows = frame[TRAIN : TRAIN + 4].with_columns(
        income=pl.Series([None, math.nan, math.inf, -math.inf]),
        region=pl.Series(["moon", None, "n", "s"]),
    )
    found = fitted.predict_array(rows, table)
    assert np.isfinite(found).all()
    same = rows.with_columns(income=pl.Series([math.nan, None, 1e12, -1e12]))
    assert np.array_equal(found, fitted.predict_array(same, table))


def test_entities_without_events_are_read_as_empty_histories(data, fitted):
    table, frame = data
    rows = frame[TRAIN : TRAIN + 2].with_columns(who=pl.Series([TRAIN, 9999]))
    found = fitted.predict_array(rows, table)
    nothing = table.filter(np.zeros(table.n_events, bool))
    assert fitted.predict_array(rows[1:], nothing)[0] == pytest.approx(found[1], abs=1e-6)
    with pytest.raises(DataError, match="none of the examples has an event"):
        fitted.predict(rows[1:], table)


def test_wrong_rows_are_told(data, fitted):
    table, frame = data
    with pytest.raises(DataError, match="reads histories, and no events were given"):
        fitted.predict(frame)
    with pytest.raises(DataError, match=r"no key column 'who'"):
        fitted.predict(frame.drop("who"), table)
    with pytest.raises(DataError, match="keys are null"):
        fitted.predict(frame.with_columns(who=pl.lit(None, dtype=pl.Int64)), table)
    with pytest.raises(DataError, match="lack 1 of 2 columns: 'region'"):
        fitted.predict(frame.drop("region"), table)
    with pytest.raises(DataError, match="it has no rows"):
        fitted.predict(frame[:0], table)


def test_wrong_labels_are_told(data):
    _, frame = data
    one = frame.with_columns(late=pl.lit(1))
    with pytest.raises(DataError, match=r"has 1 class\(es\), and two are needed[\s\S]*found \[1\]"):
        fit_fusion(one, "late")
    with pytest.raises(DataError, match=r"no label column 'lat'[\s\S]*did you mean 'late'"):
        fit_fusion(frame, "lat")
    with pytest.raises(DataError, match="could be classes or amounts"):
        read_fusion_targets(frame, "who")
    assert read_fusion_targets(frame, {"who": "regression"})[0].center == 119.5
    with pytest.raises(DataError, match="has 240 classes and shall be binary"):
        read_fusion_targets(frame, {"who": "binary"})
    with pytest.raises(DataError, match="infinite ones"):
        read_fusion_targets(pl.DataFrame({"y": [1.0, 2.0, math.inf]}), "y")
    with pytest.raises(DataError, match=r"is always 2\.0"):
        read_fusion_targets(pl.DataFrame({"y": [2.0, 2.0]}), {"y": "regression"})
    with pytest.raises(ConfigError, match="no target kind 'binari'"):
        read_fusion_targets(frame, {"late": "binari"})
    with pytest.raises(DataError, match="no row has a label"):
        fit_fusion(frame, "late", validation=frame.with_columns(late=pl.lit(None)), key="who")


def test_wrong_settings_are_told(data):
    table, frame = data
    with pytest.raises(ConfigError, match="need a bundle or a schema"):
        fit_fusion(frame, "late", events=table)
    with pytest.raises(ConfigError, match=r"no setting 'cros_layers'[\s\S]*'cross_layers'"):
        fit_fusion(frame, "late", config=settings(model={"cros_layers": 1}))
    with pytest.raises(ConfigError, match="n_numbers follows from the data"):
        fit_fusion(frame, "late", config=settings(model={"n_numbers": 1}))
    with pytest.raises(ConfigError, match="frequency_scale must be positive"):
        fit_fusion(frame, "late", config=settings(model={"frequency_scale": 0}))
    with pytest.raises(DataError, match="is a field of the events' schema"):
        fit_fusion(frame.with_columns(kind=pl.col("late")), "kind", events=table, schema=SCHEMA)
