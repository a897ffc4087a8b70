"""Labels per entity, and scores against slow oracles."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domainformer.data import EventTable
from domainformer.errors import DataError
from domainformer.training.targets import auroc, read_targets, score


def table(**columns):
    return EventTable.of(pl.DataFrame({"who": [1, 1, 2, 3], **columns}), entity="who")


@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40).filter(
        lambda pairs: 0 < sum(positive for _, positive in pairs) < len(pairs)
    )
)
def test_auroc_is_the_share_of_ordered_pairs(pairs):
    scores = np.array([value for value, _ in pairs], dtype=float)
    positive = np.array([flag for _, flag in pairs])
    wins = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert auroc(scores, positive) == pytest.approx(np.mean(wins))


def test_scores_of_a_known_prediction():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    result = score(probabilities, np.array([0, 1, 1, 1]))
    assert result["accuracy"] == 0.75
    assert result["majority_accuracy"] == 0.75
    assert result["auroc"] == 1.0
    assert result["log_loss"] == pytest.approx(-np.log([0.9, 0.8, 0.4, 0.7]).mean())


def test_several_classes_are_averaged_one_against_the_rest():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet([1, 1, 1], 50)
    codes = generator.integers(0, 3, 50)
    expected = np.mean([auroc(probabilities[:, c], codes == c) for c in range(3)])
    assert score(probabilities, codes)["auroc"] == pytest.approx(expected)


def test_one_class_has_no_auroc():
    assert "auroc" not in score(np.array([[0.5, 0.5]]), np.array([1]))


def test_labels_of_their_own_table_in_any_order_and_type():
    who = pl.Series([3, 1, 9], dtype=pl.Int32)
    labels = pl.DataFrame({"who": who, "good": [True, False, True]})
    targets = read_targets(table(), "good", labels)
    assert targets.classes == [False, True]
    assert targets.codes.tolist() == [0, -1, 1]


def test_a_label_file(tmp_path):
    pl.DataFrame({"who": [1, 2, 3], "good": ["a", "b", "a"]}).write_parquet(tmp_path / "l.parquet")
    targets = read_targets(table(), "good", tmp_path / "l.parquet")
    assert targets.codes.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("columns", "label", "message"),
    [
        ({"good": [0, 1, 1, 1]}, "good", "varies within 1 entities"),
        ({"good": [1, 1, 1, 1]}, "good", r"has 1 class\(es\)"),
        ({"good": [None] * 4}, "good", r"has 0 class\(es\)"),
        ({"good": [0, 0, 1, 1]}, "god", "did you mean 'good'"),
    ],
)
def test_labels_that_cannot_be_used(columns, label, message):
    with pytest.raises(DataError, match=message):
        read_targets(table(**columns), label)
