import numpy as np
import polars as pl
import pytest

from domainformer.data import simulate as simulate_function
from domainformer.data.simulate import DOMAINS, simulate, simulate_frames, write_simulated
from domainformer.data.simulation.draws import Draws, bell, zipf_rank
from domainformer.data.simulation.timeline import LATE, START
from domainformer.data.table import EventTable
from domainformer.errors import ArtifactError, DataError
from domainformer.schema import PRESETS

COLUMNS = {
    "finance": ["client_id", "timestamp", "amount", "category", "channel", "description"],
    "ecommerce": [
        "customer_id",
        "timestamp",
        "product",
        "category",
        "quantity",
        "unit_price",
        "description",
        "country",
    ],
    "health": ["patient_id", "timestamp", "code", "value", "unit"],
}
MAIN = {"finance": "category", "ecommerce": "category", "health": "code"}


@pytest.fixture(scope="module")
def tables():
    return {domain: simulate(domain, entities=1500, seed=5) for domain in DOMAINS}


@pytest.fixture(params=sorted(DOMAINS))
def domain(request):
    return request.param


def test_columns_fit_the_presets(domain, tables):
    table = tables[domain]
    assert table.frame.columns == [*COLUMNS[domain], "label"]
    assert table.frame["label"].dtype == pl.Int8
    assert {field.source for field in PRESETS[domain].fields} <= set(table.frame.columns)
    assert simulate_function is simulate


def test_an_entity_does_not_depend_on_blocks_or_on_others(domain):
    whole = pl.concat(simulate_frames(domain, entities=40, events_per_entity=30, seed=2))
    for block in (1, 137, 2000):
        frames = list(
            simulate_frames(domain, entities=40, events_per_entity=30, seed=2, block_events=block)
        )
        assert pl.concat(frames).equals(whole)
    assert len(frames) == 1
    assert len(whole) > 600
    fewer = simulate(domain, entities=13, events_per_entity=30, seed=2)
    assert fewer.frame.equals(whole.head(fewer.n_events))
    other = simulate(domain, entities=13, events_per_entity=30, seed=3)
    assert other.fingerprint() != fewer.fingerprint()


def test_the_stream_is_sorted_and_parquet_gives_it_back(domain, tmp_path):
    options = {"entities": 60, "events_per_entity": 20, "seed": 1}
    path = write_simulated(domain, tmp_path / "deep" / "s.parquet", block_events=300, **options)
    assert [p.name for p in path.parent.iterdir()] == ["s.parquet"]
    made = DOMAINS[domain]
    table = EventTable.read(path, entity=made.entity, time=made.time)
    assert table.fingerprint() == simulate(domain, **options).fingerprint()
    streamed = pl.concat(simulate_frames(domain, **options))
    assert streamed.equals(table.frame)


def test_a_failure_leaves_no_file(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="could not be written"):
        write_simulated("finance", tmp_path / "file" / "s.parquet", entities=2)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(ArtifactError, match="No space left"):
        write_simulated("finance", tmp_path / "s.parquet", entities=2)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_labels_are_constant_and_near_their_rate(domain, tables):
    table = tables[domain]
    each = table.frame.group_by(table.entity).agg(pl.col("label").n_unique())
    assert each["label"].max() == 1
    expected = 0.3 * 0.96 + 0.7 * 0.04
    label = table.frame["label"].gather(table.offsets[:-1])
    assert abs(label.mean() - expected) < 0.04
    none = simulate(domain, entities=1500, events_per_entity=16, seed=5, label_rate=0)
    assert abs(none.frame["label"].mean() - 0.04) < 0.02


def by_rule(table, domain):
    """The published rule, slowly: an anchor and at once three of a burst, one event after another.

    "At once" is measured against the entity's own mean gap.
    """
    frame = table.frame
    anchors = {"finance": "salary", "ecommerce": "gift voucher", "health": "Vasopressor start"}
    anchor = (frame[MAIN[domain]] == anchors[domain]).fill_null(value=False).to_list()
    if domain == "ecommerce":
        burst = (frame["quantity"] < 0).to_list()
    else:
        name = {"finance": "returned payment fee", "health": "Lactate"}[domain]
        burst = (frame[MAIN[domain]] == name).to_list()
    times, found = table.time_values, []
    for first, stop in zip(table.offsets[:-1].tolist(), table.offsets[1:].tolist(), strict=True):
        pace = (times[stop - 1] - times[first]) / (stop - first)
        found.append(
            any(
                anchor[i] and all(burst[i + 1 : i + 4]) and times[i + 3] - times[i] < 1.5 * pace
                for i in range(first, stop - 3)
            )
        )
    return np.array(found)


def balanced_accuracy(label, guess):
    return (guess[label == 1].mean() + (1 - guess[label == 0]).mean()) / 2


def test_order_and_timing_tell_the_label(domain, tables):
    table = tables[domain]
    label = table.frame["label"].gather(table.offsets[:-1]).to_numpy()
    assert balanced_accuracy(label, by_rule(table, domain)) > 0.9


def test_counts_and_sums_do_not_tell_the_label(domain, tables):
    lightgbm = pytest.importorskip("lightgbm")
    table = simulate(domain, entities=2500, seed=8)
    numbers = [name for name, kind in table.frame.schema.items() if kind.is_float()]
    frame = table.frame.with_columns(table.elapsed(), hour=pl.col("timestamp").dt.hour())
    kinds = frame[MAIN[domain]].drop_nulls().unique().sort()
    features = [
        pl.len().alias("events"),
        *(
            getattr(pl.col(name), how)().alias(f"{name} {how}")
            for name in (*numbers, "elapsed", "hour")
            for how in ("mean", "std", "min", "max", "sum", "median")
        ),
        *((pl.col(MAIN[domain]) == kind).sum().alias(f"is {kind}") for kind in kinds),
    ]
    rows = frame.group_by(table.entity, maintain_order=True).agg(pl.col("label").first(), *features)
    label = rows["label"].to_numpy()
    x = rows.drop(table.entity, "label").to_numpy().astype(float)
    booster = lightgbm.train(
        {"objective": "binary", "num_leaves": 15, "verbose": -1, "num_threads": 1, "seed": 0},
        lightgbm.Dataset(x[:1500], label[:1500]),
        num_boost_round=60,
    )
    score = booster.predict(x[1500:])
    ranks = score.argsort().argsort()
    truth = label[1500:] == 1
    auroc = (ranks[truth].mean() - (truth.sum() - 1) / 2) / (~truth).sum()
    assert 0.4 < auroc < 0.62


def test_history_predicts_the_next_event_better_than_the_baselines(domain, tables):
    table = tables[domain]
    code = table.frame[MAIN[domain]].fill_null("").rank("dense").to_numpy().astype(int) - 1
    entity = np.repeat(np.arange(table.n_entities), table.lengths)
    follows = entity[1:] == entity[:-1]
    train = follows & (entity[1:] < 1000)
    test = follows & (entity[1:] >= 1000)
    counts = np.zeros((code.max() + 1,) * 2)
    np.add.at(counts, (code[:-1][train], code[1:][train]), 1)
    after, before = code[1:][test], code[:-1][test]
    popular = (after == np.bincount(code[1:][train]).argmax()).mean()
    repeated = (after == before).mean()
    markov = (after == counts.argmax(axis=1)[before]).mean()
    assert markov > 1.3 * max(popular, repeated)


def test_unseen_and_rare_categories_and_missing_values(domain, tables):
    frame, name = tables[domain].frame, MAIN[domain]
    column = "description" if domain == "ecommerce" else name
    late = pl.from_epoch(pl.Series([LATE]), time_unit="us")[0]
    before = set(frame.filter(pl.col("timestamp") < late)[column].drop_nulls())
    new = set(frame.filter(pl.col("timestamp") >= late)[column].drop_nulls()) - before
    known = {
        "finance": {"crypto exchange", "ev charging"},
        "ecommerce": {text for text in new if text.startswith(("AURORA", "TERRAZZO"))},
        "health": {"Procalcitonin rapid assay", "Cell-free DNA"},
    }[domain]
    assert known
    assert known <= new
    counts = frame[column].value_counts()["count"]
    assert counts.min() < 0.002 * frame.height
    nulls = frame.null_count().row(0, named=True)
    value = {"finance": "amount", "ecommerce": "unit_price", "health": "value"}[domain]
    assert 0 < nulls[value] < 0.05 * frame.height
    assert nulls[DOMAINS[domain].entity] == nulls["timestamp"] == 0


def test_seasons_and_ties(tables):
    hours = tables["finance"].frame["timestamp"].dt.hour().value_counts(sort=True)
    assert set(hours["timestamp"].tail(4)) <= {0, 1, 2, 3, 4, 5}
    months = tables["ecommerce"].frame["timestamp"].dt.month().value_counts(sort=True)
    assert months["timestamp"][0] == 11
    for domain, low in (("ecommerce", 0.4), ("health", 0.5)):
        assert (tables[domain].elapsed() == 0).mean() > low
    assert (tables["finance"].elapsed() == 0).mean() < 0.01
    first = min(table.time_values.min() for table in tables.values())
    assert first > START - 3 * 3600 * 1_000_000


def test_finance_signs_and_monthly_events(tables):
    frame = tables["finance"].frame
    assert 0.02 < (frame["amount"] > 0).mean() < 0.2
    salaries = frame.filter(pl.col("category") == "salary")
    per_client = salaries.drop_nulls().group_by("client_id").agg(pl.col("description").n_unique())
    assert per_client["description"].max() == 1  # one employer each
    merchants = (
        frame.drop_nulls()
        .group_by("client_id", "category")
        .agg(pl.col("description").n_unique() / pl.len())
    )
    assert merchants["description"].mean() < 0.9
    assert frame.select(pl.col("amount").min()).item() >= -50_000


def test_returns_are_negative_and_baskets_share_a_collection(tables):
    frame = tables["ecommerce"].frame
    assert 0.03 < (frame["quantity"] < 0).mean() < 0.15
    assert (frame["quantity"] != 0).all()
    prices = frame.group_by("product").agg(pl.col("description").n_unique())
    assert prices["description"].max() <= 2  # its name, or null


def test_health_values_fit_their_units(tables):
    frame = tables["health"].frame
    glucose = frame.filter(pl.col("code") == "Glucose").group_by("unit").agg(pl.col("value").mean())
    means = dict(glucose.drop_nulls().iter_rows())
    assert 100 < means["mg/dL"] < 180
    assert 5 < means["mmol/L"] < 11
    assert frame.filter(pl.col("code") == "Base excess")["value"].min() < 0
    assert frame.filter(pl.col("code") == "Platelets")["value"].min() > 0


def test_more_categories_on_request(domain):
    table = simulate(domain, entities=400, events_per_entity=40, seed=1, categories=300)
    assert table.frame[MAIN[domain]].n_unique() > 250


def test_long_histories_of_few_entities(domain):
    table = simulate(domain, entities=2, events_per_entity=5000, seed=0)
    assert table.lengths.max() > 2000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"entities": 0}, "entities is 0"),
        ({"events_per_entity": 3}, "events_per_entity is 3"),
        ({"label_rate": 1.5}, "label_rate is 1.5"),
        ({"categories": 2}, "categories is 2"),
        ({"entities": float("nan")}, "entities is nan"),
    ],
)
def test_bad_numbers_are_refused(options, words):
    with pytest.raises(DataError, match=words):
        simulate("finance", **options)
    with pytest.raises(DataError, match="did you mean 'finance'"):
        simulate("finances")


def test_draws_are_uniform_independent_and_fixed_forever():
    draws = Draws(7, "w")
    one = draws.uniform("a", np.arange(20_000))
    two = draws.uniform("b", np.arange(20_000))
    grid = draws.uniform("a", np.arange(200)[:, None], np.arange(100)[None, :])
    for sample in (one, two, grid.ravel()):
        assert np.abs(np.histogram(sample, 20, (0, 1))[0] / 1000 - 1).max() < 0.15
    for pair in ((one, two), (one[1:], one[:-1]), (grid[:, 0], grid[:, 1]), (grid[0], grid[1])):
        assert abs(np.corrcoef(*pair)[0, 1]) < 4 / np.sqrt(len(pair[0]))
    assert one.min() > 0
    assert one.max() < 1
    assert draws.hash("a", np.arange(2)).tolist() == [5256941997222664292, 4224497045700077697]
    assert abs(bell(one).std() - 1) < 0.05
    ranks = np.bincount(zipf_rank(one, 50), minlength=50)
    assert len(ranks) == 50
    assert ranks[0] > 1.5 * ranks[1] > 2 * ranks[3]
