"""Rows of text: shifted once, cut together as one by one."""

import numpy as np
import torch

from domainformer.data import SequenceBuilder
from domainformer.training.language.rows import IGNORED, TARGETS, LanguageRows, collate_text

IDS = np.random.default_rng(0).integers(1, 9, 60)


def test_targets_are_what_comes_next():
    rows = LanguageRows(SequenceBuilder(context=8).build([IDS], seed=3))
    for index in range(len(rows)):
        start = rows.windows.offsets[index]
        assert rows[index]["input_ids"].tolist() == IDS[start : start + 8].tolist()
        assert rows[index][TARGETS].tolist() == IDS[start + 1 : start + 9].tolist()


def test_rows_together_are_the_rows_one_by_one():
    for windows in (
        SequenceBuilder(context=8).build([IDS], seed=3),
        SequenceBuilder(context=8).build_scoring([IDS, IDS[:11]]),
    ):
        rows = LanguageRows(windows)
        chosen = [*range(len(rows)), 0]
        for one, row in zip(chosen, rows.__getitems__(chosen), strict=True):
            assert {k: v.tolist() for k, v in row.items()} == {
                k: v.tolist() for k, v in rows[one].items()
            }
        assert rows.row_lengths.tolist() == [len(rows[i]["input_ids"]) for i in range(len(rows))]


def test_shorter_rows_are_filled_where_nothing_looks():
    rows = LanguageRows(SequenceBuilder(context=8).build_scoring([IDS[:20]]))
    batch = collate_text([rows[index] for index in range(len(rows))])
    assert batch["input_ids"].shape == (3, 8)
    assert batch[TARGETS][-1].tolist()[3:] == [IGNORED] * 5
    assert torch.equal(batch["labels"], batch[TARGETS])
