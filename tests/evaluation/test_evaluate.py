import io
import json

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

from domainformer.data.splits import split_by_entity, split_by_time
from domainformer.data.table import EventTable
from domainformer.errors import ArtifactError, DataError
from domainformer.evaluation import EVALUATION_FILE, evaluate
from domainformer.inference import embed, load_bundle, save_bundle
from domainformer.models import DomainTransformerConfig, DomainTransformerForCausalLM
from domainformer.run import start_run
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

SCHEMA = DomainSchema(
    "cards",
    [FieldSpec("kind", "categorical_fixed"), FieldSpec("amount", "numerical_continuous", n_bins=4)],
)
QUICK = {"samples": 2, "folds": 3}


def make_frame(entities=60, seed=0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, 9, size=entities)
    n = int(lengths.sum())
    label = rng.integers(2, size=entities)
    return pl.DataFrame(
        {
            "card": np.repeat(np.arange(entities), lengths),
            "day": np.arange(n),
            "kind": rng.choice(["a", "b"], size=n),
            "amount": rng.normal(size=n) + 2 * np.repeat(label, lengths),
            "churned": np.repeat(label, lengths),
        }
    )


@pytest.fixture(scope="module")
def table():
    return EventTable.of(make_frame(), entity="card", time="day")


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    """A run folder as pretrain leaves it, with an untrained model."""
    root = tmp_path_factory.mktemp("runs")
    path = root / "events.parquet"
    table.frame.write_parquet(path)
    split = split_by_entity(table)
    tokenizer = DomainTokenizer(SCHEMA).fit(split.events(table, "train"))
    torch.manual_seed(0)
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    data = {"path": str(path), "entity": "card", "time": "day", "label": "churned"}
    with start_run(root, "cards", kind="pretrain", config={"data": data}) as run:
        run.update(split=split.record)
        tokenizer.encode_to_store(table, run.directory / "store", roles=split.roles)
        save_bundle(run.directory / "model", DomainTransformerForCausalLM(config), tokenizer)
        run.finish({})
    return run.directory


def test_a_run_is_judged_from_its_folder_alone(run):
    evaluation = evaluate(run, label="churned", **QUICK)
    saved = json.loads((run / EVALUATION_FILE).read_text())
    assert saved == json.loads(json.dumps(evaluation.to_json()))
    assert saved["next_event"]["role"] == "test"
    assert saved["subject"]["name"] == "cards"
    assert saved["subject"]["split"]["kind"] == "entity"
    assert evaluation.probe is not None
    assert evaluation.probe.entities == 60
    assert evaluation.probe.figures["aggregates"]["auroc"].value > 0.8
    assert set(evaluation.seconds) == {"next_event", "probe"}


def test_without_a_label_there_is_no_probe(run):
    evaluation = evaluate(run, **QUICK)
    assert evaluation.probe is None
    assert json.loads((run / EVALUATION_FILE).read_text())["probe"] is None


def test_a_bundle_with_a_table_and_its_split_gives_the_same(run, table, tmp_path):
    from_run = evaluate(run, **QUICK)
    output = tmp_path / "found.json"
    split = split_by_entity(table)
    from_bundle = evaluate(run / "model", table=table, split=split, output=output, **QUICK)
    assert from_bundle.next_event.to_json() == from_run.next_event.to_json()
    assert output.is_file()
    assert not (run / "model" / EVALUATION_FILE).exists()
    by_time = evaluate(run / "model", table=table, split=split_by_time(table), **QUICK)
    assert by_time.next_event.candidates != from_run.next_event.candidates


def test_embeddings_and_labels_may_be_given(run, table, tmp_path):
    vectors = embed(load_bundle(run / "model"), table)
    labels = table.frame.select("card", "churned").unique().rename({"churned": "left"})
    path = tmp_path / "labels.parquet"
    labels.write_parquet(path)
    given = evaluate(run, table=table, label="left", labels=path, embeddings=vectors, **QUICK).probe
    own = evaluate(run, label="churned", **QUICK).probe
    assert given.label == "left"
    assert given.figures == own.figures


def test_the_tables_can_be_read(run):
    evaluation = evaluate(run, label="churned", **QUICK)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(evaluation.render())
    text = console.export_text()
    for word in ("history alone", "kind", "amount", "own", "Probe of 'churned'", "auroc"):
        assert word in text


def test_a_schema_that_reads_the_label_is_refused(run, table, tmp_path):
    """The planted leak: a model trained with the label as a field makes every probe worthless."""
    schema = DomainSchema("leaky", [*SCHEMA.fields, FieldSpec("churned", "categorical_fixed")])
    tokenizer = DomainTokenizer(schema).fit(table)
    config = DomainTransformerConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=64,
    )
    save_bundle(tmp_path / "leaky", DomainTransformerForCausalLM(config), tokenizer)
    with pytest.raises(DataError, match="'churned' is a field of the schema"):
        evaluate(
            tmp_path / "leaky",
            table=table,
            split=split_by_entity(table),
            label="churned",
            **QUICK,
        )


def test_what_is_missing_is_named(run, table, tmp_path):
    with pytest.raises(ArtifactError, match="neither a run nor a model"):
        evaluate(tmp_path)
    with pytest.raises(DataError, match="no events to be judged on"):
        evaluate(run / "model")
    with pytest.raises(DataError, match="has no split"):
        evaluate(run / "model", table=table)
    with pytest.raises(DataError, match="made for another table"):
        evaluate(run / "model", table=table.take_entities([0, 1]), split=split_by_entity(table))
