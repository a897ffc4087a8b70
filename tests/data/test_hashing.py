import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domainformer.data.hashing import hash_entities
from domainformer.errors import DataError

ALL = (1 << 64) - 1


def mixed(x):
    x ^= x >> 30
    x = x * 0xBF58476D1CE4E5B9 & ALL
    x ^= x >> 27
    x = x * 0x94D049BB133111EB & ALL
    return x ^ (x >> 31)


def slow_hash(value):
    if isinstance(value, (int, bool)):
        return mixed((int(value) + 0x9E3779B97F4A7C15) & ALL)
    data = value.encode() if isinstance(value, str) else value
    h = mixed((len(data) + 0x9E3779B97F4A7C15) & ALL)
    for start in range(0, len(data), 8):
        h = mixed(h ^ int.from_bytes(data[start : start + 8].ljust(8, b"\0"), "little"))
    return h


@settings(deadline=None)
@given(st.lists(st.text(max_size=40)))
def test_strings_equal_the_slow_hash_in_every_layout(texts):
    expected = [slow_hash(text) for text in texts]
    plain = pa.array(texts, pa.string())
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary()):
        assert hash_entities(plain.cast(kind)).tolist() == expected
    assert hash_entities(plain.dictionary_encode()).tolist() == expected
    padded = pa.array(["x", *texts, "y"], pa.string())
    assert hash_entities(padded.slice(1, len(texts))).tolist() == expected


@settings(deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1)))
def test_integers_equal_the_slow_hash_in_every_width(numbers):
    assert hash_entities(pa.array(numbers, pa.int64())).tolist() == [slow_hash(n) for n in numbers]
    small = [n % 100 for n in numbers]
    for kind in (pa.int8(), pa.uint16(), pa.uint64()):
        assert hash_entities(pa.array(small, kind)).tolist() == [slow_hash(n) for n in small]


def test_long_strings_and_nulls():
    texts = ["x" * 10_001, "", None, "x" * 10_000 + "y"]
    found = hash_entities(pa.array(texts)).tolist()
    assert [found[i] for i in (0, 1, 3)] == [slow_hash(texts[i]) for i in (0, 1, 3)]
    assert len(hash_entities(pa.array(["a", None]).dictionary_encode())) == 2
    assert hash_entities(pa.array([True, False])).tolist() == [slow_hash(1), slow_hash(0)]


def test_ids_spread_evenly():
    ids = pa.array([f"C{i:08d}" for i in range(64_000)])
    counts = np.bincount(hash_entities(ids) >> np.uint64(58), minlength=64)
    assert abs(counts - 1000).max() < 5 * 1000**0.5


def test_the_hash_is_the_same_in_another_process():
    code = (
        "import pyarrow as pa; from domainformer.data.hashing import hash_entities;"
        "print(hash_entities(pa.array(['anna', 'bob'])).tolist())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert out.stdout.strip() == str([slow_hash("anna"), slow_hash("bob")])


def test_other_types_are_refused():
    with pytest.raises(DataError, match="cannot name entities"):
        hash_entities(pa.array([1.5]))
