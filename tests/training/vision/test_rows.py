"""Rows and kept features: the tower's own, read once per picture, in an order of the seed."""

import pytest
import torch

from domainformer.models.vision.capabilities import VisionBase
from domainformer.training.vision import FeatureStore, VisionCollator, VisionRows


@pytest.fixture
def collate(small):
    return VisionCollator(small.processor, prompt=small.prompt)


@pytest.fixture(scope="module")
def base(small):
    return VisionBase.probe(small.model())


def test_kept_features_are_those_of_the_tower(small, collate, base):
    questions = small.questions(20)  # more than the tower reads at once
    rows = VisionRows(questions, collate, seed=None)
    store = FeatureStore(megabytes=1.0)
    assert rows.cache(base.encode, store)
    kept = collate([rows[index] for index in range(20)])
    for index, question in enumerate(questions):
        single = collate([question])
        slow = base.encode(single["pixel_values"], single["image_grid_thw"])
        torch.testing.assert_close(kept["images"].features[index], slow.features[0])
        assert kept["images"].grids[index] == slow.grids[0]
    full = collate(questions)
    assert "pixel_values" not in kept
    for name in ("input_ids", "labels", "attention_mask", "image_grid_thw"):
        assert torch.equal(kept[name], full[name])
    floats = sum(len(one) * 32 for one in kept["images"].features)
    assert store.size == pytest.approx(floats * 4 / 2**20)


def test_half_precision_takes_half_the_memory(small, collate, base):
    questions = small.questions(4)
    sizes, first = [], []
    for dtype in (torch.float32, torch.float16):
        rows, store = VisionRows(questions, collate, seed=None), FeatureStore(1.0, dtype)
        assert rows.cache(base.encode, store)
        sizes.append(store.size)
        first.append(rows[0]["features"])
    assert sizes[1] * 2 == sizes[0]
    torch.testing.assert_close(first[1].float(), first[0], atol=1e-2, rtol=1e-2)


def test_a_picture_is_read_once(small, collate, base):
    read = []

    def encode(**inputs):
        read.append(len(inputs["image_grid_thw"]))
        return base.encode(**inputs)

    store = FeatureStore(1.0)
    questions = small.questions(12, shared=4)
    assert VisionRows(questions, collate, seed=None).cache(encode, store)
    assert VisionRows(questions[::-1], collate, seed=None).cache(encode, store)
    assert sum(read) == len(store.kept) == 3


def test_what_does_not_fit_is_not_kept(small, collate, base):
    store = FeatureStore(megabytes=0.01)
    fits = VisionRows(small.questions(3), collate, seed=None)
    assert fits.cache(base.encode, store)
    size, known = store.size, set(store.kept)
    large = VisionRows(small.questions(9, seed=1), collate, seed=None)
    assert not large.cache(base.encode, store)
    assert not large.cached
    assert (store.size, set(store.kept)) == (pytest.approx(size), known)
    assert "pixel_values" in collate([large[0]])


def test_the_order_follows_from_seed_and_epoch(small, collate):
    questions = small.questions(8)

    def order(seed, epoch):
        rows = VisionRows(questions, collate, seed=seed)
        rows.set_epoch(epoch)
        return [rows[index]["input_ids"].tolist() for index in range(8)]

    plain = order(None, 3)
    assert plain == [collate.row(one)["input_ids"].tolist() for one in questions]
    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)
    assert sorted(order(0, 1)) == sorted(plain)
