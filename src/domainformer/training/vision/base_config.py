"""A small, real Qwen2-VL for mosaics of digits: its words, its pictures, its sizes."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from domainformer.data.tile_questions import vocabulary
from domainformer.data.tile_scenes import TILE
from tokenizers import Tokenizer, models, pre_tokenizers

PATCH: Final = 4
MERGE: Final = 2
"""A tile of 8 pixels is 2 × 2 patches, which the tower merges into one token."""

PAD: Final = "<pad>"
END: Final = "<eos>"
UNKNOWN: Final = "<unk>"
VISION_START: Final = "<|vision_start|>"
VISION_END: Final = "<|vision_end|>"
IMAGE: Final = "<|image_pad|>"
VIDEO: Final = "<|video_pad|>"
_SPECIALS: Final = (PAD, END, UNKNOWN, VISION_START, VISION_END, IMAGE, VIDEO)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the generated questions."""
    words = {word: index for index, word in enumerate((*_SPECIALS, *dict.fromkeys(vocabulary())))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        extra_special_tokens={
            "vision_start": VISION_START,
            "vision_end": VISION_END,
            "image_token": IMAGE,
            "video_token": VIDEO,
        },
    )


def build_image_processor() -> Qwen2VLImageProcessorPil:
    """Tiles of 8 pixels as they are: neither resized nor cropped."""
    return Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        merge_size=MERGE,
        temporal_patch_size=1,
        do_resize=False,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )


def patchify(images: npt.NDArray[np.uint8]) -> Tensor:
    """Patches of a stack of images, as the image processor cuts them, many times as fast.

    Args:
        images: ``[N, height, width, 3]``.

    Returns:
        ``[N · (height / 4) · (width / 4), 48]``, the patches of a token side by side.
    """
    count, height, width, _ = images.shape
    rows, columns, side = height // TILE, width // TILE, MERGE
    pixels = torch.from_numpy(images).float().div_(127.5).sub_(1.0)
    tiles = pixels.view(count, rows, side, PATCH, columns, side, PATCH, 3)
    return tiles.permute(0, 1, 4, 2, 5, 7, 3, 6).reshape(-1, 3 * PATCH * PATCH)


def image_grid(count: int, rows: int, columns: int) -> Tensor:
    """``image_grid_thw`` of ``count`` mosaics: patches in time, height, width."""
    return torch.tensor([[1, rows * MERGE, columns * MERGE]]).repeat(count, 1)


def build_model(
    tokenizer: PreTrainedTokenizerFast,
    *,
    seed: int,
    hidden_size: int = 128,
    layers: int = 4,
    heads: int = 4,
) -> Qwen2VLForConditionalGeneration:
    """A Qwen2-VL of about a million parameters, with fresh weights.

    The rotary base is small and most of its frequencies are given to row and column: with the
    published 1,000,000 the columns of a grid of 24 turn by less than a hundredth, and no head of
    32 entries can tell them apart. The wide initial range is what lets so small a model learn
    at all within minutes.
    """
    head = hidden_size // heads
    spatial = 5 * head // 32
    ids = tokenizer.convert_tokens_to_ids
    text: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": hidden_size,
        "intermediate_size": 3 * hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 1024,
        "initializer_range": 0.04,
        "bos_token_id": None,
        "eos_token_id": ids(END),
        "pad_token_id": ids(PAD),
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 5.0,
            "mrope_section": [head // 2 - 2 * spatial, spatial, spatial],
        },
    }
    vision: dict[str, Any] = {
        "depth": 2,
        "embed_dim": 64,
        "num_heads": 2,
        "mlp_ratio": 2,
        "hidden_size": hidden_size,
        "patch_size": PATCH,
        "spatial_merge_size": MERGE,
        "temporal_patch_size": 1,
        "in_channels": 3,
        "initializer_range": 0.08,
    }
    config = Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids(IMAGE),
        video_token_id=ids(VIDEO),
        vision_start_token_id=ids(VISION_START),
        vision_end_token_id=ids(VISION_END),
        tie_word_embeddings=True,
        initializer_range=0.04,
    )
    torch.manual_seed(seed)
    model = Qwen2VLForConditionalGeneration(config)
    for number, words_back in enumerate((2, 1)):
        _look_back(model, head=number, words_back=words_back)
    model.generation_config.eos_token_id = ids(END)
    model.generation_config.pad_token_id = ids(PAD)
    return model


@torch.no_grad()
def _look_back(
    model: Qwen2VLForConditionalGeneration, *, head: int, words_back: int, strength: float = 2.0
) -> None:
    """Let a head of the first layer start by attending a fixed number of words back.

    Every pretrained language model has such heads, and "lime on navy" means nothing without them;
    to grow them from nothing costs a small model thousands of steps. The biases of query and key
    alone, turned by the rotary angle of the distance, give the score
    ``strength² · Σ_i cos(f_i · (distance − words_back)) / √size``, largest at that distance.
    """
    language_model = model.model.language_model
    attention = language_model.layers[0].self_attn
    angles = language_model.rotary_emb.inv_freq * words_back
    half = len(angles)
    start = head * 2 * half
    query, key = attention.q_proj.bias, attention.k_proj.bias
    key[start : start + half] = strength
    key[start + half : start + 2 * half] = 0.0
    query[start : start + half] = strength * angles.cos()
    query[start + half : start + 2 * half] = -strength * angles.sin()
