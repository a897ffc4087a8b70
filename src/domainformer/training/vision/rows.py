"""Questions as rows to train on, with the frozen tower's features kept where they fit.

The tower does not change, so each of its images needs to pass it once. Questions that share an
image share its features. The tower sees a few images at a time, always the same ones together:
a run that is taken up again has the features that it had.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from domainformer.data.vision_questions import VisionQuestion
from domainformer.models.vision import Grid, ImageTokens
from domainformer.training.vision.collator import Row, VisionCollator

_AT_ONCE = 16  # images that the tower reads together
_MEGABYTE = 1 << 20
Encode = Callable[..., ImageTokens]


@dataclass
class FeatureStore:
    """Features of images by their content, up to a size.

    Args:
        megabytes: What all features together may take.
        dtype: How they are kept.
        kept: Features, grid and deepstack by the content of the image.
        size: Megabytes that they take.
    """

    megabytes: float
    dtype: torch.dtype = torch.float32
    kept: dict[bytes, Row] = field(default_factory=dict)
    size: float = 0.0

    def put(self, keys: Sequence[bytes], images: ImageTokens) -> None:
        """Keep what the tower made of some images."""
        for index, key in enumerate(keys):
            grid: Grid = images.grids[index]
            self.kept[key] = {
                "features": self._copied(images.features[index]),
                "deepstack": tuple(self._copied(layer[index]) for layer in images.deepstack),
                "grid": grid,
            }

    def drop(self, keys: Iterable[bytes]) -> None:
        """Let go of some images."""
        for key in keys:
            one = self.kept.pop(key)
            self.size -= sum(_megabytes(part) for part in (one["features"], *one["deepstack"]))

    def _copied(self, tensor: Tensor) -> Tensor:
        # A slice would keep the whole batch alive.
        copied = tensor.detach().to("cpu", self.dtype, copy=True)
        self.size += _megabytes(copied)
        return copied


class VisionRows(Dataset[Row]):
    """Rows of a split, in an order that the seed and the epoch decide.

    Args:
        questions: Sized and indexed.
        collator: Makes rows.
        seed: Of the order; None: as the questions are.
    """

    def __init__(
        self, questions: Sequence[VisionQuestion], collator: VisionCollator, *, seed: int | None
    ) -> None:
        self.questions, self.collator, self.seed = questions, collator, seed
        self._order = np.arange(len(questions))
        self._rows: list[Row] | None = None

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Row:
        place = int(self._order[index])
        if self._rows is not None:
            return self._rows[place]
        return self.collator.row(self.questions[place])

    def set_epoch(self, epoch: int) -> None:
        """Bring the rows into the order of an epoch."""
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, epoch])
            self._order = rng.permutation(len(self.questions))

    @property
    def cached(self) -> bool:
        """Whether the rows have their features."""
        return self._rows is not None

    def cache(self, encode: Encode, store: FeatureStore) -> bool:
        """Read every image once, and keep what the tower made of it; all rows or none.

        Args:
            encode: The tower: ``pixel_values``, …, ``input_ids`` to image tokens.
            store: Where the features are kept.

        Returns:
            Whether they fit.
        """
        known = set(store.kept)
        rows: list[Row] = []
        keys: list[bytes] = []
        waiting: dict[bytes, Row] = {}
        for index, question in enumerate(self.questions):
            row = self.collator.row(question)
            key = _content(row["vision"])
            if key not in store.kept:
                waiting.setdefault(key, dict(row))
            keys.append(key)
            rows.append({**row, "vision": _without_pixels(row["vision"])})
            if len(waiting) == _AT_ONCE or index + 1 == len(self.questions):
                self._read(encode, store, waiting)
                waiting = {}
                if store.size > store.megabytes:
                    store.drop(store.kept.keys() - known)
                    return False
        self._rows = [{**row, **store.kept[key]} for row, key in zip(rows, keys, strict=True)]
        return True

    def guide(self, look: Callable[[dict[str, Any]], Sequence[Tensor]], *, at_once: int) -> None:
        """Keep what the full model looks at for every question: it does not change either.

        The questions are always read in the same order and the same company, so that a run that is
        taken up again has the same teacher.

        Args:
            look: Batches of the collator to one ``[K]`` per image.
            at_once: Questions per batch.
        """
        if self._rows is None:
            return
        for first in range(0, len(self._rows), at_once):
            rows = self._rows[first : first + at_once]
            for row, attention in zip(rows, look(self.collator(rows)), strict=True):
                row["looked_at"] = attention.clone()

    def _read(self, encode: Encode, store: FeatureStore, waiting: dict[bytes, Row]) -> None:
        if waiting:
            batch = self.collator(list(waiting.values()))
            inputs = {k: batch[k] for k in batch if k not in ("labels", "relevant")}
            store.put(list(waiting), encode(**inputs))


def _content(vision: dict[str, Tensor]) -> bytes:
    """What tells images apart: their pixels and shapes."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(vision):
        value = vision[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(value.view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _without_pixels(vision: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in vision.items() if key != "pixel_values"}


def _megabytes(tensor: Tensor) -> float:
    return tensor.numel() * tensor.element_size() / _MEGABYTE
