"""A tiny Qwen2-VL with a processor, and questions on random pictures."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from domainformer.data.vision_questions import VisionQuestion
from domainformer.training.vision import ImageTextProcessor
from tokenizers import Tokenizer, models, pre_tokenizers

PROMPT = "<start> {image} <stop> {question}"
_SPECIALS = ("<pad>", "<bos>", "<eos>", "<start>", "<stop>", "<image>", "<video>", "<unk>")
_WORDS = ("which", "digit", "is", "red", "at", "row", "0", "1", "2", "3", "{", "}")
_VOCABULARY = 48  # of the tiny models: whatever they say is a word


def _tiny():
    path = Path(__file__).parents[2] / "models" / "vision" / "tiny.py"
    spec = importlib.util.spec_from_file_location("vision_tiny", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Small:
    """What a run needs, small: ``model()``, ``processor``, ``questions(n)``, ``save(folder)``."""

    prompt = PROMPT

    def __init__(self):
        self.tiny = _tiny()
        words = {word: index for index, word in enumerate((*_SPECIALS, *_WORDS))}
        words |= {f"word{index}": index for index in range(len(words), _VOCABULARY)}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            pad_token="<pad>",
            bos_token="<bos>",
            eos_token="<eos>",
            unk_token="<unk>",
            additional_special_tokens=["<start>", "<stop>", "<image>", "<video>"],
        )
        self.images = Qwen2VLImageProcessorPil(
            patch_size=self.tiny.PATCH,
            merge_size=self.tiny.MERGE,
            temporal_patch_size=2,
            do_resize=False,
        )
        self.processor = ImageTextProcessor(self.tokenizer, self.images, image_token="<image>")

    def model(self, **changes):
        """A frozen model; the same weights each time."""
        model, _ = self.tiny.tiny("qwen2_vl", **{"num_hidden_layers": 1, **changes})
        return model

    def questions(self, count, seed=0, sizes=((3, 4), (2, 3), (4, 4)), shared=1):
        """Random pictures of a few tokens; ``shared`` questions in a row are about one of them."""
        rng = np.random.default_rng(seed)
        made = []
        for index in range(count):
            if index % shared == 0:
                rows, columns = sizes[(index // shared) % len(sizes)]
                picture = rng.integers(0, 256, (8 * rows, 8 * columns, 3), dtype=np.uint8)
            words = rng.choice(_WORDS[:6], 2 + index % 3)
            relevant = np.array([index % 4])
            answer = str(int(rng.integers(4)))
            made.append(VisionQuestion(picture, " ".join(words), answer, "word", relevant))
        return made

    def save(self, folder):
        """A model folder as a user has one."""
        self.model().save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.images.save_pretrained(folder)
        return folder


@pytest.fixture(scope="session")
def small():
    return Small()


@pytest.fixture(scope="session")
def realizer_of():
    """Makes a realizer with a new compressor from a seed."""
    from domainformer.models.vision import CompressorConfig, RelevanceCompressor, RelevanceRealizer

    def make(model, seed=0, **changes):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            values = {"feature_size": 32, "width": 8, "heads": 2, "min_tokens": 1, **changes}
            return RelevanceRealizer(model, RelevanceCompressor(CompressorConfig(**values)))

    return make
