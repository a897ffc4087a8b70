import numpy as np
import polars as pl
import pytest

from domainformer.errors import ArtifactError
from domainformer.reports.embedding_map import (
    OTHERS,
    UNLABELLED,
    map_embeddings,
    principal_plane,
)


def write(path, vectors, *, nested=False):
    width = vectors.shape[1]
    kind = pl.List(pl.Float32) if nested else pl.Array(pl.Float32, width)
    rows = vectors.tolist() if nested else vectors
    frame = {
        "client": range(len(vectors)),
        "n_events": range(1, len(vectors) + 1),
        "embedding": pl.Series(rows, dtype=kind),
    }
    pl.DataFrame(frame).write_parquet(path)
    return path


def test_plane_equals_the_singular_value_decomposition():
    vectors = np.random.default_rng(0).normal(size=(200, 6)) * np.array([5, 3, 1, 1, 1, 1])
    points, explained = principal_plane(vectors)
    centred = vectors - vectors.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :2] * values[:2]
    assert np.allclose(np.abs(points), np.abs(expected))
    assert np.allclose(explained, (values**2 / (values**2).sum())[:2])


def test_plane_of_degenerate_vectors():
    points, explained = principal_plane(np.ones((5, 3)))
    assert np.allclose(points, 0)
    assert explained == (0.0, 0.0)
    assert principal_plane(np.arange(4.0)[:, None])[0].shape == (4, 2)


@pytest.mark.parametrize("nested", [False, True])
def test_at_most_so_many_points_and_always_the_same(tmp_path, nested):
    vectors = np.random.default_rng(1).normal(size=(300, 4)).astype(np.float32)
    path = write(tmp_path / "e.parquet", vectors, nested=nested)
    found = map_embeddings(path, None, most=100)
    assert found == map_embeddings(path, None, most=100)
    assert (len(found.x), found.entities, found.width) == (100, 300, 4)
    assert found.colour_name == "log10 events"
    assert found.explained[0] >= found.explained[1]


def test_labels_meet_entities_of_another_type(tmp_path):
    path = write(tmp_path / "e.parquet", np.random.default_rng(2).normal(size=(6, 3)))
    labels = pl.DataFrame({"id": ["0", "1", "2", "3"], "churned": [0, 1, 0, 1]})
    found = map_embeddings(path, labels)
    assert found.colour == ["0", "1", "0", "1", UNLABELLED, UNLABELLED]
    assert found.colour_name == "churned"


def test_rare_classes_share_a_colour_and_numbers_keep_a_scale(tmp_path):
    path = write(tmp_path / "e.parquet", np.random.default_rng(2).normal(size=(40, 3)))
    names = pl.DataFrame({"id": range(40), "shop": [f"s{i % 10}" for i in range(40)]})
    assert OTHERS in map_embeddings(path, names).colour
    numbers = pl.DataFrame({"id": range(40), "spend": np.arange(40.0)})
    assert map_embeddings(path, numbers).colour == np.arange(40.0).tolist()


def test_outliers_stand_at_the_border(tmp_path):
    vectors = np.random.default_rng(3).normal(size=(200, 3))
    vectors[0] = 1e4
    found = map_embeddings(write(tmp_path / "e.parquet", vectors), None)
    assert 1 <= found.outside < 10
    assert max(map(abs, found.x)) < 100


def test_too_few_entities_give_no_map_and_damage_is_told(tmp_path):
    assert map_embeddings(write(tmp_path / "two.parquet", np.ones((2, 3))), None) is None
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 and no more")
    with pytest.raises(ArtifactError, match="holds no embeddings"):
        map_embeddings(broken, None)
    other = tmp_path / "other.parquet"
    pl.DataFrame({"a": [1, 2, 3]}).write_parquet(other)
    with pytest.raises(ArtifactError, match="holds no embeddings"):
        map_embeddings(other, None)
