import itertools
import math

import numpy as np

from domainformer.tokenizers.semantic.cooccurrence import history_vectors, pair_counts, ppmi


def histories(seed=0, n_entities=9):
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 7, size=40)
    codes = random.integers(-1, n_entities - 1, size=lengths.sum())
    return codes, np.concatenate([[0], np.cumsum(lengths)]), n_entities


def slow_counts(codes, offsets, n_entities, window):
    counts = np.zeros((n_entities, n_entities))
    for start, stop in itertools.pairwise(offsets):
        for i in range(start, stop):
            for j in range(i + 1, min(stop, i + window + 1)):
                a, b = codes[i], codes[j]
                if a >= 0 and b >= 0 and a != b:
                    counts[a, b] += 1 / (j - i)
                    counts[b, a] += 1 / (j - i)
    return counts


def test_counts_equal_the_slow_ones_and_never_cross_histories():
    for window in (1, 3, 20):
        codes, offsets, n = histories()
        fast = pair_counts(codes, offsets, n, window=window).dense()
        np.testing.assert_allclose(fast, slow_counts(codes, offsets, n, window), atol=1e-12)


def test_ppmi_equals_its_formula():
    codes, offsets, n = histories(1)
    counts = pair_counts(codes, offsets, n)
    dense = counts.dense()
    context = dense.sum(axis=0) ** 0.75
    for a in range(n):
        for b in range(n):
            expected = 0.0
            if dense[a, b]:
                share = dense[a, b] / dense[a].sum()
                expected = max(0.0, math.log(share / (context[b] / context.sum())))
            assert math.isclose(ppmi(counts).dense()[a, b], expected, abs_tol=1e-12)


def test_vectors_of_neighbours_are_alike_and_of_the_unseen_zero():
    # Two circles of entities that never meet, and entity 6 that is never seen with another.
    random = np.random.default_rng(2)
    rows = [random.permutation(3) + 3 * (index % 2) for index in range(60)]
    codes, offsets = np.concatenate([*rows, [6]]), np.r_[np.arange(61) * 3, 181]
    vectors = history_vectors(pair_counts(codes, offsets, 7), 4)
    assert not vectors[6].any()
    unit = vectors[:6] / np.linalg.norm(vectors[:6], axis=1, keepdims=True)
    cosine = unit @ unit.T
    same = np.equal.outer(np.arange(6) // 3, np.arange(6) // 3) & ~np.eye(6, dtype=bool)
    assert cosine[same].min() > cosine[~same & ~np.eye(6, dtype=bool)].max()


def test_no_pairs_give_no_dimensions():
    empty = pair_counts(np.array([0, 1]), np.array([0, 1, 2]), 2)
    assert history_vectors(empty, 4).shape == (2, 0)
    assert history_vectors(pair_counts(np.empty(0, int), np.array([0]), 3), 4).shape == (3, 0)
