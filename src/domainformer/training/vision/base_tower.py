"""The tower of the experiment's base model: it learns to name what a tile shows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2VLForConditionalGeneration,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from domainformer.data.tile_questions import TileQuestions
from domainformer.data.tile_scenes import DOTS, GROUNDS, INKS, TileScene
from domainformer.training.vision.base_config import image_grid, patchify

_LABELS: Final = (10, len(INKS), len(GROUNDS), len(DOTS), len(INKS) + 1, len(GROUNDS) + 1)
"""Classes of a tile's labels: digit, ink, ground, dot, ink and ground of the left neighbour."""

_GRIDS: Final = ((8, 9), (12, 4), (24, 1))
"""Tiles along the side, and scenes per step, taken in turn: whom a tile has to its left must not
depend on how large the picture is."""


class TileNaming(nn.Module):
    """The tower with one linear head per label of a tile.

    Args:
        model: whose tower is trained, in place.
    """

    def __init__(self, model: Qwen2VLForConditionalGeneration) -> None:
        super().__init__()
        self.tower = model.model.visual
        width = model.config.vision_config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(width, classes) for classes in _LABELS)

    def forward(self, pixel_values: Tensor, image_grid_thw: Tensor, labels: Tensor) -> Any:
        """Mean cross-entropy of the labels, and each label's accuracy."""
        tokens = self.tower(pixel_values, grid_thw=image_grid_thw).pooler_output
        scores = [head(tokens) for head in self.heads]
        columns = labels.reshape(-1, len(_LABELS)).T
        losses = [nn.functional.cross_entropy(s, c) for s, c in zip(scores, columns, strict=True)]
        hits = [(s.argmax(-1) == c).float().mean() for s, c in zip(scores, columns, strict=True)]
        return {"loss": torch.stack(losses).mean(), "accuracy": torch.stack(hits)}


class _Scenes(IterableDataset[list[TileScene]]):
    """The scenes of each step, all of one grid."""

    def __init__(self, steps: int, seed: int) -> None:
        self.steps = steps
        self.drawn = [
            (TileQuestions(steps * scenes, rows=side, columns=side, seed=seed), scenes)
            for side, scenes in _GRIDS
        ]

    def __iter__(self) -> Iterator[list[TileScene]]:
        for step in range(self.steps):
            drawn, scenes = self.drawn[step % len(self.drawn)]
            yield [drawn.group(step * scenes + scene)[0] for scene in range(scenes)]


def _collate(scenes: list[TileScene]) -> dict[str, Tensor]:
    return {
        "pixel_values": patchify(np.stack([scene.image for scene in scenes])),
        "image_grid_thw": image_grid(len(scenes), scenes[0].rows, scenes[0].columns),
        "labels": torch.from_numpy(np.stack([scene.labels for scene in scenes])),
    }


def training_arguments(folder: Path, *, steps: int, seed: int, **changes: Any) -> TrainingArguments:
    """What both stages of the base model share."""
    values: dict[str, Any] = {
        "max_steps": steps,
        "weight_decay": 0.01,
        "adam_beta2": 0.99,
        "max_grad_norm": 1.0,
        "logging_steps": 50,
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
        # Dispatching cuts every tensor to the number of rows, and the patches with them.
        "accelerator_config": {"dispatch_batches": False},
    }
    return TrainingArguments(output_dir=str(folder), seed=seed, **{**values, **changes})


def train_tower(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    *,
    seed: int,
    steps: int = 900,
) -> list[float]:
    """Teach the tower to name tiles, then freeze it and start the word vectors from it.

    Args:
        model: a fresh one; its tower and its word vectors are changed.
        tokenizer: of ``build_tokenizer``.
        folder: for the trainer's files.
        seed: of scenes and heads.
        steps: optimiser steps; 900 take about two minutes on one core.

    Returns:
        Accuracy of each label on scenes of 8 × 8 tiles of the validation part.
    """
    torch.manual_seed(seed)
    naming = TileNaming(model)
    arguments = training_arguments(
        folder,
        steps=steps,
        seed=seed,
        per_device_train_batch_size=1,  # an item is a whole step
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, steps // 10),
        save_strategy="no",
    )
    trainer = Trainer(
        naming,
        arguments,
        train_dataset=_Scenes(steps, seed),
        data_collator=lambda step: _collate(step[0]),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    naming.tower.requires_grad_(False)
    name_words(model, tokenizer, naming, seed=seed)
    naming.eval()
    with torch.no_grad():
        held_out = TileQuestions(16, part="validation")
        batch = _collate([held_out.group(scene)[0] for scene in range(16)])
        return cast("list[float]", naming(**batch)["accuracy"].tolist())


@torch.no_grad()
def name_words(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    naming: TileNaming,
    *,
    seed: int,
) -> None:
    """Start the word vectors from the tower's directions, turned by one random rotation.

    In a pretrained model the vectors of words and the tower's features are related by a linear
    map, unknown to both (Merullo et al. 2023, "Linearly mapping from image to text space"). The
    rotation is that map: the language model and the compressor have to find it, and the cosine
    of a raw word vector with a feature says nothing.
    """
    words = [[str(digit) for digit in range(10)], list(INKS), list(GROUNDS), list(DOTS)]
    table = model.get_input_embeddings().weight
    width = table.shape[1]
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(width, width, generator=generator))
    size = table.std() * width**0.5
    for names, head in zip(words, naming.heads, strict=False):  # neighbours have no words
        directions = nn.functional.normalize(head.weight - head.weight.mean(0), dim=1)
        table[tokenizer.convert_tokens_to_ids(names)] = size * directions @ rotation
