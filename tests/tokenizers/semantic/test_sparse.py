import numpy as np
import pytest

from domainformer.tokenizers.semantic import sparse
from domainformer.tokenizers.semantic.sparse import SparseRows, truncated_svd


def random_matrix(height, width, entries, seed=0):
    random = np.random.default_rng(seed)
    rows, columns = random.integers(height, size=entries), random.integers(width, size=entries)
    return SparseRows.of(rows, columns, random.normal(size=entries), (height, width))


@pytest.mark.parametrize("held", [1, 7, 1 << 22])
def test_products_equal_dense_ones_in_blocks_of_any_size(monkeypatch, held):
    monkeypatch.setattr(sparse, "_HELD", held)
    matrix = random_matrix(30, 17, 90)
    thin = np.random.default_rng(1).normal(size=(17, 4))
    np.testing.assert_allclose(matrix.times(thin), matrix.dense() @ thin, atol=1e-12)
    np.testing.assert_array_equal(matrix.transposed().dense(), matrix.dense().T)


def test_entries_of_one_place_are_added_and_empty_rows_stay_zero():
    matrix = SparseRows.of([2, 2, 0], [1, 1, 0], [1.0, 2.5, 4.0], (4, 2))
    assert matrix.dense().tolist() == [[4, 0], [0, 0], [0, 3.5], [0, 0]]
    assert matrix.times(np.ones((2, 1))).ravel().tolist() == [4, 0, 3.5, 0]


def test_the_svd_equals_numpys():
    matrix = random_matrix(60, 40, 900)
    vectors, values = truncated_svd(matrix, 30)
    expected = np.linalg.svd(matrix.dense())
    np.testing.assert_allclose(values[:12], expected[1][:12], rtol=1e-6)
    projection = vectors[:, :12] @ vectors[:, :12].T
    np.testing.assert_allclose(projection, expected[2][:12].T @ expected[2][:12], atol=1e-5)
    largest = np.abs(vectors).argmax(axis=0)
    assert (vectors[largest, np.arange(vectors.shape[1])] > 0).all()


def test_a_full_rank_svd_gives_the_matrix_back():
    matrix = random_matrix(12, 9, 60)
    vectors, _ = truncated_svd(matrix, 9)
    np.testing.assert_allclose(matrix.times(vectors) @ vectors.T, matrix.dense(), atol=1e-9)


def test_small_and_empty_matrices():
    for shape in ((0, 5), (5, 0), (3, 3)):
        vectors, values = truncated_svd(SparseRows.of([], [], [], shape), 4)
        assert vectors.shape == (shape[1], 0)
        assert len(values) == 0
    vectors, values = truncated_svd(SparseRows.of([1], [2], [3.0], (4, 6)), 4)
    assert values.round(9).tolist() == [3.0]


def test_the_seed_decides_everything():
    matrix = random_matrix(60, 40, 300)
    first, again = (truncated_svd(matrix, 5, seed=3)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
