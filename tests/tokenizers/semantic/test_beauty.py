"""The goal on real items: Amazon Beauty, co-occurrence from the training part alone."""

import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.schema import FieldSpec
from domainformer.tokenizers import fit_semantic_ids

ITEM = FieldSpec("item_id", "categorical_entity", semantic_levels=3, semantic_codes=256)


@pytest.fixture(scope="module")
def beauty(data_root):
    events = pl.read_parquet(data_root / "commerce" / "beauty_events.parquet")
    last = pl.col("position").max().over("user_id")
    events = events.filter(pl.col("position") < last - 1)
    items = pl.read_parquet(data_root / "commerce" / "beauty_items.parquet")
    return EventTable.of(events, entity="user_id", time="position"), items


@pytest.mark.slow
@pytest.mark.parametrize(("method", "most"), [("rqvae", 0.1), ("kmeans", 0.12)])
def test_codes_are_used_and_hardly_collide(beauty, method, most):
    events, items = beauty
    found = fit_semantic_ids(events, ITEM, items=items, method=method)
    assert min(found.report.usage) >= 0.9
    assert found.report.collision_rate < most
    assert found.report.neighbours_share_first > 0.5
    tokenizer = found.tokenizer
    names = items["item_id"].cast(pl.String)
    assert tokenizer.decode(tokenizer.encode(items["item_id"])).to_list() == names.to_list()
