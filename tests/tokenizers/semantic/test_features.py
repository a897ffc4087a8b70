import math

import numpy as np
import polars as pl
import pytest

from domainformer.errors import DataError, InputError
from domainformer.tokenizers.semantic import EntityFeaturePlan, EntityFeatures
from domainformer.tokenizers.semantic.blocks import BagBlock, NumberBlock, VectorBlock


def test_text_equals_scikit_learns_tf_idf(items):
    text = pytest.importorskip("sklearn.feature_extraction.text")
    reference = text.TfidfVectorizer(sublinear_tf=True, min_df=2, token_pattern=r"\w+")
    expected = reference.fit_transform(items["title"].to_list()).toarray()
    block = BagBlock("title", "text").fit(items, 500, 0)
    assert block.vocabulary == reference.vocabulary_
    found = block.read(items)
    # With all dimensions kept, an SVD turns the vectors and keeps their products.
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-9)


def test_sets_are_bags_of_canonical_values():
    frame = pl.DataFrame(
        {"tags": [[1, 2], [2], None, [], [1, None]], "x": ["a", "b", "a", "b", None]}
    )
    numbers = BagBlock("tags", "sets").fit(frame, 4, 0)
    assert list(numbers.vocabulary) == ["1", "2"]
    assert not numbers.read(frame)[[2, 3]].any()
    floats = frame.with_columns(pl.col("tags").cast(pl.List(pl.Float64)))
    np.testing.assert_array_equal(numbers.read(floats), numbers.read(frame))
    labels = BagBlock("x", "sets").fit(frame, 4, 0)
    assert list(labels.vocabulary) == ["a", "b"]


def test_new_words_and_nulls_add_nothing(items):
    block = BagBlock("title", "text").fit(items, 16, 0)
    probe = pl.DataFrame(
        {
            "title": [
                "red mug",
                "red mug flubber",
                None,
                "",
                "\ud800".encode("utf-8", "replace").decode(),
            ]
        }
    )
    found = block.read(probe)
    np.testing.assert_array_equal(found[0], found[1])
    assert not found[2:].any()


def test_numbers_are_logarithms_and_the_unknown_is_the_mean():
    frame = pl.DataFrame({"a": [1.0, -3.0, None, math.inf, math.nan], "b": [1, 2, 3, 4, 5]})
    found = NumberBlock(["a", "b"]).fit(frame).read(frame)
    mean = (math.log(2) - math.log(4)) / 2
    np.testing.assert_allclose(found[:, 0], [math.log(2), -math.log(4), mean, mean, mean])
    np.testing.assert_allclose(found[:, 1], np.log1p([1, 2, 3, 4, 5]))


@pytest.mark.parametrize("dtype", [pl.List(pl.Float32), pl.Array(pl.Float64, 2)])
def test_vectors_are_taken_as_they_are(dtype):
    frame = pl.DataFrame({"v": pl.Series([[1.0, 2.0], None, [3.0, 4.0]], dtype=dtype)})
    assert VectorBlock("v").fit(frame).read(frame).tolist() == [[1, 2], [0, 0], [3, 4]]


def test_a_vector_that_does_not_fit_is_named():
    block = VectorBlock("v", 2)
    for wrong in ([1.0], [1.0, math.nan]):
        with pytest.raises(DataError, match="does not fit"):
            block.read(pl.DataFrame({"v": [[1.0, 2.0], wrong]}))


def test_features_have_unit_variance_and_kinds_their_weight(items):
    plan = EntityFeaturePlan(weights={"text": 2.0, "numbers": 1.0, "sets": 0.0}).inferred(
        items.drop("product")
    )
    histories = np.random.default_rng(0).normal(size=(items.height, 3))
    features, vectors = EntityFeatures.fit(items, plan, histories)
    assert math.isclose((vectors**2).mean(), 1.0)
    np.testing.assert_allclose(vectors.mean(axis=0), 0.0, atol=1e-9)
    ends = np.cumsum([0, *(len(scale.mean) for scale in features.scales)])
    energy = {
        scale.kind: (vectors[:, a:b] ** 2).sum()
        for scale, a, b in zip(features.scales, ends, ends[1:], strict=False)
    }
    assert math.isclose(energy["text"], 4 * energy["numbers"])
    assert math.isclose(energy["histories"], energy["numbers"])
    assert energy["sets"] == 0


def test_new_entities_read_as_those_of_the_fit_without_history(items):
    plan = EntityFeaturePlan().inferred(items.drop("product"))
    features, vectors = EntityFeatures.fit(items, plan)
    np.testing.assert_allclose(features.read(items[::-1])[::-1], vectors, atol=1e-12)
    histories = np.zeros((items.height, 2))
    histories[1:] = np.random.default_rng(0).normal(size=(items.height - 1, 2))
    features, vectors = EntityFeatures.fit(items, plan, histories)
    np.testing.assert_allclose(features.read(items[:1])[0], vectors[0], atol=1e-12)


def test_features_survive_their_state(items):
    features, _vectors = EntityFeatures.fit(
        items, EntityFeaturePlan().inferred(items.drop("product"))
    )
    restored = EntityFeatures.restored(features.state(), features.arrays())
    np.testing.assert_array_equal(restored.read(items), features.read(items))


def test_columns_are_told_by_their_type(items):
    typed = items.with_columns(
        pl.Series("kind", ["x", "y"] * (items.height // 2)),
        pl.Series("flag", [True, False] * (items.height // 2)),
        pl.Series("v", [[0.5, 1.0]] * items.height),
        pl.Series("at", [0] * items.height).cast(pl.Date),
    ).drop("product")
    plan = EntityFeaturePlan().inferred(typed)
    assert (plan.text, plan.numbers) == (("title",), ("price",))
    assert (plan.sets, plan.embeddings) == (("tags", "kind", "flag"), ("v",))
    given = EntityFeaturePlan(sets=("tags",))
    assert given.inferred(typed) is given


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (lambda: EntityFeaturePlan(weights={"txt": 1.0}), "did you mean 'text'"),
        (lambda: EntityFeaturePlan(weights={"text": -1.0}), "0 or more"),
        (lambda: EntityFeaturePlan(weights={"text": math.nan}), "0 or more"),
        (lambda: EntityFeaturePlan(dimensions=0), "1 or more"),
    ],
)
def test_plans_that_cannot_be(plan, message):
    with pytest.raises(InputError, match=message):
        plan()


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (EntityFeaturePlan(text=("tilte",)), "did you mean 'title'"),
        (EntityFeaturePlan(text=("price",)), "text is expected"),
        (EntityFeaturePlan(numbers=("title",)), "numbers is expected"),
        (EntityFeaturePlan(), "no features that tell them apart"),
        (EntityFeaturePlan(numbers=("same",)), "no features that tell them apart"),
    ],
)
def test_plans_that_do_not_fit_the_items(items, plan, message):
    with pytest.raises(DataError, match=message):
        EntityFeatures.fit(items.with_columns(same=pl.lit(3)), plan)
