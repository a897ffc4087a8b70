import pickle
import subprocess
import sys

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from domainformer.data import EventTable
from domainformer.distributed import TokenizePlan
from domainformer.distributed.plan import from_rows, to_rows
from domainformer.errors import DataError, FingerprintError
from domainformer.tokenizers import DomainTokenizer
from domainformer.tokenizers.fitting import FitStatistics

from .conftest import KEYS, SCHEMA, make_frame


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    return tokenizer.save_pretrained(tmp_path_factory.mktemp("saved") / "tokenizer")


@pytest.fixture
def rows(oracle):
    frame = oracle.frame.group_by("who", maintain_order=True).agg(pl.all())
    (batch,) = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).to_batches()
    return batch


def test_rows_are_encoded_as_the_whole_table_is(folder, rows, oracle, tokenizer):
    plan = pickle.loads(pickle.dumps(TokenizePlan.of(folder, **KEYS)))
    expected = tokenizer.encode(oracle)
    options = {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size}
    assert from_rows(plan.encode_batch(rows), **options) == expected
    # datasets.map(batched=True) hands columns over as lists.
    assert plan.encode_batch(rows.to_pydict()).equals(plan.encode_batch(rows))
    cut = pa.Table.from_batches([plan.encode_batch(rows.slice(i, 7)) for i in range(0, 120, 7)])
    assert cut.equals(pa.Table.from_batches([plan.encode_batch(rows)]))
    first = plan.encode_batch(rows)
    assert [str(kind) for kind in first.schema.types[1:]] == [
        "list<item: int32>",
        "list<item: int32>",
        "list<item: int64>",
    ]


def test_roles_follow_the_time_of_each_event(folder, rows, oracle, tokenizer):
    cut = int(np.datetime64("2024-06-01", "us").astype(np.int64))
    plan = TokenizePlan.of(folder, **KEYS)
    plan = TokenizePlan(**{**plan.__dict__, "validation_from": cut, "test_from": cut + 10**12})
    events = from_rows(
        plan.encode_batch(rows),
        fingerprint=tokenizer.fingerprint,
        vocab_size=tokenizer.vocab_size,
    )
    expected = [0 if t < cut else 1 if t < cut + 10**12 else 2 for t in oracle.time_values.tolist()]
    assert events.roles.tolist() == expected
    assert set(expected) == {0, 1, 2}
    assert to_rows(events, "who").equals(plan.encode_batch(rows))


def test_statistics_of_batches_merge_to_those_of_the_table(rows, oracle):
    plan = TokenizePlan(**KEYS, schema=SCHEMA.to_yaml())
    cells = [
        cell.as_py()
        for batch in plan.map_arrow((rows.slice(i, 50) for i in (0, 50, 100)), step="fit")
        for cell in batch["statistics"]
    ]
    merged = FitStatistics.from_bytes(cells[2])
    for cell in cells[:2]:
        merged.merge(FitStatistics.from_bytes(cell))
    assert merged.to_bytes() == FitStatistics(SCHEMA).update(oracle).to_bytes()


def test_a_worker_loads_neither_torch_nor_transformers(folder):
    code = f"""
import sys, pyarrow as pa, datetime as dt
from domainformer.distributed import TokenizePlan
from domainformer.distributed.tasks import EncodeTask, FitTask, GroupTask
plan = TokenizePlan.of({str(folder)!r}, entity="who", time="at")
rows = {{"who": ["a"], "at": [[dt.datetime(2024, 1, 1)]], "kind": [["tea"]],
        "amount": [[1.0]], "note": [["order 7"]]}}
assert plan.encode_batch(rows)["ids"][0].as_py()
plan.fit_batch(rows)
heavy = {{"torch", "transformers", "accelerate", "ray", "pyspark"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"at": [[1]], "kind": [["tea"]]}, "no column 'who'"),
        ({"who": ["a"], "kind": [["tea"]]}, "no column 'at'"),
        ({"who": ["a"], "at": [1], "kind": [["tea"]]}, "holds int64, not lists"),
        ({"who": ["a"], "at": [[1, 2]], "kind": [["tea"]]}, "other lengths"),
        ({"who": ["a", "b"], "at": [[1], None], "kind": [["x"], ["y"]]}, "no list of events"),
        ({"who": ["a"]}, "no column of events"),
    ],
)
def test_rows_that_are_no_entity_rows(columns, message):
    with pytest.raises(DataError, match=message):
        TokenizePlan(**KEYS).table(columns)


def test_a_plan_without_a_tokenizer_only_fits(rows):
    with pytest.raises(DataError, match="fit only"):
        TokenizePlan(**KEYS, schema=SCHEMA.to_yaml()).encode_batch(rows)


def test_a_replaced_tokenizer_is_refused(tmp_path, tokenizer, rows):
    folder = tokenizer.save_pretrained(tmp_path / "tokenizer")
    plan = TokenizePlan.of(folder, **KEYS)
    other = DomainTokenizer(SCHEMA, bpe_vocab_size=280).fit(EventTable.of(make_frame(9), **KEYS))
    other.save_pretrained(folder, overwrite=True)
    with pytest.raises(FingerprintError, match="replaced"):
        plan.encode_batch(rows)
