"""Four families of vision-language models small enough for every test, and inputs for them.

    model, make_inputs = tiny("qwen2_vl")
    inputs = make_inputs(padding="left")    # two rows, two grids, two lengths

Real classes of transformers, at width 32; weights are large enough that a wrong position or a
wrong token changes the answer far beyond the tolerance of the tests.
"""

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava")
PAD, BOS, EOS, VISION_START, VISION_END, IMAGE, VIDEO = range(7)
FIRST_WORD, VOCABULARY = 8, 48
PATCH, MERGE = 4, 2
LLAVA_GRID = (4, 4)

_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "bos_token_id": BOS,
    "eos_token_id": EOS,
}
_MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]}
_IDS = {
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
_QWEN_TOWER = {
    "depth": 2,
    "num_heads": 2,
    "patch_size": PATCH,
    "spatial_merge_size": MERGE,
    "temporal_patch_size": 2,
    "in_channels": 3,
}


def _qwen2_vl(text):
    tower = {**_QWEN_TOWER, "embed_dim": 16, "hidden_size": text["hidden_size"], "mlp_ratio": 2}
    text = {**text, "rope_parameters": _MROPE}
    config = Qwen2VLConfig(text_config=text, vision_config=tower, **_IDS)
    return Qwen2VLForConditionalGeneration, config


def _qwen2_5_vl(text):
    tower = {
        **_QWEN_TOWER,
        "hidden_size": 16,
        "intermediate_size": 24,
        "out_hidden_size": text["hidden_size"],
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    text = {**text, "rope_parameters": _MROPE}
    config = Qwen2_5_VLConfig(text_config=text, vision_config=tower, **_IDS)
    return Qwen2_5_VLForConditionalGeneration, config


def _qwen3_vl(text):
    tower = {
        **_QWEN_TOWER,
        "hidden_size": 16,
        "intermediate_size": 24,
        "out_hidden_size": text["hidden_size"],
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    rope = {**_MROPE, "mrope_interleaved": True}
    text = {**text, "head_dim": 16, "rope_parameters": rope}
    config = Qwen3VLConfig(text_config=text, vision_config=tower, **_IDS)
    return Qwen3VLForConditionalGeneration, config


def _llava(text):
    tower = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=PATCH * LLAVA_GRID[0],
        patch_size=PATCH,
    )
    config = LlavaConfig(text_config=LlamaConfig(**text), vision_config=tower, image_token_id=IMAGE)
    return LlavaForConditionalGeneration, config


_BUILDERS = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "llava": _llava,
}


def tiny(family, *, seed=0, attention="eager", **changes):
    """One model of a family and a maker of its inputs.

    Args:
        family: one of ``FAMILIES``.
        seed: of the weights.
        attention: ``"eager"`` or ``"sdpa"``.
        **changes: fields of the text configuration, as ``num_hidden_layers=1``.
    """
    kind, config = _BUILDERS[family]({**_TEXT, **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind._from_config(config, attn_implementation=attention)
        for parameter in model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.7 / parameter.shape[-1] ** 0.5)
        torch.nn.init.normal_(model.get_input_embeddings().weight)
    model.generation_config.update(pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS)
    return model.eval(), Maker(family)


class Maker:
    """Inputs of one family as its processor would give them, from a seed.

    Args:
        family: one of ``FAMILIES``.
    """

    def __init__(self, family):
        self.family = family
        self.mrope = family != "llava"

    def __call__(
        self, *, images=None, questions=(5, 3), answers=None, padding="left", seed=0, masks=True
    ):
        """One batch.

        Args:
            images: the grids (rows, columns of tokens) of the images of each row of the batch.
            questions: words of the question of each row.
            answers: words of the answer of each row; given, ``labels`` are too.
            padding: the side of it, ``"left"`` or ``"right"``.
            seed: of words and pixels.
            masks: whether to give ``attention_mask``.
        """
        draw = torch.Generator().manual_seed(seed)
        images = images or self.grids(len(questions))
        answers = answers or (0,) * len(questions)
        rows = [
            self._row(grids, question, answer, draw)
            for grids, question, answer in zip(images, questions, answers, strict=True)
        ]
        inputs = _pad(rows, padding)
        if not any(answers):
            del inputs["labels"]
        if not masks:
            del inputs["attention_mask"]
        return {**inputs, **self._pixels([grid for grids in images for grid in grids], draw)}

    def grids(self, rows):
        """One image per row, of different sizes where the family knows them."""
        sizes = ((4, 3), (2, 4), (3, 3)) if self.mrope else (LLAVA_GRID,)
        return [[sizes[row % len(sizes)]] for row in range(rows)]

    def _row(self, grids, question, answer, draw):
        ids = [BOS]
        for rows, columns in grids:
            marks = ([VISION_START], [VISION_END]) if self.mrope else ([], [])
            ids += marks[0] + [IMAGE] * (rows * columns) + marks[1]
        words = torch.randint(FIRST_WORD, VOCABULARY, (question + answer,), generator=draw).tolist()
        labels = [-100] * (len(ids) + question) + words[question:]
        return torch.tensor([ids + words, labels])

    def _pixels(self, grids, draw):
        if not self.mrope:
            side = PATCH * LLAVA_GRID[0]
            return {"pixel_values": torch.randn(len(grids), 3, side, side, generator=draw)}
        thw = torch.tensor([(1, MERGE * rows, MERGE * columns) for rows, columns in grids])
        patches = int(thw.prod(-1).sum())
        pixels = torch.randn(patches, 3 * 2 * PATCH * PATCH, generator=draw)
        return {"pixel_values": pixels, "image_grid_thw": thw}


def _pad(rows, side):
    length = max(row.shape[1] for row in rows)
    padded = torch.tensor([PAD, -100]).view(1, 2, 1).repeat(len(rows), 1, length)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for index, row in enumerate(rows):
        place = slice(length - row.shape[1], None) if side == "left" else slice(row.shape[1])
        padded[index, :, place] = row
        mask[index, place] = 1
    ids = padded[:, 0].clone()
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == IMAGE).long(),
        "labels": padded[:, 1].clone(),
    }
