"""From a configuration to a table: what is finished stays, what helps is seen, what hurts, too."""

import json

import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.errors import ConfigError, DataError
from domainformer.evaluation import task_from_labels
from domainformer.evaluation.ablations import RESULT_FILE, ablate, trials
from domainformer.evaluation.ablations.downstream import _of_all, from_task
from domainformer.inference import load_bundle
from domainformer.schema import DomainSchema, FieldSpec

AXES = {"data": ["noise"], "merges": [60], "rate": {"training.learning_rate": [1e-12]}}


@pytest.fixture
def small(configure):
    return configure(axes=AXES, training={"max_steps": 50, "learning_rate": 0.02})


def test_what_hurts_is_seen_and_what_is_finished_stays(small, table, schema, monkeypatch):
    done = []
    first = ablate(small, table=table, schema=schema, progress=lambda *at: done.append(at))
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    # Sabotage twin: a model that does not learn is told apart, one without the noise is not worse.
    sabotaged = first.axis("rate")[1].loss.difference
    assert sabotaged.better is False
    assert sabotaged.value > 0.5
    without = first.axis("data")[1]
    assert without.loss.difference.value < sabotaged.value / 2
    assert without.tokens_per_event < first.axis("data")[0].tokens_per_event
    # Merged, the same events are told by fewer tokens, and all fields are still compared.
    base, merged = first.axis("merges")
    assert merged.tokens_per_event < base.tokens_per_event
    assert first.common["merges"].joint
    assert set(first.common["merges"].loss) == {"kind", "noise", "amount", "day.dow", "day.elapsed"}
    assert abs(merged.loss.difference.value) < sabotaged.value
    assert "noise" not in first.common["data: without noise"].loss
    assert "noise" in first.common["rate"].loss
    assert first.notes[0].startswith("data: without noise: not compared on noise")
    assert any(note.startswith("one seed") for note in first.notes)

    # The second time nothing is trained; what was taken away is made again, to the same figures.
    monkeypatch.setattr(trials, "pretrain", lambda *_, **__: pytest.fail("trained again"))
    again = ablate(small, table=table, schema=schema)
    assert again.to_json() == first.to_json()
    assert json.loads((small.folder / RESULT_FILE).read_text())["measure"] is None
    (small.folder / "runs" / "data-without-noise" / "seed-0" / trials.TRIAL_FILE).unlink()
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        ablate(small, table=table, schema=schema)


def test_a_stopped_ablation_goes_on_and_a_changed_one_is_refused(configure, table, frame, schema):
    config = configure(axes={"position": ["rope", "learned"]})

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(config, table=table, schema=schema, progress=stop)
    kept = config.folder / "runs" / "position-rope" / "seed-0" / trials.TRIAL_FILE
    written = kept.read_text()
    found = ablate(config, table=table, schema=schema)
    assert kept.read_text() == written
    assert [row.variant for row in found.rows] == ["base", "rope", "learned"]
    assert not (kept.parent / "store").exists()
    assert (kept.parent / "model").is_dir()

    changed = configure(axes={"position": ["rope"]}, training={"max_steps": 7})
    with pytest.raises(ConfigError, match=r"training.max_steps: 6 then, 7 now"):
        ablate(changed, table=table, schema=schema)
    other = EventTable.of(frame.head(300), entity="card", time="day")
    with pytest.raises(ConfigError, match="data: "):
        ablate(config, table=other, schema=schema)


def test_hidden_sources_leave_events_and_cuts_where_they_are(configure, frame):
    frame = frame.with_columns(
        source=pl.Series(["cards", "app", "app"] * 160),
        screen=pl.Series(["home", "pay"] * 240),
    )
    schema = DomainSchema(
        "bank",
        [
            FieldSpec("day", "temporal", calendar_fields=("dow",)),
            FieldSpec("kind", "categorical_fixed"),
            FieldSpec("screen", "categorical_fixed"),
        ],
        sources={"cards": {"fields": ["day", "kind"]}, "app": {"fields": ["day", "screen"]}},
    )
    table = EventTable.of(frame, entity="card", time="day")
    config = configure(
        axes={"data": ["app"]},
        split={"kind": "time"},
        ablation={"label": "label", "folds": 2, "max_events": None},
        training={"max_steps": 2},
    )
    found = ablate(config, table=table, schema=schema)
    base, hidden = (
        trials.finished(config.folder / "runs" / name / "seed-0")
        for name in ("base", "data-without-app")
    )
    source = table.frame["source"].to_numpy()
    assert set(source[base.held_out.events]) == {"cards", "app"}
    assert set(source[hidden.held_out.events]) == {"cards"}
    assert found.common["data: without app"].events == len(hidden.held_out.events)
    assert found.common["data: without app"].loss == ("day.dow", "kind")
    # The cut is that of all events, also where only some are shown.
    cuts = {
        trial.folder: json.loads((trial.folder / "run.json").read_text())
        for trial in (base, hidden)
    }
    assert len({run["split"]["validation_from"] for run in cuts.values()}) == 1
    assert found.measure == "auroc"
    assert found.axis("data")[1].downstream.difference.low is None


def test_an_entity_that_nothing_is_shown_of_has_a_vector_of_zeros():
    vectors = pl.DataFrame(
        {"who": [1], "embedding": pl.Series([[0.5, 1]], dtype=pl.Array(pl.Float32, 2))}
    )
    rows = _of_all(vectors, pl.Series("who", [2, 1]))
    assert rows["embedding"].to_list() == [[0, 0], [0.5, 1]]


def test_a_task_judges_by_histories_before_the_cut(configure, table, schema):
    config = configure(axes={"position": ["rope"]}, training={"max_steps": 2})
    labels = table.frame.group_by("card").agg(pl.col("label").first()).sort("card")
    task = task_from_labels("habit", table, labels, label="label", folds=2)
    found = ablate(config, table=table, schema=schema, task=task)
    assert (found.measure, found.subject["downstream"]) == ("auroc", "habit")
    bundle = load_bundle(config.folder / "runs" / "base" / "seed-0" / "model")
    again = from_task(task).score(bundle, lambda shown: shown, 0)
    assert again.value == found.rows[0].downstream.value
    with pytest.raises(ConfigError, match="a label and a task"):
        ablate(configure(ablation={"label": "label"}), table=table, schema=schema, task=task)


def test_nothing_to_judge_by(configure, table, schema):
    config = configure(split={"kind": "time", "fractions": [0.9, 0.0, 0.1]})
    with pytest.raises(DataError, match="no validation events with a past"):
        ablate(config, table=table, schema=schema)
    assert not config.folder.exists()
