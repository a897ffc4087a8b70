from collections import Counter, defaultdict

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.schema import relations as rel
from domainformer.schema.profile import profile_column


def slow_lambda(pairs):
    """Goodman and Kruskal's lambda, by counting."""
    by_a = defaultdict(Counter)
    for a, b in pairs:
        by_a[a][b] += 1
    right = sum(max(counts.values()) for counts in by_a.values())
    base = max(Counter(b for _, b in pairs).values())
    return (right - base) / (len(pairs) - base) if len(pairs) > base else 0.0


VALUES = st.none() | st.sampled_from("abc")


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1))
@settings(deadline=None, max_examples=60)
def test_strength_equals_the_count_by_hand(pairs):
    a, b = (pl.Series(n, [p[i] for p in pairs], dtype=pl.String) for i, n in enumerate("ab"))
    found = rel.relate(a, b)
    filled = [p for p in pairs if None not in p]
    expected = (slow_lambda(filled), slow_lambda([p[::-1] for p in filled])) if filled else (0, 0)
    assert (found.a_tells_b, found.b_tells_a) == pytest.approx(expected)


def profiles(frame):
    return {c: profile_column(frame[c]) for c in frame.columns}


def redundant(frame):
    a, b = frame.columns
    return rel.redundant(rel.relate(frame[a], frame[b]), profiles(frame))


def test_a_small_vocabulary_keeps_the_readable_name():
    frame = pl.DataFrame({"code": ["L1", "L2", "L3"] * 9, "kind": ["Fuel", "Food", "Rail"] * 9})
    assert redundant(frame) == ("code", "kind")
    assert redundant(frame.select("kind", "code")) == ("code", "kind")


def test_a_large_vocabulary_keeps_the_code():
    count = rel.READABLE_LIMIT + 1
    frame = pl.DataFrame(
        {"name": [f"a lovely thing {i}" for i in range(count)] * 2, "code": [*range(count)] * 2}
    )
    assert redundant(frame) == ("name", "code")
    assert redundant(frame.with_columns(code=pl.format("P{}", "code"))) == ("name", "code")


def test_a_category_is_preferred_to_a_text_that_says_the_same():
    frame = pl.DataFrame(
        {"description": [f"a lovely thing {i}" for i in range(600)] * 3, "code": [*range(600)] * 3}
    ).with_columns(code=pl.format("P{}", "code"))
    assert redundant(frame) == ("description", "code")


def test_a_coarser_level_stays_and_a_near_copy_goes():
    fine = [f"u{i}" for i in range(8)] * 5
    coarse = pl.DataFrame({"unit": fine, "house": [f"h{i // 4}" for i in range(8)] * 5})
    assert redundant(coarse) is None
    copy = pl.DataFrame({"unit": fine, "room": [f"r{min(i, 5)}" for i in range(8)] * 5})
    assert redundant(copy) == ("room", "unit")


def test_a_column_with_gaps_cannot_stand_in():
    frame = pl.DataFrame({"code": ["L1", "L2"] * 10, "kind": ["Fuel", "Food"] * 5 + [None] * 10})
    assert redundant(frame) == ("kind", "code")


def test_a_constant_is_not_told_by_anything():
    frame = pl.DataFrame({"a": ["x", "y"] * 5, "b": ["same"] * 10})
    assert rel.relate(frame["a"], frame["b"]).a_tells_b == 0.0


def test_baskets_never_return_and_products_do():
    frame = pl.DataFrame(
        {
            "who": [1, 1, 1, 2],
            "when": [1, 1, 2, 1],
            "invoice": ["i", "i", "j", "k"],
            "p": list("abab"),
        }
    )
    assert rel.never_returns(frame, "invoice", ["who", "when"])
    assert not rel.never_returns(frame, "p", ["who", "when"])


def test_dates_equal_the_day_of_datetimes():
    days = pl.Series("a", ["2024-01-01", "2024-01-02", None]).str.to_date()
    times = pl.Series("b", ["2024-01-01 10:00", "2024-01-03 00:00", "2024-01-01 00:00"])
    assert rel.same_values(days, times.str.to_datetime()) == 0.5


def test_labels_that_tell_the_scale():
    labels = pl.Series("parameter", ["HR", "Temp"] * 50)
    numbers = pl.Series("value", [80.0 + i % 7 if i % 2 == 0 else 0.1 for i in range(100)])
    assert rel.explained_scale(numbers, labels) > 0.99
    assert rel.explained_scale(numbers, labels.reverse().shuffle(seed=1)) < 0.2
    assert rel.explained_scale(pl.Series("c", [1.0] * 100), labels) == 0.0


def test_large_tables_are_thinned_evenly(monkeypatch):
    monkeypatch.setattr(rel, "SAMPLE_ROWS", 10)
    assert rel.thin(pl.DataFrame({"x": range(10)})).height == 10
    assert rel.thin(pl.DataFrame({"x": range(25)}))["x"].to_list() == [*range(0, 25, 3)]
