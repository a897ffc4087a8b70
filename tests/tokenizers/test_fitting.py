"""One fit, whatever the parts: order, partition, merge tree, bytes, hash seed and process."""

from __future__ import annotations

import datetime as dt
import importlib.util
import os
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from domainformer.data import EventTable
from domainformer.errors import (
    ArtifactError,
    ConfigError,
    DataError,
    FingerprintError,
    SchemaError,
    TokenizerError,
)
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers.domain import DomainTokenizer
from domainformer.tokenizers.fitting import FitStatistics
from domainformer.tokenizers.statistics import QuantileSketch

PROGRAM = Path(__file__).with_name("fit_in_parts.py")
_spec = importlib.util.spec_from_file_location("fit_in_parts", PROGRAM)
parts = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(parts)

FRAME = parts.made_frame()
BOTH = pytest.mark.parametrize("limits", [parts.EXACT, parts.SMALL], ids=["exact", "collapsed"])


@pytest.fixture(scope="module")
def whole():
    """What the data gives in one part, by limits."""
    return {
        name: parts.written(one_part(limits))
        for name, limits in (("exact", parts.EXACT), ("collapsed", parts.SMALL))
    }


def one_part(limits):
    table = parts.table_of(FRAME)
    statistics = FitStatistics(parts.SCHEMA, **limits).update(table)
    if statistics.needs_recount:
        statistics.adopt(statistics.recounting().update(table))
    return statistics


def differing(one, other):
    return [name for name in one if one[name] != other[name]]


@BOTH
@pytest.mark.parametrize("seed", range(20))
def test_twenty_partitions_give_the_same_bytes(seed, limits, whole):
    want = whole["collapsed" if limits else "exact"]
    assert differing(parts.written(parts.fit_in_parts(FRAME, seed, limits)), want) == []


def run_program(seed, limits, hash_seed):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(seed), *map(str, limits.values())],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "POLARS_MAX_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("seed", [1, 2])
def test_other_processes_and_hash_seeds_give_the_same_bytes(seed, whole):
    digest = run_program(seed, parts.SMALL, hash_seed=seed)
    assert digest == parts.digest(whole["collapsed"])


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize("seed", range(20))
def test_twenty_processes_and_hash_seeds_give_the_same_bytes(seed, limits, whole):
    want = whole["collapsed" if limits else "exact"]
    assert run_program(seed, limits, hash_seed=1000 + seed) == parts.digest(want)


def test_a_sketch_that_depends_on_order_is_caught(monkeypatch):
    """The sabotage twin: collapse that only sees the part at hand must not pass."""

    def collapse_early(self, numbers):
        values = np.sort(numbers[(numbers > 0) & (numbers < np.inf)])
        self._append(sketch_counts(values[: self.limits.most_numbers]))

    def sketch_counts(values):
        from domainformer.tokenizers.statistics import Weighted

        distinct, counts = np.unique(values, return_counts=True)
        return Weighted(distinct, counts.astype(np.int64))

    monkeypatch.setattr(QuantileSketch, "add", collapse_early)
    limits = parts.SMALL
    want = parts.written(one_part(limits))
    found = [parts.written(parts.fit_in_parts(FRAME, seed, limits)) for seed in range(3)]
    assert any("statistics" in differing(one, want) for one in found)
    assert any("domain_tokenizer.json" in differing(one, want) for one in found)


def test_small_limits_take_every_way_there_is():
    statistics = one_part(parts.SMALL)
    sketches = statistics._sketches
    assert sketches["amount:magnitude"].collapsed
    assert sketches["time:elapsed"].collapsed
    assert sketches["shop:entity"].overflowed
    assert not sketches["kind:categorical"].overflowed
    assert not sketches["texts"].complete
    assert set(statistics.thresholds) >= {"shop"}
    assert min(statistics.thresholds.values()) >= 2


def test_one_fit_is_the_only_fit():
    table = parts.table_of(FRAME)
    fitted = DomainTokenizer(parts.SCHEMA, bpe_vocab_size=400).fit(table)
    statistics = FitStatistics(parts.SCHEMA).update(table)
    other = DomainTokenizer.from_statistics(parts.SCHEMA, statistics, bpe_vocab_size=400)
    halves = [table.take_entities(range(30, 90)), table.take_entities(range(30))]
    growing = DomainTokenizer(parts.SCHEMA, bpe_vocab_size=400)
    for half in halves:
        growing.partial_fit(half)
    assert fitted.fingerprint == other.fingerprint == growing.finish().fingerprint
    assert fitted.backend.to_str() == growing.backend.to_str()


def test_finish_may_come_again_after_more_events():
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    tokenizer = DomainTokenizer(schema).partial_fit(pl.DataFrame({"kind": ["a"]})).finish()
    assert tokenizer.vocab_size == 7
    assert tokenizer.partial_fit(pl.DataFrame({"kind": ["b"]})).finish().vocab_size == 8
    assert tokenizer.fit(pl.DataFrame({"kind": ["c"]})).vocab_size == 7
    assert tokenizer.statistics.n_events == 0


# ── bytes ────────────────────────────────────────────────────────────────────────────────────────


@BOTH
def test_bytes_and_pickles_come_back_equal(limits):
    statistics = one_part(limits)
    for copy in (
        FitStatistics.from_bytes(statistics.to_bytes()),
        pickle.loads(pickle.dumps(statistics)),
    ):
        assert copy == statistics
        assert copy.n_events == FRAME.height
        assert parts.written(copy) == parts.written(statistics)


def test_statistics_that_were_read_can_grow():
    table = parts.table_of(FRAME)
    early = FitStatistics(parts.SCHEMA).update(table.take_entities(range(45)))
    late = table.take_entities(range(45, 90))
    assert FitStatistics.from_bytes(early.to_bytes()).update(late) == one_part({})


def test_bytes_of_a_second_pass_merge_without_their_table():
    table = parts.table_of(FRAME)
    statistics = FitStatistics(parts.SCHEMA, **parts.SMALL).update(table)
    second = statistics.recounting()
    assert len(second.update(table).to_bytes()) < len(statistics.to_bytes())
    read = FitStatistics.from_bytes(second.to_bytes())
    with pytest.raises(TokenizerError, match="cannot be added to"):
        read.update(table)
    assert statistics.adopt(read) == one_part(parts.SMALL)


def test_damaged_and_foreign_bytes_are_refused():
    data = FitStatistics(parts.SCHEMA).to_bytes()
    for wrong in (b"", b"PAR1" + data, data[:-1], data[:100] + b"\0" + data[101:], None):
        with pytest.raises(ArtifactError):
            FitStatistics.from_bytes(wrong)


def test_memory_does_not_grow_with_events():
    """Ten times the events, drawn from the same values, take no more bytes."""
    rng = np.random.default_rng(0)
    schema = DomainSchema("s", [FieldSpec("x", "numerical_continuous"), FieldSpec("note", "text")])
    sizes = []
    statistics = FitStatistics(schema, most_numbers=100, bpe_sample=50)
    for _ in range(20):
        notes = [f"a note about number {number}" for number in rng.integers(0, 10**9, 5_000)]
        statistics.update(pl.DataFrame({"x": rng.uniform(1, 2, 5_000), "note": notes}))
        sizes.append(len(statistics.to_bytes()))
    assert max(sizes[1:]) < 1.1 * sizes[1]


# ── parts that differ ────────────────────────────────────────────────────────────────────────────


def test_parts_without_rows_change_nothing():
    statistics = one_part({})
    before = statistics.to_bytes()
    statistics.update(FRAME.clear())
    statistics.update(FRAME.clear().with_columns(pl.lit(None).alias("kind")))
    statistics.merge(FitStatistics(parts.SCHEMA))
    assert statistics.to_bytes() == before
    assert FitStatistics(parts.SCHEMA).merge(statistics) == statistics


def test_nothing_at_all_cannot_be_fitted():
    with pytest.raises(DataError, match="no events to fit on"):
        DomainTokenizer(parts.SCHEMA).partial_fit(FRAME.clear()).finish()


KINDS = {
    "x": "numerical_continuous",
    "sign": "sign",
    "n": "numerical_discrete",
    "code": "categorical_fixed",
}


def fit_of(name, *columns):
    schema = DomainSchema("s", [FieldSpec(name, KINDS[name])])
    statistics = FitStatistics(schema)
    for column in columns:
        statistics.update(pl.DataFrame({name: column}))
    return DomainTokenizer.from_statistics(schema, statistics)


@pytest.mark.parametrize("name", ["x", "sign", "n", "code"])
def test_whole_and_fractional_parts_are_read_as_if_together(name):
    whole_numbers, floats = pl.Series([1, 2, 2, 40]), pl.Series([2.0, 3.0, None, 7.0])
    together = pl.concat([whole_numbers.cast(pl.Float64), floats])
    for columns in ((whole_numbers, floats), (floats, whole_numbers)):
        assert fit_of(name, *columns).vocab == fit_of(name, together).vocab


@pytest.mark.parametrize("name", ["x", "sign", "n", "code"])
@pytest.mark.parametrize("nothing", [pl.Series([None, None]), pl.Series([None], dtype=pl.String)])
def test_a_part_of_nulls_has_any_type(name, nothing):
    if nothing.dtype == pl.String and name != "code":
        nothing = nothing.cast(pl.Float32)
    numbers = pl.Series([1, 2, 2])
    together = pl.concat([numbers, nothing.cast(pl.Int64)])
    found = fit_of(name, nothing, numbers)
    assert found.vocab == fit_of(name, together).vocab
    assert found.fingerprint == fit_of(name, numbers, nothing).fingerprint


def test_categories_of_parts_may_be_strings_integers_or_dictionaries():
    texts, numbers = pl.Series(["1", "2", "x"]), pl.Series([1, 1, 7])
    together = pl.Series(["1", "2", "x", "1", "1", "7"])
    assert fit_of("code", texts, numbers).vocab == fit_of("code", together).vocab
    dictionary = texts.cast(pl.Categorical)
    assert fit_of("code", dictionary, numbers).vocab == fit_of("code", together).vocab


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pl.Series(["1"]), pl.Series([1.0])),
        (pl.Series([True]), pl.Series([1])),
        (pl.Series([0.1], dtype=pl.Float32), pl.Series([0.1])),
        (pl.Series([dt.date(2024, 1, 1)]), pl.Series([dt.datetime(2024, 1, 1)])),
    ],
)
def test_parts_in_which_a_value_is_not_the_same_are_refused(one, other):
    for columns in ((one, other), (other, one)):
        with pytest.raises(DataError, match=r"'code' is .* in some data and .* in other"):
            fit_of("code", *columns)
    schema = DomainSchema("s", [FieldSpec("code", "categorical_fixed")])
    left, right = (
        FitStatistics(schema).update(pl.DataFrame({"code": column})) for column in (one, other)
    )
    before = left.to_bytes()
    with pytest.raises(DataError, match="the column 'code'"):
        left.merge(right)
    assert left.to_bytes() == before


def test_times_of_another_kind_are_refused():
    schema = DomainSchema("s", [FieldSpec("t", "temporal", calendar_fields=(), elapsed_bins=4)])

    def part(times):
        return EventTable.of(pl.DataFrame({"who": [1, 1], "t": times}), entity="who", time="t")

    dates = part([dt.date(2024, 1, 1), dt.date(2024, 1, 9)])
    with pytest.raises(DataError, match="the times are date and integer") as refused:
        FitStatistics(schema).update(dates).update(part([3, 9]))
    assert "column 't'" in str(refused.value)


def test_a_table_that_cannot_be_read_leaves_the_statistics_as_they_were():
    statistics = one_part({})
    before = statistics.to_bytes()
    with pytest.raises(SchemaError, match="kind"):
        statistics.update(FRAME.drop("kind"))
    with pytest.raises(SchemaError, match="since the entity's previous event"):
        statistics.update(FRAME)
    assert statistics.to_bytes() == before


# ── what does not belong together ────────────────────────────────────────────────────────────────


def test_statistics_of_another_schema_or_limit_are_refused():
    statistics = FitStatistics(parts.SCHEMA)
    other = DomainSchema("other", [FieldSpec("kind", "categorical_fixed")])
    for wrong in (FitStatistics(other), FitStatistics(parts.SCHEMA, bpe_sample=5)):
        with pytest.raises(FingerprintError, match="cannot be merged"):
            statistics.merge(wrong)
    with pytest.raises(FingerprintError, match="another schema"):
        DomainTokenizer.from_statistics(other, statistics)
    with pytest.raises(ConfigError, match="most_distinct"):
        FitStatistics(parts.SCHEMA, most_distinct=0)


def test_a_second_pass_is_asked_for_and_checked():
    table = parts.table_of(FRAME)
    statistics = FitStatistics(parts.SCHEMA, **parts.SMALL).update(table)
    with pytest.raises(TokenizerError, match="second pass over the data is needed"):
        DomainTokenizer.from_statistics(parts.SCHEMA, statistics)
    second = statistics.recounting()
    assert set(second.columns) < set(parts.SCHEMA.columns)
    with pytest.raises(FingerprintError, match="it has seen 0 events, the first 1,500"):
        statistics.adopt(second)
    with pytest.raises(FingerprintError, match="first pass"):
        statistics.adopt(FitStatistics(parts.SCHEMA, **parts.SMALL))
    with pytest.raises(SchemaError, match="lacks columns"):
        second.update(FRAME.select("who"))
    changed = FRAME.with_columns(pl.lit("shop 1").alias("shop"))
    with pytest.raises(FingerprintError, match="other data than the first"):
        statistics.adopt(statistics.recounting().update(changed.select(second.columns)))
    # Only the columns that are counted again have to be read.
    second.update(FRAME.select(second.columns))
    assert not statistics.adopt(second).needs_recount
    with pytest.raises(TokenizerError, match="no second pass"):
        statistics.recounting()


def test_the_second_pass_knows_the_frequent_values_exactly():
    statistics = one_part(parts.SMALL)
    threshold = statistics.thresholds["shop"]
    exact = FRAME["shop"].value_counts().filter(pl.col("count") >= threshold)
    want = exact.sort(["count", "shop"], descending=[True, False])["shop"].to_list()[:40]
    (shop,) = [f for f in statistics.fitted_fields() if f.spec.name == "shop"]
    assert shop.values == want
    assert want


@pytest.mark.parametrize("name", ["amount", "fee", "time"])
def test_collapsed_edges_lie_within_the_stated_error(name):
    def edges(limits):
        fields = one_part(limits).fitted_fields()
        return [
            f.edges for f in fields if f.spec.name == name and f.kind in ("magnitude", "elapsed")
        ]

    (exact,), (near,) = edges(parts.EXACT), edges(parts.SMALL)
    assert exact.shape == near.shape
    np.testing.assert_allclose(near, exact, rtol=2.0**-10)


# ── the plain computation ────────────────────────────────────────────────────────────────────────


def plain_edges(numbers, bins):
    """Quantile edges by sorting all of the data."""
    ordered = np.sort(numbers[(numbers >= np.finfo(np.float64).tiny) & (numbers < np.inf)])
    edges = np.unique([ordered[k * len(ordered) // bins] for k in range(1, bins)])
    return ordered, edges[edges > ordered[0]]


def fitted(name, kind):
    fields = parts.fit_in_parts(FRAME, 7, parts.EXACT).fitted_fields()
    (field,) = [f for f in fields if f.spec.name == name and f.kind == kind]
    return field


def test_bins_are_those_of_the_sorted_column():
    magnitudes = np.abs(FRAME["amount"].fill_null(np.nan).to_numpy())
    ordered, inner = plain_edges(magnitudes, bins=11)
    amount = fitted("amount", "magnitude")
    np.testing.assert_array_equal(amount.edges[1:], inner)
    bins = np.searchsorted(inner, ordered, side="right")
    medians = [
        np.sort(ordered[bins == b])[(np.sum(bins == b) - 1) // 2] for b in range(len(inner) + 1)
    ]
    np.testing.assert_array_equal(amount.representatives[2:], medians)


def test_gaps_are_those_of_sorted_histories():
    gaps = []
    for _, history in FRAME.sort("who", "time").group_by("who"):
        seconds = history["time"].to_physical().to_numpy() / 1e6
        gaps += np.diff(np.sort(seconds)).tolist()
    ordered = np.sort([gap for gap in gaps if gap > 0])
    low, high = (ordered[int(share * (len(ordered) - 1))] for share in (0.01, 0.99))
    np.testing.assert_allclose(fitted("time", "elapsed").edges[2:], np.geomspace(low, high, 7))


def test_values_are_the_most_frequent():
    for name, kind, least, most in (("kind", "categorical", 1, None), ("shop", "entity", 2, 40)):
        counts = Counter(FRAME[name].drop_nulls().to_list())
        ranked = sorted((-n, value) for value, n in counts.items() if n >= least)
        assert fitted(name, kind).values == [value for _, value in ranked[:most]]
    counts = Counter(FRAME["quantity"].drop_nulls().to_list())
    ranked = sorted((-n, value) for value, n in counts.items() if n >= 2)[:30]
    assert fitted("quantity", "discrete").kept.tolist() == sorted(value for _, value in ranked)


def test_the_anchor_is_the_first_year():
    assert fitted("time", "calendar").anchor == FRAME["time"].dt.year().min()


# ── sources, semantic ids, BPE ───────────────────────────────────────────────────────────────────


def test_fields_of_a_source_are_fitted_on_its_events_whatever_the_parts():
    schema = DomainSchema(
        "bank",
        [FieldSpec("amount", "numerical_continuous"), FieldSpec("screen", "categorical_entity")],
        sources={"cards": {"fields": ["amount"]}, "app": {"fields": ["amount", "screen"]}},
    )
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "source": rng.choice(["cards", "app"], 400),
            "amount": rng.exponential(size=400),
            "screen": [f"screen {rank}" for rank in np.minimum(rng.zipf(1.5, 400), 99)],
        }
    )

    def fit(frames):
        first = [FitStatistics(schema, most_distinct=20).update(frame) for frame in frames]
        statistics = parts.merged(first, rng)
        second = [statistics.recounting().update(frame) for frame in frames]
        return statistics.adopt(parts.merged(second, rng))

    whole = fit([frame])
    halves = [frame.filter(pl.col("source") == name) for name in ("app", "cards")]
    assert fit(halves) == whole
    tokenizer = DomainTokenizer.from_statistics(schema, whole)
    of_app = set(frame.filter(pl.col("source") == "app")["screen"])
    (screen,) = [f for f in tokenizer.fields if f.spec.name == "screen"]
    assert set(screen.values) <= of_app


def test_semantic_ids_come_from_elsewhere():
    spec = FieldSpec("shop", "categorical_entity", semantic_levels=2, semantic_codes=4)
    statistics = FitStatistics(DomainSchema("s", [FieldSpec("kind", "categorical_fixed"), spec]))
    statistics.update(pl.DataFrame({"kind": ["a", "b"], "shop": ["x", "y"]}))
    with pytest.raises(TokenizerError, match="semantic_ids"):
        DomainTokenizer.from_statistics(statistics.schema, statistics)


TRAIN_BPE = """
import hashlib, random
from domainformer.tokenizers.fields.bytepair import train_bpe
draws = random.Random(5)
words = ["".join(draws.choices("abcdefghé日", k=draws.randint(1, 9))) for _ in range(600)]
texts = sorted({" ".join(draws.choices(words, k=4)) for _ in range(1500)})
trained = train_bpe(texts, [1] * len(texts), 1200, ["[A]"])  # equal counts: ties everywhere
print(hashlib.sha256(trained.to_str().encode()).hexdigest())
"""


@pytest.mark.slow
def test_training_bpe_gives_the_same_bytes_in_twenty_processes():
    digests = set()
    for seed in range(20):
        threads = {"PYTHONHASHSEED": str(seed), "RAYON_NUM_THREADS": str(1 + seed % 4)}
        done = subprocess.run(
            [sys.executable, "-c", TRAIN_BPE],
            env={**os.environ, **threads},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout)
    assert len(digests) == 1
