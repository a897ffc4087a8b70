"""The sample of texts: bottom-k by hash, with exact counts, whatever the order."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest

from domainformer.tokenizers.fields.counting import count_texts
from domainformer.tokenizers.statistics import Limits, TextSketch, stable_hash, texts

SMALL = Limits(bpe_sample=20)


def sketch_of(parts, limits=SMALL):
    sketches = []
    for part in parts:
        sketches.append(TextSketch(limits))
        sketches[-1].add(count_texts(pl.Series(part), field="x"))
    while len(sketches) > 1:
        sketches[-2].merge(sketches.pop())
    return sketches[0]


def some_texts(seed):
    draws = np.random.default_rng(seed).integers(0, 120, 500)
    return [f"text {draw} {'long ' * (draw % 7)}" for draw in draws]


def bytes_of(sketch):
    meta, arrays = sketch.state()
    return meta, {name: array.tobytes() for name, array in arrays.items()}


@pytest.mark.parametrize("seed", range(4))
def test_the_sample_is_the_smallest_hashes_with_exact_counts(seed):
    values = some_texts(seed)
    parts = np.array_split(np.random.default_rng(seed).permutation(values), 6)
    sample = sketch_of([part.tolist() for part in parts]).counts()
    distinct = sorted(set(values))
    hashes = stable_hash(pl.Series(distinct))
    want = {distinct[row] for row in np.argsort(hashes)[:20]}
    assert sample == {text: n for text, n in sorted(Counter(values).items()) if text in want}


@pytest.mark.parametrize("seed", range(12))
def test_room_in_bytes_is_cut_at_one_place(seed, monkeypatch):
    """A text that no longer fits ends the sample in every part, also where it is not seen."""
    monkeypatch.setattr(texts, "_LEAST_ROOM", 300)
    monkeypatch.setattr(texts, "_BYTES_PER_TEXT", 1)
    values = some_texts(seed)
    whole = sketch_of([values])
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(values))
    parts = [[values[row] for row in rows] for rows in np.array_split(order, 11)]
    assert bytes_of(sketch_of(parts)) == bytes_of(whole)
    assert sum(len(text) for text in whole.counts()) <= 300
    assert whole.counts()
    assert not whole.complete


def test_all_texts_are_kept_while_they_fit():
    values = some_texts(0)
    sketch = sketch_of([values[:100], values[100:]], Limits())
    assert sketch.complete
    assert sketch.counts() == dict(sorted(Counter(values).items()))


def test_of_very_long_texts_the_beginning_is_kept():
    sketch = sketch_of([["é" * 10_000, "é" * 9_000]])
    assert sketch.counts() == {"é" * texts.LONGEST_SAMPLED: 2}


def test_texts_of_a_part_do_not_keep_the_part_in_memory():
    part = pl.Series([f"a text that is longer than a view, number {n}" for n in range(20_000)])
    sketch = TextSketch(SMALL)
    sketch.add(count_texts(part, field="x"))
    sketch.counts()
    assert sum(buffer.size for buffer in sketch._tally.values.to_arrow().buffers() if buffer) < 4096
