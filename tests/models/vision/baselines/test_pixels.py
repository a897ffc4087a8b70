"""Folding patches back to an image and flattening them again, against transformers' processor."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from domainformer.errors import VisionError
from domainformer.models.vision.baselines.pixels import PatchLayout, resize

PATCH = 4


def processor(temporal, merge):
    # Neither resized nor normalised: the patches are the image's own numbers.
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        temporal_patch_size=temporal,
        merge_size=merge,
        do_resize=False,
        do_rescale=False,
        do_normalize=False,
    )


def picture(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return pixels, torch.from_numpy(pixels).permute(2, 0, 1).float()


@pytest.mark.parametrize(("temporal", "merge"), [(1, 1), (2, 2), (1, 2), (2, 1), (2, 3)])
def test_fold_undoes_the_processor(temporal, merge):
    side = PATCH * merge
    pixels, image = picture(2 * side, 3 * side)
    made = processor(temporal, merge)(images=[Image.fromarray(pixels)], return_tensors="pt")
    layout = PatchLayout(PATCH, temporal, merge)
    grid = tuple(made["image_grid_thw"][0].tolist())
    frames = layout.fold(made["pixel_values"], grid)
    assert frames.shape == (temporal, 3, 2 * side, 3 * side)
    for frame in frames:
        assert torch.equal(frame, image)
    flat, again = layout.flatten(frames)
    assert again == grid
    assert torch.equal(flat, made["pixel_values"])


def test_a_wrong_order_of_patches_is_seen():
    """Sabotage: without the blocks of merged patches, the image does not come back."""
    pixels, image = picture(16, 24)
    made = processor(2, 2)(images=[Image.fromarray(pixels)], return_tensors="pt")
    frames = PatchLayout(PATCH, 2, 1).fold(made["pixel_values"], (1, 4, 6))
    assert not torch.equal(frames[0], image)


def test_a_smaller_image_is_what_the_processor_makes_of_it():
    """Bicubic with antialiasing as PIL's, up to its rounding to whole numbers and clipping."""
    _, smooth = picture(4, 6)
    image = resize(smooth[None], 32, 48)[0].clamp(0, 255).round()
    pil = Image.fromarray(image.permute(1, 2, 0).byte().numpy())
    layout = PatchLayout(PATCH, 2, 2)
    made = processor(2, 2)(images=[pil], return_tensors="pt")
    small, shape = layout.shrink(made["pixel_values"], made["image_grid_thw"], [(2, 3)])
    resized = pil.resize((24, 16), Image.Resampling.BICUBIC)
    expected = processor(2, 2)(images=[resized], return_tensors="pt")
    assert torch.equal(shape, expected["image_grid_thw"])
    difference = (small.clamp(0, 255) - expected["pixel_values"]).abs()
    assert difference.max() <= 1.5


def test_each_image_of_a_batch_has_its_own_size():
    layout = PatchLayout(PATCH, 2, 2)
    images = [
        Image.fromarray(picture(h, w, seed)[0]) for seed, (h, w) in enumerate([(16, 24), (24, 8)])
    ]
    cut = processor(2, 2)
    both = cut(images=images, return_tensors="pt")
    small, shapes = layout.shrink(both["pixel_values"], both["image_grid_thw"], [(1, 2), (3, 1)])
    assert shapes.tolist() == [[1, 2, 4], [1, 6, 2]]
    alone = [cut(images=[image], return_tensors="pt") for image in images]
    first, _ = layout.shrink(alone[0]["pixel_values"], alone[0]["image_grid_thw"], [(1, 2)])
    assert torch.equal(small[:8], first)
    assert torch.equal(small[8:], alone[1]["pixel_values"])  # as large as before: left as it is


def test_an_unknown_layout_is_refused():
    class Model:
        config = None

    with pytest.raises(VisionError, match="patch_size"):
        PatchLayout.of(Model())
