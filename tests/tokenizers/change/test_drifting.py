"""What the fit remembers, and what drift makes of it."""

import datetime as dt
import io

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from domainformer.data import EventTable
from domainformer.errors import DataError, SchemaError
from domainformer.schema import DomainSchema, FieldSpec
from domainformer.tokenizers import DomainTokenizer, FitStatistics, drift, extend
from domainformer.tokenizers.change.stability import neighbours_grouped, population_stability
from domainformer.tokenizers.reference import MOST_KEPT, Reference

PROPERTY = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SCHEMA = DomainSchema(
    "cards",
    [
        FieldSpec("kind", "categorical_fixed", min_frequency=2, hash_buckets=2),
        FieldSpec("direction", "sign", column="amount"),
        FieldSpec("amount", "numerical_continuous", n_bins=5),
        FieldSpec("count", "numerical_discrete", vocab_size=2),
        FieldSpec("time", "temporal", calendar_fields=("month", "hour", "year"), elapsed_bins=4),
        FieldSpec("shop", "text", max_tokens=4),
    ],
)
START = dt.datetime(2023, 1, 1)


def hours_later(hours):
    """A time that is never midnight, so that no part of a column looks like dates."""
    return START + dt.timedelta(hours=hours, minutes=7)


numbers = st.one_of(
    st.none(), st.sampled_from([0.0, -0.0, 5e-324, np.inf, -np.inf, np.nan]), st.floats(-99, 99)
)
events = st.fixed_dictionaries(
    {
        "card": st.integers(0, 2),
        "kind": st.sampled_from(["a", "b", "c", None]),
        "amount": numbers,
        "count": st.one_of(st.none(), st.integers(0, 4)),
        "time": st.one_of(st.none(), st.integers(-250_000, 180_000).map(hours_later)),
        "shop": st.sampled_from(["corner shop", "café", "", None, "x"]),
    }
)
DTYPES = {"card": pl.Int64, "kind": pl.String, "amount": pl.Float64, "count": pl.Int64,
          "time": pl.Datetime("us"), "shop": pl.String}  # fmt: skip


def table_of(rows):
    return EventTable.of(pl.DataFrame(rows, schema=DTYPES), entity="card", time="time")


@PROPERTY
@given(st.lists(events, min_size=1, max_size=30), st.lists(st.booleans(), min_size=3, max_size=3))
def test_the_reference_of_a_fit_is_what_encoding_its_table_counts(rows, sides):
    """Two ways of counting that share nothing; and the data may come in parts."""
    for card in range(3):  # a table needs a time that is known
        own = [row for row in rows if row["card"] == card]
        if own and all(row["time"] is None for row in own):
            own[0]["time"] = hours_later(card)
    table = table_of(rows)
    tokenizer = DomainTokenizer(SCHEMA, bpe_vocab_size=270).fit(table)
    counted = Reference.of_table(tokenizer.layout, SCHEMA, table)
    assert tokenizer.reference == counted
    parts = [[r for r in rows if sides[r["card"]] is side] for side in (True, False)]
    split = FitStatistics(SCHEMA)
    for part in filter(None, parts):
        split.merge(FitStatistics(SCHEMA).update(table_of(part)))
    again = FitStatistics.from_bytes(split.to_bytes())
    fitted = DomainTokenizer.from_statistics(SCHEMA, again, bpe_vocab_size=270)
    assert fitted.reference == counted
    assert Reference.from_json(counted.to_json()) == counted


def test_the_oracle_would_notice_a_miscount():
    table = table_of([{"card": 0, "amount": 1.0, "time": START}])
    tokenizer = DomainTokenizer(SCHEMA, bpe_vocab_size=256).fit(table)
    other = table_of([{"card": 0, "amount": -1.0, "time": START}])
    assert tokenizer.reference != Reference.of_table(tokenizer.layout, SCHEMA, other)


def test_of_many_categories_the_frequent_ones_are_kept():
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_entity")])
    names = [f"k{i}" for i in range(400) for _ in range(1 + i // 100)]
    tokenizer = DomainTokenizer(schema).fit(pl.DataFrame({"kind": names}))
    kept = tokenizer.reference.slots[0]
    assert len(kept.ids) == MOST_KEPT
    assert min(kept.counts) == 2
    assert kept.rest == len(names) - sum(kept.counts)
    assert (
        kept == Reference.of_table(tokenizer.layout, schema, pl.DataFrame({"kind": names})).slots[0]
    )


def test_the_reference_travels_with_the_tokenizer_and_decides_no_id(tmp_path):
    table = table_of([{"card": 0, "kind": k, "time": START} for k in "aab"])
    twice = table_of([{"card": 0, "kind": k, "time": START} for k in "aabaab"])
    tokenizer = DomainTokenizer(SCHEMA, bpe_vocab_size=256).fit(table)
    loaded = DomainTokenizer.from_pretrained(tokenizer.save_pretrained(tmp_path / "t"))
    assert loaded.reference == tokenizer.reference
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    one, two = (DomainTokenizer(schema).fit(t.frame) for t in (table, twice))
    assert one.fingerprint == two.fingerprint
    assert one.reference != two.reference


# ── the index ─────────────────────────────────────────────────────────────────────────────────


def test_the_index_is_the_formula():
    then, now = np.array([300, 500, 200]), np.array([240, 410, 350])
    p, q = (then + 0.5) / 1001.5, (now + 0.5) / 1001.5
    expected = ((q - p) * np.log(q / p)).sum()
    assert population_stability(then, now).psi == pytest.approx(expected, rel=1e-12)


def test_chance_alone_rarely_exceeds_its_yardstick():
    rng = np.random.default_rng(0)
    shares = np.full(12, 1 / 12)
    exceeded = [
        (found := population_stability(rng.multinomial(4000, shares), rng.multinomial(90, shares)))
        and found.psi > found.chance
        for _ in range(600)
    ]
    assert np.mean(exceeded) < 0.03
    large = [
        population_stability(rng.multinomial(4000, shares), rng.multinomial(90, shares)).psi >= 0.1
        for _ in range(600)
    ]
    assert np.mean(large) > 0.5  # the usual threshold alone would cry wolf


@pytest.mark.parametrize(
    "counts", [[], [0, 0], [5], [1] * 21, [0] * 30, [9] + [0] * 40, [1, 7] * 60]
)
def test_groups_cover_all_bins_once(counts):
    groups = neighbours_grouped(counts, most=6)
    assert [i for part in groups for i in range(part.start, part.stop)] == list(range(len(counts)))
    assert len(groups) <= max(6, 1)


def test_an_empty_side_has_no_index():
    assert population_stability([], []).psi == 0
    assert population_stability([3, 4], [0, 0]).psi == 0
    assert population_stability([7], [9]).psi == 0


# ── the report ────────────────────────────────────────────────────────────────────────────────


def sample(seed, n=3000, *, scale=1.0, kinds="aaabbc", text=("corner shop", "petrol"), years=0):
    rng = np.random.default_rng(seed)
    gaps = np.cumsum(rng.integers(1, 5, n))
    start = START.replace(year=START.year + years)
    return EventTable.of(
        pl.DataFrame(
            {
                "card": np.arange(n) // 30,
                "kind": rng.choice(list(kinds), n),
                "amount": rng.lognormal(3, 1, n) * scale * rng.choice([-1, 1], n),
                "count": rng.integers(0, 3, n),
                "time": [start + dt.timedelta(hours=int(gap)) for gap in gaps],
                "shop": rng.choice(list(text), n),
            },
        ),
        entity="card",
        time="time",
    )


@pytest.fixture(scope="module")
def fitted():
    return DomainTokenizer(SCHEMA, bpe_vocab_size=280).fit(sample(0))


def test_the_same_population_is_fine(fitted):
    report = drift(fitted, sample(1))
    assert report.verdict == "fine"
    assert report.events == report.reference_events == 3000
    assert all(one.verdict == "fine" and not one.why for one in report.slots)
    assert report.text.bytes_per_token == pytest.approx(report.text.bytes_per_token_then, rel=0.05)


def test_few_events_do_not_cry_wolf(fitted):
    assert drift(fitted, sample(2, n=40)).verdict == "fine"


def test_new_values_ask_for_an_extension_which_helps(fitted):
    later = sample(3, kinds="aaabbcnnnn")
    report = drift(fitted, later)
    assert (report.verdict, report.slot("kind").verdict) == ("extend", "extend")
    assert report.slot("kind").unknown == pytest.approx(0.4, abs=0.05)
    assert "tokenizer extend" in report.next_step
    extended = extend(fitted, later).tokenizer
    after = drift(extended, later)
    assert after.slot("kind").unknown == 0
    assert after.reference_events == 6000
    assert drift(fitted, sample(1)).verdict == "fine"


def test_shifted_amounts_ask_for_a_new_fit(fitted):
    report = drift(fitted, sample(4, scale=8.0))
    assert report.verdict == "refit"
    assert report.slot("amount").psi > 0.25
    assert report.slot("direction").verdict == "fine"
    assert sum(one.then for one in report.slot("amount").groups) == pytest.approx(1)
    assert sum(one.now for one in report.slot("amount").groups) == pytest.approx(1)


def test_amounts_out_of_the_fitted_range_are_told(fitted):
    frame = sample(5).frame.with_columns(
        amount=pl.when(pl.int_range(pl.len()) % 10 == 0).then(1e9).otherwise(pl.col("amount"))
    )
    report = drift(fitted, EventTable.of(frame, entity="card", time="time"))
    assert report.slot("amount").outside == pytest.approx(0.1, abs=0.01)
    assert report.slot("amount").verdict == "refit"
    assert "out of the fitted range" in report.slot("amount").why


def test_years_without_tokens_ask_for_a_new_fit(fitted):
    report = drift(fitted, sample(6, years=12))
    assert report.slot("time.year").outside == 1
    assert report.slot("time.year").verdict == "refit"
    assert drift(fitted, sample(6, years=3)).slot("time.year").verdict == "fine"


def test_a_shift_of_known_categories_is_the_models_business(fitted):
    report = drift(fitted, sample(7, kinds="cccccb"))
    assert report.slot("kind").psi > 0.25
    assert report.slot("kind").verdict == "watch"


def test_texts_of_another_kind_ask_for_merges(fitted):
    report = drift(fitted, sample(8, text=("Zürich HB", "Genève")))
    assert report.text.verdict == "extend"
    assert report.text.bare > report.text.bare_then


def test_missing_values_are_watched(fitted):
    frame = sample(9).frame.with_columns(
        count=pl.when(pl.int_range(pl.len()) % 3 > 0).then(None).otherwise(pl.col("count"))
    )
    found = drift(fitted, EventTable.of(frame, entity="card", time="time")).slot("count")
    assert (found.missing_then, found.verdict) == (0, "watch")
    assert found.missing == pytest.approx(2 / 3, abs=0.01)


def test_without_a_reference_nothing_is_compared_and_a_table_helps(fitted, tmp_path):
    old = DomainTokenizer.from_pretrained(fitted.save_pretrained(tmp_path / "t"))
    old.reference = None  # as read from format 1
    report = drift(old, sample(1))
    assert report.reference_events is None
    assert all(one.psi is None for one in report.slots)
    assert "give the training table" in report.next_step
    told = drift(old, sample(4, scale=8.0), reference=sample(0))
    assert told.verdict == "refit"
    assert told.reference_events == 3000
    assert drift(old, sample(1), reference=fitted.reference).verdict == "fine"


def test_reports_are_plain_data_and_tables(fitted):
    report = drift(fitted, sample(3, kinds="aaabbcnnnn"))
    assert report.to_json()["slots"][0]["slot"] == "kind"
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(report.render())
    text = console.export_text()
    assert "kind" in text
    assert "extend" in text


def test_tables_that_do_not_serve_are_refused(fitted):
    schema = DomainSchema("s", [FieldSpec("kind", "categorical_fixed")])
    plain = DomainTokenizer(schema).fit(pl.DataFrame({"kind": ["a"]}))
    with pytest.raises(DataError, match="no events"):
        drift(plain, pl.DataFrame({"kind": []}, schema={"kind": pl.String}))
    with pytest.raises(SchemaError):
        drift(plain, pl.DataFrame({"other": ["a"]}))


def test_sources_are_compared_by_the_events_that_have_a_field():
    schema = DomainSchema(
        "bank",
        [FieldSpec("amount", "sign"), FieldSpec("screen", "categorical_fixed")],
        sources={"cards": {"fields": ["amount"]}, "app": {"fields": ["screen"]}},
    )
    frame = pl.DataFrame(
        {"source": ["app", "cards"] * 60, "screen": ["home", None] * 60, "amount": [None, 1.0] * 60}
    )
    tokenizer = DomainTokenizer(schema).fit(frame)
    assert tokenizer.reference.slot("screen").rows == 60
    assert tokenizer.reference == Reference.of_table(tokenizer.layout, schema, frame)
    assert drift(tokenizer, frame).verdict == "fine"
    mostly = frame.filter((pl.col("source") == "app") | (pl.int_range(pl.len()) < 20))
    assert drift(tokenizer, mostly).slot("source").verdict == "watch"


def test_a_source_that_the_fit_has_not_seen_is_no_chance():
    schema = DomainSchema(
        "bank",
        [
            FieldSpec("paid", "numerical_continuous"),
            FieldSpec("screen", "categorical_fixed"),
            FieldSpec("note", "text", optional=True),
        ],
        sources={"cards": {"fields": ["paid"]}, "app": {"fields": ["screen", "note"]}},
    )
    types = {"source": pl.String, "paid": pl.Float64, "screen": pl.String, "note": pl.String}
    cards = [{"source": "cards", "paid": float(i)} for i in range(40)]
    app = [{"source": "app", "screen": "home", "note": "hello there"}] * 40
    cards, app = (pl.DataFrame(rows, schema=types) for rows in (cards, app))
    of_cards = drift(DomainTokenizer(schema, bpe_vocab_size=256).fit(cards), app)
    screen = of_cards.slot("screen")
    assert (screen.unknown, screen.verdict) == (1.0, "extend")
    assert of_cards.text.verdict == "extend"
    of_app = DomainTokenizer(schema, bpe_vocab_size=256).fit(app)
    assert drift(of_app, cards).slot("paid").verdict == "refit"
    assert drift(of_app, app).verdict == "fine"


def test_gaps_where_the_fit_has_seen_first_events_alone_ask_for_a_new_fit():
    schema = DomainSchema("s", [FieldSpec("at", "temporal", calendar_fields=(), elapsed_bins=4)])
    frame = pl.DataFrame({"who": range(40), "half": [i // 2 for i in range(40)], "at": range(40)})
    firsts, pairs = (EventTable.of(frame, entity=name, time="at") for name in ("who", "half"))
    tokenizer = DomainTokenizer(schema).fit(firsts)
    assert drift(tokenizer, pairs).verdict == "refit"
    assert drift(tokenizer, firsts).verdict == "fine"
    assert drift(DomainTokenizer(schema).fit(pairs), firsts).verdict == "fine"
