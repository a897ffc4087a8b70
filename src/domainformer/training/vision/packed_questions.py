"""Many questions of one image in one row, each seeing the image and itself alone.

A question costs a dozen tokens and its image hundreds. As the image stands first and attention
is causal, its hidden states do not depend on the question, so that questions may share it::

    keys      image  q1   q2   q3
    image   [ causal                ]
    q1      [ full   causal         ]      every question at the positions that it
    q2      [ full    .   causal    ]      would have right after the image
    q3      [ full    .    .  causal]

The loss is that of separate rows (tested), for a fraction of the work.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from domainformer.data.tile_questions import LOOKUPS
from domainformer.data.tile_scenes import TileScene
from domainformer.data.vision_questions import VisionQuestion
from domainformer.training.vision.base_config import (
    END,
    IMAGE,
    VISION_END,
    VISION_START,
    image_grid,
    patchify,
)

IGNORED: Final = -100

Group = tuple[TileScene, list[VisionQuestion]]


def prefix_positions(rows: int, columns: int) -> Tensor:
    """``[3, K + 2]``: positions of vision start, the image's tokens and vision end.

    As ``get_rope_index`` gives them: an image spans ``max(rows, columns)`` positions.
    """
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    image = torch.stack([torch.zeros_like(row), row, column]).reshape(3, -1) + 1
    start = torch.zeros(3, 1, dtype=torch.long)
    end = torch.full((3, 1), 1 + max(rows, columns))
    return torch.cat([start, image, end], dim=1)


class PackedQuestions:
    """Collator: scenes with their questions to inputs of a Qwen2-VL.

    Args:
        tokenizer: of ``build_tokenizer``.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer = tokenizer
        self.image, self.start, self.end, self.stop, self.pad = tokenizer.convert_tokens_to_ids(
            [IMAGE, VISION_START, VISION_END, END, tokenizer.pad_token]
        )

    def _question(self, question: VisionQuestion) -> tuple[list[int], list[int]]:
        words = self.tokenizer.convert_tokens_to_ids(question.question.split())
        answer = self.tokenizer.convert_tokens_to_ids([question.answer])
        ids = [*words, *answer, self.stop]
        return ids, [IGNORED] * len(words) + [*answer, self.stop]

    def __call__(self, groups: Sequence[Group]) -> dict[str, Tensor]:
        """Pack scenes of one grid: one row per scene.

        ``lookups`` and ``sums`` tell for each question, in the order of the rows, where its
        answer stands; they are no inputs of the model.
        """
        rows, columns = groups[0][0].rows, groups[0][0].columns
        prefix = rows * columns + 2
        packed = [[self._question(q) for q in questions] for _, questions in groups]
        width = prefix + max(sum(len(ids) for ids, _ in row) for row in packed)
        size = len(groups)
        input_ids = torch.full((size, width), self.pad)
        labels = torch.full((size, width), IGNORED)
        positions = torch.zeros(3, size, width, dtype=torch.long)
        block = torch.zeros(size, width, dtype=torch.long)
        input_ids[:, :prefix] = self.image
        input_ids[:, 0], input_ids[:, prefix - 1] = self.start, self.end
        positions[:, :, :prefix] = prefix_positions(rows, columns)[:, None]
        after = 2 + max(rows, columns)
        for index, row in enumerate(packed):
            ids = [i for part, _ in row for i in part]
            filled = slice(prefix, prefix + len(ids))
            lengths = [len(part) for part, _ in row]
            input_ids[index, filled] = torch.tensor(ids)
            labels[index, filled] = torch.tensor([i for _, part in row for i in part])
            positions[:, index, filled] = torch.cat([after + torch.arange(n) for n in lengths])
            numbers = np.repeat(np.arange(1, len(row) + 1), lengths)
            block[index, filled] = torch.from_numpy(numbers)
            # Padding is a block of its own; its rows see the image and reach no label.
            block[index, prefix + len(ids) :] = len(row) + 1
        questions = [question for _, asked in groups for question in asked]
        lookups, sums = _looked_at(questions, rows * columns)
        return {
            "lookups": lookups,
            "sums": sums,
            "input_ids": input_ids,
            "labels": labels,
            "position_ids": positions,
            "attention_mask": _mask(block),
            "pixel_values": patchify(np.stack([scene.image for scene, _ in groups])),
            "image_grid_thw": image_grid(size, rows, columns),
        }


def _looked_at(questions: Sequence[VisionQuestion], tokens: int) -> tuple[Tensor, Tensor]:
    """Where an answer stands: ``[questions, 1 + K]`` for lookups, and the same for sums.

    The first place is the vision start before the image. A lookup's answer stands on one tile; a
    count's on the counted tiles and the vision start alike, so that the share of the latter,
    ``1 / (n + 1)``, tells the number; a global one's on all tiles. Other rows are zero.
    """
    lookups, sums = torch.zeros(2, len(questions), 1 + tokens)
    for index, question in enumerate(questions):
        relevant = torch.as_tensor(question.relevant, dtype=torch.long)
        if question.kind in LOOKUPS:
            lookups[index, 1 + relevant[-1]] = 1.0  # a neighbour stands to the right
        elif question.kind == "count":
            sums[index, 0] = sums[index, 1 + relevant] = 1 / (1 + len(relevant))
        else:
            sums[index, 1:] = 1 / tokens
    return lookups, sums


def _mask(block: Tensor) -> Tensor:
    """``[B, 1, S, S]`` additive: causal, and only the image (block 0) or the own question."""
    width = block.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    same = (block[:, :, None] == block[:, None, :]) | (block[:, None, :] == 0)
    allowed = causal & same
    mask = torch.zeros(allowed.shape)
    return mask.masked_fill_(~allowed, torch.finfo(mask.dtype).min)[:, None]
