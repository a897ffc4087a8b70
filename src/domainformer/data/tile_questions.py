"""Questions on mosaics of digits: generated data for vision token compression.

Six kinds of question are asked of the same scenes (``tile_scenes``), so that a scene tells nothing
of its question:

========== ============================================ =========================
kind       example                                      tokens that the answer needs
========== ============================================ =========================
colour     which digit is red                           1
pair       which digit is lime on navy                  1
cell       which digit is at row 3 column 5             1
neighbour  which digit is right of lime on navy         2
count      how many digits are olive                    0 to 3
global     which dot is most common                     all
========== ============================================ =========================
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, overload

import numpy as np

from domainformer.data.tile_scenes import (
    DOT_LEAD,
    DOTS,
    FIRST_COUNTED,
    FIRST_PAIRED,
    FIRST_PLAIN,
    GROUNDS,
    INKS,
    Labels,
    Part,
    TileScene,
    draw_scene,
)
from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import DataError

LOOKUPS: Final = ("colour", "pair", "cell", "neighbour")
"""The kinds of question that name one tile: those where the query decides what is relevant."""
KINDS: Final = (*LOOKUPS, "count", "global")

_INK_NAMES: Final = tuple(INKS)
_GROUND_NAMES: Final = tuple(GROUNDS)
_DOT_NAMES: Final = tuple(DOTS)


def _ask(scene: TileScene, kind: str, question: str, answer: object, relevant: Labels) -> (
    VisionQuestion
):  # fmt: skip
    return VisionQuestion(scene.image, question, str(answer), kind, np.sort(relevant))


def _ask_colour(scene: TileScene, rng: np.random.Generator) -> VisionQuestion:
    tile = rng.choice(np.flatnonzero(scene.inks < FIRST_PAIRED))
    words = f"which digit is {_INK_NAMES[scene.inks[tile]]}"
    return _ask(scene, "colour", words, scene.digits[tile], np.array([tile]))


def _pair(scene: TileScene, tile: int) -> str:
    return f"{_INK_NAMES[scene.inks[tile]]} on {_GROUND_NAMES[scene.grounds[tile]]}"


def _paired_tiles(scene: TileScene) -> Labels:
    return np.flatnonzero((scene.inks >= FIRST_PAIRED) & (scene.inks < FIRST_COUNTED))


def _ask_pair(scene: TileScene, rng: np.random.Generator) -> VisionQuestion:
    tile = rng.choice(_paired_tiles(scene))
    words = f"which digit is {_pair(scene, tile)}"
    return _ask(scene, "pair", words, scene.digits[tile], np.array([tile]))


def _ask_cell(scene: TileScene, rng: np.random.Generator) -> VisionQuestion:
    tile = int(rng.integers(len(scene.digits)))
    row, column = divmod(tile, scene.columns)
    words = f"which digit is at row {row} column {column}"
    return _ask(scene, "cell", words, scene.digits[tile], np.array([tile]))


def _ask_neighbour(scene: TileScene, rng: np.random.Generator) -> VisionQuestion:
    tiles = _paired_tiles(scene)
    inside = tiles[tiles % scene.columns < scene.columns - 1]
    tile = rng.choice(inside)
    words = f"which digit is right of {_pair(scene, tile)}"
    return _ask(scene, "neighbour", words, scene.digits[tile + 1], np.array([tile, tile + 1]))


def _ask_count(scene: TileScene, rng: np.random.Generator) -> VisionQuestion:
    ink = int(rng.integers(FIRST_COUNTED, FIRST_PLAIN))
    tiles = np.flatnonzero(scene.inks == ink)
    return _ask(scene, "count", f"how many digits are {_INK_NAMES[ink]}", len(tiles), tiles)


def _ask_global(scene: TileScene, rng: np.random.Generator) -> VisionQuestion:
    del rng  # there is one such question per scene
    answer = _DOT_NAMES[int(np.bincount(scene.dots).argmax())]
    return _ask(scene, "global", "which dot is most common", answer, np.arange(len(scene.digits)))


_ASK: Final[dict[str, Callable[[TileScene, np.random.Generator], VisionQuestion]]] = {
    "colour": _ask_colour,
    "pair": _ask_pair,
    "cell": _ask_cell,
    "neighbour": _ask_neighbour,
    "count": _ask_count,
    "global": _ask_global,
}


class TileQuestions(Sequence[VisionQuestion]):
    """A reproducible set of questions on generated mosaics.

    Args:
        size: number of questions.
        rows: tiles (image tokens) from top to bottom.
        columns: tiles from left to right.
        kinds: kinds of question, asked in turn.
        part: whose handwritten digits are shown.
        seed: scenes are a function of the seed, the part and their number.
        questions_per_scene: so many questions in a row share a scene.
        lead: share of the tiles by which the commonest dot leads the next, at least. Wider than
            it is by default, a model begins to compare dots sooner.

    Raises:
        DataError: an unknown kind, or a grid below 3 × 3.

    Example:
        >>> questions = TileQuestions(6, rows=8, columns=8, seed=1)
        >>> questions[1].kind, questions[1].image.shape, len(questions[1].relevant)
        ('pair', (64, 64, 3), 1)
    """

    def __init__(
        self,
        size: int,
        *,
        rows: int = 8,
        columns: int = 8,
        kinds: Sequence[str] = KINDS,
        part: Part = "train",
        seed: int = 0,
        questions_per_scene: int = 1,
        lead: float = DOT_LEAD,
    ) -> None:
        unknown = [kind for kind in kinds if kind not in _ASK]
        if unknown or not kinds:
            raise DataError(
                f"no such kind of question: {', '.join(unknown) or 'none given'}",
                where="kinds",
                why=f"there are {', '.join(KINDS)}",
                next_step="name some of these",
            )
        if rows < 3 or columns < 3:
            raise DataError(
                f"a grid of {rows} × {columns} tiles is too small",
                where="rows, columns",
                why="a scene shows single, paired, counted and white digits",
                next_step="take 3 × 3 tiles or more",
            )
        self.size, self.rows, self.columns = size, rows, columns
        self.kinds, self.part, self.seed = tuple(kinds), part, seed
        self.questions_per_scene, self.lead = questions_per_scene, lead

    def __len__(self) -> int:
        return self.size

    def _rng(self, scene: int) -> np.random.Generator:
        part = ("train", "validation", "test").index(self.part)
        return np.random.default_rng([self.seed, part, self.rows, self.columns, scene])

    def group(self, scene: int) -> tuple[TileScene, list[VisionQuestion]]:
        """One scene and all questions that are asked of it."""
        rng = self._rng(scene)
        drawn = draw_scene(self.rows, self.columns, self.part, rng, lead=self.lead)
        first = scene * self.questions_per_scene
        last = min(first + self.questions_per_scene, self.size)
        asked = [_ASK[self.kinds[i % len(self.kinds)]](drawn, rng) for i in range(first, last)]
        return drawn, asked

    @overload
    def __getitem__(self, index: int) -> VisionQuestion: ...

    @overload
    def __getitem__(self, index: slice) -> list[VisionQuestion]: ...

    def __getitem__(self, index: int | slice) -> VisionQuestion | list[VisionQuestion]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self.size))]
        if not -self.size <= index < self.size:
            raise IndexError(index)
        index %= self.size
        scene, place = divmod(index, self.questions_per_scene)
        return self.group(scene)[1][place]

    def __iter__(self) -> Iterator[VisionQuestion]:
        scenes = -(-self.size // self.questions_per_scene)
        for scene in range(scenes):
            yield from self.group(scene)[1]


def vocabulary(most_rows: int = 24) -> tuple[str, ...]:
    """Every word of a question or an answer, for a grid of up to ``most_rows`` rows and columns."""
    words = "which digit is at row column right of on how many digits are dot most common"
    numbers = [str(number) for number in range(max(10, most_rows))]
    return (*words.split(), *numbers, *INKS, *GROUNDS, *DOTS)
