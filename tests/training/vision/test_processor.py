"""A model folder, opened whole or of its halves; what is none is refused."""

import pytest
import torch

from domainformer.errors import VisionError
from domainformer.training.vision import ImageTextProcessor, VisionCollator, open_base
from domainformer.training.vision.config import VisionModelConfig


def test_a_folder_without_a_whole_processor_is_opened_of_its_halves(small, tmp_path):
    model, processor = open_base(VisionModelConfig(name=str(small.save(tmp_path))))
    assert isinstance(processor, ImageTextProcessor)
    assert not model.training
    questions = small.questions(3)
    opened = VisionCollator(processor, prompt=small.prompt)(questions)
    expected = VisionCollator(small.processor, prompt=small.prompt)(questions)
    for name in ("input_ids", "labels", "pixel_values", "image_grid_thw"):
        assert torch.equal(opened[name], expected[name])
    first, second = small.model().state_dict(), model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_no_vision_language_model_is_refused(small, tmp_path):
    with pytest.raises(VisionError, match="no model"):
        open_base(VisionModelConfig())
    with pytest.raises(VisionError, match="no model folder"):
        open_base(VisionModelConfig(name=str(tmp_path / "missing")))
    small.model().save_pretrained(tmp_path)
    with pytest.raises(VisionError, match="no processor"):
        open_base(VisionModelConfig(name=str(tmp_path)))
