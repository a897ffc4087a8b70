"""Down-sampling asks the tower again: on every family, against the tower itself."""

from dataclasses import replace

import pytest
import torch
from tests.models.vision.tiny import FAMILIES, MERGE, PATCH, tiny

from domainformer.errors import VisionError
from domainformer.models.vision import CompressionRequest
from domainformer.models.vision.baselines import baseline
from domainformer.models.vision.baselines.grids import smaller_grid
from domainformer.models.vision.capabilities import VisionBase


def opened(family, budgets):
    model, make_inputs = tiny(family)
    inputs = make_inputs()
    base = VisionBase.probe(model)
    images = base.encode(inputs["pixel_values"], inputs.get("image_grid_thw"), inputs["input_ids"])
    return CompressionRequest(images, (), budgets=budgets, base=base, inputs=inputs)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_full_budget_is_the_full_image(family):
    request = opened(family, (500, 500))
    selection = baseline("down_sampling").select(request)
    assert selection.counts == request.images.counts
    for again, features in zip(selection.features, request.images.features, strict=True):
        torch.testing.assert_close(again, features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_smaller_budget_is_a_smaller_image(family):
    request = opened(family, (4, 4))
    selection = baseline("down_sampling").select(request)
    for feature, kept, full in zip(
        selection.features, selection.kept, request.images.features, strict=True
    ):
        assert feature.shape == (len(kept), full.shape[1])
        assert len(kept) <= 4
        assert (kept.diff() > 0).all()
        assert not feature.requires_grad
    layers = len(request.images.deepstack)
    assert len(selection.deepstack or ()) == layers
    for layer in selection.deepstack or ():
        assert tuple(len(part) for part in layer) == selection.counts


def test_the_tower_of_a_plain_image_sees_the_plain_image():
    """A picture of one colour stays itself at any size, so its features are those of the tower."""
    request = opened("qwen2_vl", (2, 4))
    flat = torch.ones_like(request.inputs["pixel_values"])
    request = replace(request, inputs={**request.inputs, "pixel_values": flat})
    selection = baseline("down_sampling").select(request)
    cells = [smaller_grid(grid, k) for grid, k in zip(request.images.grids, (2, 4), strict=True)]
    grids = torch.tensor([(1, rows * MERGE, columns * MERGE) for rows, columns in cells])
    patches = int(grids.prod(-1).sum())
    direct = request.base.encode(torch.ones(patches, 6 * PATCH * PATCH), grids)
    for ours, own in zip(selection.features, direct.features, strict=True):
        torch.testing.assert_close(ours, own, rtol=1e-4, atol=1e-5)


def test_a_tower_of_one_size_is_refused():
    request = opened("llava", (4, 4))
    tower = request.base.model.model.vision_tower

    class Fixed(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = [tower]

        def forward(self, pixel_values, **options):
            return self.inside[0](pixel_values, **options)

    request.base.model.model.vision_tower = Fixed()
    with pytest.raises(VisionError, match="one size only"):
        baseline("down_sampling").select(request)


def test_the_image_must_be_there():
    request = opened("qwen2_vl", (4, 4))
    with pytest.raises(VisionError, match="the image itself"):
        baseline("down_sampling").select(replace(request, inputs={}))
    with pytest.raises(VisionError, match="the image itself"):
        baseline("down_sampling").select(replace(request, base=None))
