"""Mosaics of handwritten digits: the pictures of generated vision questions.

A scene is a grid of tiles of 8 × 8 pixels, one image token each. A tile shows a handwritten
digit of scikit-learn's bundled set in a colour (ink) on a ground, and a dot in its corner::

    ┌────┬────┬────┐   eight *single* inks stand once in a scene;
    │● 3 │● 7 │● 1 │   eight *paired* inks stand often, never twice on the same ground;
    ├────┼────┼────┤   four *counted* inks stand none to three times each;
    │● 0 │● 5 │● 5 │   the other digits are white.
    └────┴────┴────┘   Every tile has a dot of one of four colours.

A small grid shows fewer of each: a model can begin on a few tiles, where attention is spread thin
over none.

Digits of the parts ``train``, ``validation`` and ``test`` come from different handwritten images.
"""

from dataclasses import dataclass
from functools import cache
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from domainformer.errors import MissingExtraError

Colour = tuple[int, int, int]
Part = Literal["train", "validation", "test"]

TILE: Final = 8
"""Pixels along the side of a tile."""

SINGLE: Final[dict[str, Colour]] = {
    "red": (255, 60, 60), "green": (60, 230, 60), "blue": (90, 130, 255),
    "yellow": (255, 240, 60), "pink": (255, 130, 200), "cyan": (60, 240, 240),
    "orange": (255, 160, 40), "violet": (180, 100, 255),
}  # fmt: skip
PAIRED: Final[dict[str, Colour]] = {
    "lime": (190, 255, 80), "rose": (255, 80, 140), "sky": (130, 200, 255),
    "mint": (130, 255, 190), "peach": (255, 200, 150), "lilac": (210, 170, 255),
    "gold": (215, 175, 50), "teal": (60, 180, 160),
}  # fmt: skip
COUNTED: Final[dict[str, Colour]] = {
    "ruby": (200, 50, 90), "olive": (160, 170, 60), "azure": (40, 160, 230),
    "mauve": (190, 110, 160),
}  # fmt: skip
PLAIN: Final[dict[str, Colour]] = {"white": (255, 255, 255)}
GROUNDS: Final[dict[str, Colour]] = {
    "black": (0, 0, 0), "navy": (0, 0, 100), "forest": (0, 80, 0), "maroon": (100, 0, 0),
    "plum": (90, 0, 90), "petrol": (0, 80, 90), "brown": (90, 55, 0), "slate": (60, 60, 70),
    "indigo": (50, 0, 110), "moss": (60, 80, 20), "wine": (70, 0, 40), "ocean": (0, 45, 90),
    "rust": (110, 40, 0), "steel": (40, 70, 90), "grape": (70, 30, 100), "coal": (30, 30, 30),
}  # fmt: skip
DOTS: Final[dict[str, Colour]] = {
    "snow": (255, 255, 255), "blood": (255, 0, 0), "grass": (0, 255, 0), "sea": (0, 0, 255),
}  # fmt: skip

INKS: Final = {**SINGLE, **PAIRED, **COUNTED, **PLAIN}
MOST_COUNTED: Final = 3
DOT_LEAD: Final = 0.1
"""The commonest dot leads the next by at least this share of the tiles."""

_INK_RGB: Final = np.array(list(INKS.values()), dtype=np.float32)
_GROUND_RGB: Final = np.array(list(GROUNDS.values()), dtype=np.float32)
_DOT_RGB: Final = np.array(list(DOTS.values()), dtype=np.uint8)
FIRST_PAIRED: Final = len(SINGLE)
FIRST_COUNTED: Final = FIRST_PAIRED + len(PAIRED)
FIRST_PLAIN: Final = FIRST_COUNTED + len(COUNTED)

Labels = npt.NDArray[np.int64]


@cache
def _glyphs(part: Part) -> tuple[tuple[npt.NDArray[np.float32], ...], ...]:
    """For each digit its handwritten images ``[8, 8]`` in 0..1, three of five to training."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError(
            "scikit-learn", extra="gbdt", purpose="the digits of generated questions"
        ) from error
    images, digits = load_digits(return_X_y=True)
    glyphs = (images.reshape(-1, TILE, TILE) / 16).astype(np.float32)
    fold = np.arange(len(glyphs)) % 5
    chosen = {"train": fold < 3, "validation": fold == 3, "test": fold == 4}[part]
    return tuple(tuple(glyphs[chosen & (digits == digit)]) for digit in range(10))


@dataclass(frozen=True, eq=False)
class TileScene:
    """What every tile of one mosaic shows, in raster order.

    Args:
        rows: tiles from top to bottom.
        columns: tiles from left to right.
        digits: ``[K]``, 0 to 9.
        inks: ``[K]``, index of the digit's colour in ``INKS``.
        grounds: ``[K]``, index of the tile's colour in ``GROUNDS``.
        dots: ``[K]``, index of the dot's colour in ``DOTS``.
        image: ``[rows · 8, columns · 8, 3]`` of uint8.
    """

    rows: int
    columns: int
    digits: Labels
    inks: Labels
    grounds: Labels
    dots: Labels
    image: npt.NDArray[np.uint8]

    @property
    def labels(self) -> Labels:
        """``[K, 6]``: digit, ink, ground, dot of each tile, ink and ground of its left neighbour.

        Tiles of the first column have no left neighbour: the class after the last.
        """
        inks = self._of_left_neighbour(self.inks, len(INKS))
        grounds = self._of_left_neighbour(self.grounds, len(GROUNDS))
        return np.stack([self.digits, self.inks, self.grounds, self.dots, inks, grounds], axis=1)

    def _of_left_neighbour(self, values: Labels, absent: int) -> Labels:
        shifted = np.roll(values.reshape(self.rows, self.columns), 1, axis=1)
        shifted[:, 0] = absent
        return shifted.reshape(-1)


def _draw_inks(rows: int, columns: int, rng: np.random.Generator) -> tuple[Labels, Labels]:
    """Ink and ground of every tile: single inks at most once, each pair at most once."""
    count = rows * columns
    most = min(MOST_COUNTED, max(1, count // 10))
    singles = rng.permutation(len(SINGLE))[: max(1, count // 6)]
    counted = np.repeat(
        np.arange(FIRST_COUNTED, FIRST_PLAIN), rng.integers(0, most + 1, len(COUNTED))
    )
    # A tenth of the tiles stays white where the pairs would fill the scene.
    room = count - len(singles) - len(counted) - count // 10
    pairs = rng.permutation(len(PAIRED) * len(GROUNDS))[: max(1, room)]
    first_pair = len(singles) + len(counted)
    inks = np.full(count, FIRST_PLAIN, dtype=np.int64)
    grounds = rng.integers(0, len(GROUNDS), count)
    named = np.concatenate([singles, counted, FIRST_PAIRED + pairs // len(GROUNDS)])
    inks[: len(named)] = named
    grounds[first_pair : first_pair + len(pairs)] = pairs % len(GROUNDS)
    # One pair has a right-hand neighbour.
    order = rng.permutation(count)
    inside = rng.choice(np.flatnonzero(np.arange(count) % columns < columns - 1))
    place = int(np.flatnonzero(order == first_pair)[0])
    order[[place, inside]] = order[[inside, place]]
    return inks[order], grounds[order]


def _draw_dots(count: int, lead: float, rng: np.random.Generator) -> Labels:
    """A dot for every tile, the commonest one ahead by a share of the tiles."""
    margin = max(1, round(lead * count))
    while True:
        shares = rng.dirichlet(np.full(len(DOTS), 4.0))
        dots = rng.choice(len(DOTS), size=count, p=shares)
        second, first = np.sort(np.bincount(dots, minlength=len(DOTS)))[-2:]
        if first - second >= margin:
            return dots.astype(np.int64)


def _paint(scene_labels: Labels, rows: int, columns: int, glyphs: npt.NDArray[np.float32]) -> (
    npt.NDArray[np.uint8]
):  # fmt: skip
    """Digits in their colour on their ground, with the dot of 2 × 2 pixels in the corner."""
    _, inks, grounds, dots = scene_labels.T
    ground = _GROUND_RGB[grounds][:, None, None, :]
    ink = _INK_RGB[inks][:, None, None, :]
    tiles = (ground + glyphs[..., None] * (ink - ground)).round().astype(np.uint8)
    tiles[:, :2, :2] = _DOT_RGB[dots][:, None, None, :]
    mosaic = tiles.reshape(rows, columns, TILE, TILE, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(mosaic.reshape(rows * TILE, columns * TILE, 3))


def draw_scene(
    rows: int, columns: int, part: Part, rng: np.random.Generator, *, lead: float = DOT_LEAD
) -> TileScene:
    """One mosaic of ``rows × columns`` tiles.

    Args:
        rows: tiles from top to bottom.
        columns: tiles from left to right.
        part: whose handwritten digits are shown.
        rng: source of chance.
        lead: share of the tiles by which the commonest dot leads the next, at least.
    """
    count = rows * columns
    digits = rng.integers(0, 10, count)
    inks, grounds = _draw_inks(rows, columns, rng)
    dots = _draw_dots(count, lead, rng)
    glyphs = _glyphs(part)
    drawn = np.stack([glyphs[d][rng.integers(len(glyphs[d]))] for d in digits.tolist()])
    labels = np.stack([digits, inks, grounds, dots], axis=1)
    image = _paint(labels, rows, columns, drawn)
    return TileScene(rows, columns, digits, inks, grounds, dots, image)
