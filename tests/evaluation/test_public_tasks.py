"""The public tasks have the counts that results are quoted on."""

import numpy as np
import polars as pl
import pytest

from domainformer.errors import ArtifactError
from domainformer.evaluation import public_tasks
from domainformer.evaluation.metrics import auroc


@pytest.mark.parametrize(
    ("name", "tested", "rate", "folds"),
    [
        ("physionet_death", 4000, 0.1385, 5),
        ("credit_default", 30000, 0.2212, 5),
        ("online_retail_churn", 3404, 0.425, 1),
        ("birmingham_dormancy", 937, 0.284, 1),
        ("birmingham_dormancy_without_artefact", 839, 0.201, 1),
    ],
)
def test_counts_and_rates(data_root, name, tested, rate, folds):
    task = public_tasks.public_task(name, data_root)
    rows = task.examples.filter(pl.col("fold") >= 0)
    assert rows.height == tested
    assert rows["label"].mean() == pytest.approx(rate, abs=5e-4)
    assert len(task.folds) == folds


def test_stays_without_events_are_counted(data_root):
    task = public_tasks.physionet_death(data_root)
    assert task.record["entities_without_events"] == 3
    assert task.static.columns == ["entity", "age", "gender", "height", "icu_type"]


def test_next_expense_and_the_figure_of_repeating_the_last(data_root):
    task = public_tasks.birmingham_next_expense(data_root)
    rows = task.examples.filter(pl.col("fold") == 0)
    assert rows.height == 49_359
    starts, ends = task.bounds(rows)
    previous = task.table.frame["expense"].gather(np.maximum(ends - 1, 0)).to_list()
    right = [
        end > start and value == task.classes[label]
        for start, end, value, label in zip(starts, ends, previous, rows["label"], strict=True)
    ]
    assert np.mean(right) == pytest.approx(0.546, abs=5e-4)


@pytest.mark.parametrize(("artefact", "expected"), [(True, 0.886), (False, 0.845)])
def test_recency_alone_foretells_dormancy_as_published(data_root, artefact, expected):
    task = public_tasks.birmingham_dormancy(data_root, artefact=artefact)
    rows = task.examples.filter(pl.col("fold") == 0)
    seen = rows.join(task.history(rows, last=1).frame, on="example", how="left")
    away = (seen["cut"] - seen["date"]).dt.total_days().to_numpy()
    assert auroc(task.labels(rows), away) == pytest.approx(expected, abs=1e-3)


def test_frequency_alone_foretells_churn_as_published(data_root):
    task = public_tasks.online_retail_churn(data_root)
    rows = task.examples.filter(pl.col("fold") == 0)
    starts, ends = task.bounds(rows)
    assert auroc(task.labels(rows), starts - ends) == pytest.approx(0.72, abs=2e-3)


def test_next_item_on_beauty(data_root):
    task = public_tasks.beauty_next_item(data_root)
    split = next(task.splits())
    assert (split.test.height, split.valid.height, task.n_classes) == (22_363, 22_363, 12_101)
    assert split.train.height == 198_502 - 3 * 22_363


def test_the_simulated_label_is_not_in_the_counts():
    task = public_tasks.simulated_order(400)
    history = task.history(task.examples).frame
    counts = history.group_by("example").len().sort("example")["len"].to_numpy()
    labels = task.labels(task.examples)
    assert abs(np.corrcoef(counts, labels)[0, 1]) < 0.15
    assert 0.2 < labels.mean() < 0.45


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="DOMAINFORMER_DATA"):
        public_tasks.credit_default(tmp_path / "nowhere")
