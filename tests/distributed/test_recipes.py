"""The recipes of docs/scale.md, run as they are written there, against one table in memory."""

import logging
import re
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from domainformer.data import EventTable
from domainformer.distributed import TokenizePlan
from domainformer.distributed.engines import connect
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"

pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::UserWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:pyspark"),
    pytest.mark.filterwarnings("ignore::FutureWarning:pyspark"),
]

FRAME = pl.DataFrame(
    {
        "card": [f"card {(7 * i) % 5}" for i in range(60)],
        "day": [(37 * i) % 61 for i in range(60)],
        "kind": [["tea", "cake", None][i % 3] for i in range(60)],
        "price": [float(i % 11) for i in range(60)],
    }
)


def recipe(sign):
    """The one block of code of the page that holds some text."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (found,) = [block for block in blocks if sign in block]
    return found


@pytest.fixture(scope="module")
def table():
    return EventTable.of(FRAME, entity="card", time="day")


@pytest.fixture(scope="module")
def plan(table, tmp_path_factory):
    schema = DomainSchema(
        "shop",
        [FieldSpec("kind", "categorical_fixed"), FieldSpec("price", "numerical_continuous")],
    )
    fitted = DomainTokenizer(schema).fit(table)
    saved = fitted.save_pretrained(tmp_path_factory.mktemp("recipes") / "tokenizer")
    return TokenizePlan.of(saved, entity="card", time="day", time_kind="integer")


@pytest.fixture(scope="module")
def expected(table, plan):
    """Ids by card, of the whole table in memory."""
    events = plan.tokenizer.encode(table)
    cards = table.entity_ids.to_list()
    return {card: events.history(i).ids.tolist() for i, card in enumerate(cards)}


@pytest.fixture(scope="module")
def histories():
    """A row per card, as the page says to make it."""
    return FRAME.sort("day").group_by("card", maintain_order=True).agg(pl.all())


class Histories:
    """As much of a `datasets.Dataset` as the recipe uses: mappings of lists, batch by batch."""

    def __init__(self, frame):
        self.frame = frame
        self.column_names = frame.columns

    def map(self, function, *, batched, batch_size, remove_columns):
        assert batched
        assert remove_columns == self.column_names
        parts = [function(part.to_dict(as_series=False)) for part in self.frame.iter_slices(2)]
        return pl.concat(pl.DataFrame(part) for part in parts).rows(named=True)


def test_mappings_of_lists_as_hugging_face_gives_them(plan, histories, expected):
    """Runs without the package: what the recipe asks of it is a few lines."""
    names = {"plan": plan, "histories": Histories(histories)}
    exec(recipe("histories.map("), names)
    assert {row["card"]: row["ids"] for row in names["tokenized"]} == expected


def test_hugging_face_datasets(plan, histories, expected):
    datasets = pytest.importorskip("datasets", reason="comes with no extra")
    names = {"plan": plan, "histories": datasets.Dataset.from_polars(histories)}
    exec(recipe("histories.map("), names)
    assert {row["card"]: row["ids"] for row in names["tokenized"]} == expected


@pytest.mark.slow
def test_spark(plan, expected):
    sql = pytest.importorskip("pyspark.sql")
    with connect("spark", 2):
        session = sql.SparkSession.getActiveSession()
        payments = session.createDataFrame(FRAME.rows(), FRAME.columns)
        names = {"plan": plan, "payments": payments}
        exec(recipe("mapInArrow"), names)
        rows = names["tokens"].collect()
    assert {row["card"]: row["ids"] for row in rows} == expected
    assert all(sum(row["lengths"]) == len(row["ids"]) for row in rows)


@pytest.mark.slow
def test_ray_data(plan, histories, expected):
    ray = pytest.importorskip("ray")
    logging.getLogger("ray").setLevel(logging.ERROR)
    with connect("ray", 1):
        import ray.data  # after the engine has set it up

        names = {"plan": plan, "pa": pa, "histories": ray.data.from_arrow(histories.to_arrow())}
        exec(recipe("map_batches"), names)
        rows = names["tokens"].take_all()
    assert {row["card"]: list(row["ids"]) for row in rows} == expected
