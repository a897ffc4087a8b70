import polars as pl

from domainformer.reports.collect import collect
from domainformer.reports.labels import labels_of
from domainformer.run import read_run


def test_everything_of_a_full_run_is_found(full_run, inferred):
    run = collect(full_run, inferred=inferred)
    assert run.tokenizer is not None
    assert len(run.slots) == len(run.tokenizer.slots)
    assert run.time_kind == "datetime"
    assert run.notes[0].startswith("3 rows without")
    assert len(run.metrics) == 15
    assert run.probe["label"].startswith("<script>")
    assert run.map.entities == 30
    assert "preset: tiny" in run.config_text


def test_example_is_three_training_events(full_run):
    run = collect(full_run)
    assert len(run.example) == 3
    first = run.example[0]
    assert [token.slot for token in first[:3]] == ["kind", "count", "amount_sign"]
    assert first[-1].pieces > 0
    assert first[-1].text.startswith("<script")


def test_what_is_missing_is_none(build_run):
    run = collect(build_run())
    assert run.tokenizer is None
    assert run.counts is None
    assert run.evaluation is None
    assert run.probe is None
    assert run.map is None
    assert (run.slots, run.example, run.metrics, run.columns) == ([], [], [], [])


def test_labels_come_from_the_table_of_the_run(full_run, table, tmp_path):
    record = read_run(full_run)
    assert labels_of(record, "label") is None  # the table was given in memory
    path = tmp_path / "events.parquet"
    table.frame.write_parquet(path)
    data = {**record.config["data"], "path": str(path)}
    named = record.model_copy(update={"config": {**record.config, "data": data}})
    labels = labels_of(named, "label")
    assert labels.columns == ["client", "label"]
    assert labels["label"].to_list() == [i % 2 for i in range(30)]
    assert labels_of(named, "elsewhere") is None
    assert isinstance(labels, pl.DataFrame)
