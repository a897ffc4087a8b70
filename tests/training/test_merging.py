"""Merges from the configuration to the bundle, and what the bundle is asked for then."""

import json

import numpy as np
import polars as pl
import pytest

from domainformer.artifacts import write_json
from domainformer.config import build
from domainformer.data import EventTable
from domainformer.data.simulate import simulate
from domainformer.data.splits import TEST
from domainformer.data.store import TokenStore
from domainformer.errors import ArtifactError, ConfigError, FingerprintError, InputError
from domainformer.evaluation import evaluate
from domainformer.inference import (
    embed,
    embed_to_parquet,
    extend_bundle,
    generate,
    load_bundle,
    save_bundle,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import ActionPieceMerges
from domainformer.training import RunConfig, finetune, pretrain
from domainformer.training.engine import sequence_rows
from domainformer.training.merging import check_schema
from domainformer.training.preparation import Prepared

SCHEMA = DomainSchema(
    "cards",
    [
        FieldSpec("amount", "numerical_continuous", n_bins=4),
        FieldSpec("category", "categorical_fixed"),
        FieldSpec("channel", "categorical_fixed"),
    ],
)
TABLE = simulate("finance", entities=40, events_per_entity=16)


def config_of(root, merges, name="run", **training):
    return build(
        RunConfig,
        {
            "data": {"entity": TABLE.entity, "time": TABLE.time},
            "tokenizer": {"merges": merges},
            "model": {"overrides": {"num_hidden_layers": 1, "hidden_size": 16}},
            "training": {
                "max_steps": 4, "context": 48, "batch_tokens": 256, "quiet": True, **training,
            },
            "output": {"root": str(root), "name": name},
        },
    )  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("merged")
    kinds = {
        "plain": {"vocab_size": 90},
        "permuted": {"vocab_size": 90, "permutations": True},
        "across": {"vocab_size": 120, "across_events": True},
    }
    return {
        name: pretrain(config_of(root, merges, name), table=TABLE, schema=SCHEMA)
        for name, merges in kinds.items()
    }


@pytest.fixture(scope="module")
def bundles(runs):
    return {name: load_bundle(run.model_dir) for name, run in runs.items()}


def test_the_bundle_has_its_merges(runs, bundles):
    for name, bundle in bundles.items():
        assert bundle.merges.n_merges > 5
        assert bundle.model.config.vocab_size == bundle.merges.vocab_size
        assert bundle.fingerprint == bundle.merges.fingerprint != bundle.tokenizer.fingerprint
        assert bundle.permuted == (name == "permuted")
        assert bundle.merges.crosses_events == (name == "across")
        assert ActionPieceMerges.load(runs[name].run_dir / "merges.json") == bundle.merges


def test_merges_are_learned_from_training_events_alone(runs, bundles):
    store = TokenStore.open(runs["plain"].run_dir / "store")
    events = store.events()
    assert (events.roles == TEST).any()
    learn = {"vocab_size": 90, "slot_of_id": bundles["plain"].tokenizer.layout.slot_of_id}
    own = ActionPieceMerges.fit(events, across_events=False, **learn)
    every = ActionPieceMerges.fit(events, across_events=False, train_roles=None, **learn)
    assert own == bundles["plain"].merges
    assert every != own  # the twin: they do differ where test events are seen


def test_rows_hold_merged_ids_and_every_training_event(runs, bundles):
    for name, bundle in bundles.items():
        store = TokenStore.open(runs[name].run_dir / "store")
        events = store.events()
        prepared = Prepared(bundle.tokenizer, store, runs[name].split, bundle.merges)
        config = build(RunConfig, runs[name].record.config)
        train_rows, eval_rows = sequence_rows(prepared, config)
        for epoch in (0, 1):
            train_rows.set_epoch(epoch)
            ids = np.concatenate([train_rows[i]["input_ids"] for i in range(len(train_rows))])
            # Merged tokens of all rows stand for the fields of all training events.
            sizes = np.diff(bundle.merges.table.offsets)[ids[ids != bundle.tokenizer.bos_id]]
            assert sizes.sum() == 3 * (events.roles == 0).sum()
            assert sizes.max() > 1
        assert eval_rows is not None


def test_permuted_rows_differ_between_epochs_and_follow_the_seed(runs, bundles):
    store = TokenStore.open(runs["permuted"].run_dir / "store")
    bundle = bundles["permuted"]
    prepared = Prepared(bundle.tokenizer, store, runs["permuted"].split, bundle.merges)
    config = build(RunConfig, runs["permuted"].record.config)

    def ids_of(epoch):
        rows, _ = sequence_rows(prepared, config)
        rows.set_epoch(epoch)
        return [rows[i]["input_ids"].tolist() for i in range(len(rows))]

    assert ids_of(1) == ids_of(1) != ids_of(2)


def test_embeddings_are_the_same_from_a_table_a_store_and_merged_events(runs, bundles):
    for name, bundle in bundles.items():
        of_table = embed(bundle, TABLE)
        vectors = of_table["embedding"].to_numpy()
        store = TokenStore.open(runs[name].run_dir / "store")
        for source in (store, bundle.encode(TABLE)):
            assert np.allclose(embed(bundle, source)["embedding"].to_numpy(), vectors, atol=1e-5)


def test_an_embedding_reads_merged_tokens(bundles):
    bundle = bundles["plain"]
    plain = bundle.tokenizer.encode(TABLE)
    merged = bundle.encode(plain)
    assert merged.n_tokens < 0.8 * plain.n_tokens
    assert bundle.encode(merged) is merged
    other = ActionPieceMerges(bundle.merges.table, base_fingerprint="another").fingerprint
    foreign = bundle.tokenizer.encode(TABLE)
    foreign = type(foreign)(**{**foreign.__dict__, "tokenizer_fingerprint": other})
    with pytest.raises(FingerprintError, match="another tokenizer"):
        embed(bundle, foreign)


def test_embeddings_average_over_permutations(bundles, tmp_path):
    bundle = bundles["permuted"]
    averaged = embed(bundle, TABLE, permutations=3)
    encodings = bundle.merges.permutations(bundle.tokenizer.encode(TABLE), 3)
    each = [embed(bundle, one)["embedding"].to_numpy() for one in encodings]
    assert not np.allclose(each[0], each[1])
    assert np.allclose(averaged["embedding"].to_numpy(), np.mean(each, axis=0), atol=1e-5)
    again = embed(bundle, bundle.encode(TABLE), permutations=3)
    assert np.allclose(again["embedding"].to_numpy(), averaged["embedding"].to_numpy())
    path = embed_to_parquet(bundle, TABLE, tmp_path / "vectors.parquet", permutations=3)
    assert pl.read_parquet(path).shape == averaged.shape


def test_generated_events_are_whole(bundles):
    for name in ("plain", "permuted"):
        futures = generate(bundles[name], TABLE, n_events=5, n_samples=2, seed=1)
        assert futures.height == TABLE.n_entities * 2 * 5
        assert futures["step"].to_list()[:5] == [0, 1, 2, 3, 4]
        known = set(TABLE.frame["category"].unique().to_list()) | {None}
        assert set(futures["category"].unique().to_list()) <= known
        assert futures["amount"].null_count() < futures.height
        again = generate(bundles[name], TABLE, n_events=5, n_samples=2, seed=1)
        assert futures.equals(again)


def test_evaluation_tells_of_every_field(runs):
    for name in ("plain", "permuted"):
        found = evaluate(runs[name].run_dir, max_events=40, samples=4)
        contest = found.next_event
        assert [slot.name for slot in contest.view("history_only")] == list(
            dict.fromkeys(slot.name for slot in contest.slots)
        )
        assert contest.view("within_event") == []
        assert all(np.isfinite(slot.log_loss["model"]) for slot in contest.slots)
        assert (contest.event_log_loss is None) == (name == "permuted")
        assert any("several fields" in note for note in found.notes)
        found.render()
        json.loads((runs[name].run_dir / "evaluation.json").read_text())


def test_tokens_of_several_events_refuse_to_tell_of_one(runs, bundles):
    for ask in (
        lambda: evaluate(runs["across"].run_dir, max_events=10),
        lambda: generate(bundles["across"], TABLE, n_events=1),
    ):
        with pytest.raises(ArtifactError, match="across_events: false"):
            ask()


def test_a_bundle_with_merges_is_fine_tuned(bundles, tmp_path):
    names = TABLE.entity_ids
    labels = pl.DataFrame({TABLE.entity: names, "label": [i % 2 for i in range(len(names))]})
    for name, bundle in bundles.items():
        result = finetune(
            bundle.folder,
            TABLE,
            "label",
            label_table=labels,
            output=tmp_path / name,
            overrides=["training.max_steps=2", "training.quiet=true"],
        )
        classifier = load_bundle(result.model_dir)
        assert classifier.merges == bundle.merges
        assert classifier.permuted == bundle.permuted
        assert embed(classifier, TABLE).height == TABLE.n_entities


def test_a_stopped_run_keeps_its_merges(tmp_path):
    merges = {"vocab_size": 90, "permutations": True}
    whole = pretrain(config_of(tmp_path, merges, "whole"), table=TABLE, schema=SCHEMA)
    first = config_of(tmp_path, merges, "half", save_every=2)
    from domainformer.training import engine

    original = engine.save_bundle

    def power_cut(*_, **__):
        raise OSError("power cut")

    engine.save_bundle = power_cut
    try:
        with pytest.raises(OSError, match="power cut"):
            pretrain(first, table=TABLE, schema=SCHEMA)
    finally:
        engine.save_bundle = original
    resumed = pretrain(config_of(tmp_path, merges, "half", save_every=2, resume=True))
    one, other = load_bundle(whole.model_dir), load_bundle(resumed.model_dir)
    assert one.merges == other.merges
    for name, weight in one.model.state_dict().items():
        assert np.allclose(weight.numpy(), other.model.state_dict()[name].numpy()), name


def test_parts_of_two_bundles_are_refused(bundles, tmp_path):
    plain, across = bundles["plain"], bundles["across"]
    with pytest.raises(FingerprintError, match="vocabular"):
        save_bundle(tmp_path / "a", plain.model, plain.tokenizer, merges=across.merges)
    with pytest.raises(FingerprintError):
        save_bundle(tmp_path / "b", plain.model, plain.tokenizer)
    other = ActionPieceMerges(plain.merges.table, base_fingerprint="f00d")
    with pytest.raises(FingerprintError, match="another tokenizer"):
        save_bundle(tmp_path / "c", plain.model, plain.tokenizer, merges=other)
    with pytest.raises(FingerprintError, match="cannot be extended"):
        extend_bundle(plain.folder, plain.tokenizer, tmp_path / "d")
    with pytest.raises(InputError, match="one order"):
        without = type(plain)(plain.model, plain.tokenizer, plain.schema)
        embed(without, TABLE, permutations=2)


def test_a_bundle_without_its_merges_is_incomplete(bundles, tmp_path):
    plain = bundles["plain"]
    folder = save_bundle(tmp_path / "m", plain.model, plain.tokenizer, merges=plain.merges)
    facts = json.loads((folder / "domainformer.json").read_text())
    (folder / "merges.json").unlink()
    with pytest.raises(ArtifactError, match=r"merges\.json"):
        load_bundle(folder)
    write_json(folder / "domainformer.json", {**facts, "merges_fingerprint": None})
    with pytest.raises((ArtifactError, FingerprintError)):
        load_bundle(folder, verify=False)


@pytest.mark.parametrize(
    ("merges", "training", "match"),
    [
        ({"vocab_size": 90}, {"substitute_values": 0.1}, "substitute_values"),
        (
            {"vocab_size": 90, "permutations": True},
            {"objectives": {"next_token": 1.0, "contrastive": 0.5}},
            "contrastive",
        ),
        ({"vocab_size": 90, "permutation": True}, {}, "permutations"),
    ],
)
def test_what_does_not_go_together_is_refused_in_the_configuration(
    tmp_path, merges, training, match
):
    with pytest.raises(ConfigError, match=match):
        config_of(tmp_path, merges, **training)


def test_contrastive_slices_of_merged_events(tmp_path):
    objectives = {"next_token": 1.0, "contrastive": 0.5}
    config = config_of(
        tmp_path, {"vocab_size": 90}, objectives=objectives, contrastive={"min_events": 2}
    )
    result = pretrain(config, table=TABLE, schema=SCHEMA)
    assert np.isfinite(result.metrics["eval_loss"])


def test_text_and_shares_of_sources_are_refused_before_fitting(tmp_path):
    notes = [f"note {i}" for i in range(20)]
    frame = pl.DataFrame({"who": range(20), "note": notes, "kind": ["x", "y"] * 10})
    table = EventTable.of(frame, entity="who")
    text = DomainSchema("s", [FieldSpec("note", "text"), FieldSpec("kind", "categorical_fixed")])
    config = build(
        RunConfig,
        {
            "split": {"kind": "entity"},
            "tokenizer": {"merges": {"vocab_size": 90}},
            "output": {"root": str(tmp_path)},
        },
    )
    with pytest.raises(ConfigError, match="note"):
        pretrain(config, table=table, schema=text)
    shared = DomainSchema(
        "s",
        [FieldSpec("kind", "categorical_fixed"), FieldSpec("who", "categorical_fixed")],
        sources={"x": {"fields": ["kind"], "share": 0.5}, "y": {"fields": ["who"], "share": 0.5}},
        source_column="kind",
    )
    with pytest.raises(ConfigError, match="share"):
        check_schema(shared)
