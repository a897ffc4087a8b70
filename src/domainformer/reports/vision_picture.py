"""The picture of a compression: which patches of an image were kept for a question, and why.

::

    question ─▶ [ whole image ][ scores as a heat map ][ kept at budget 1 ][ kept at budget 2 ] …

Dropped patches are dimmed; kept ones stay clear, and a thin line runs around them. Images are
embedded as PNG, written here, so that a page needs nothing beside itself.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from domainformer.errors import ConfigError
from domainformer.reports.markup import Content, Markup, badge, shorten, tag
from domainformer.reports.numbers import share

# From the colour of paper to that of the accent: a print in grey keeps the order.
_RAMP = np.array([(247, 249, 251), (147, 179, 245), (37, 99, 235), (23, 37, 84)], np.float64)
_VEIL, _DIM = "#dfe5ec", 0.8  # grey, so that what is dropped of a white image is seen, too


@dataclass(frozen=True, eq=False)
class Panel:
    """What is left of an image at one budget, and what the model says then.

    Args:
        kept: indices of the kept tokens, in raster order.
        answer: the model's answer from these tokens; None where it was not asked.
        title: what stands above; else the number of tokens kept.
        length: tokens of the whole prompt that are left, of text and image.
    """

    kept: npt.NDArray[np.int64]
    answer: str | None = None
    title: str | None = None
    length: int | None = None


@dataclass(frozen=True, eq=False)
class Sight:
    """One image, one question, and what each budget makes of them.

    Args:
        image: ``[height, width, 3]`` of uint8.
        grid: rows and columns of the image's tokens.
        question: the question's text.
        panels: one per budget.
        full_answer: the model's answer from all tokens.
        expected: the right answer, where it is known.
        scores: ``[rows * columns]``, where the selector ranks.
        mixing: weight of each way of knowing, where the selector mixes.
        full_length: tokens of the whole prompt, of text and image.

    Raises:
        ConfigError: A shape does not fit the grid.
    """

    image: npt.NDArray[np.uint8]
    grid: tuple[int, int]
    question: str
    panels: tuple[Panel, ...]
    full_answer: str | None = None
    expected: str | None = None
    scores: npt.NDArray[np.float64] | None = None
    mixing: dict[str, float] | None = None
    full_length: int | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            found = f"{self.image.dtype} {list(self.image.shape)}"
            raise ConfigError("a picture needs [height, width, 3] of uint8", why=f"found {found}")
        tokens = math.prod(self.grid)
        if self.scores is not None and self.scores.shape != (tokens,):
            found = f"{list(self.scores.shape)} scores for {tokens} tokens"
            raise ConfigError("scores do not fit the grid", why=found)
        for panel in self.panels:
            if len(panel.kept) and not 0 <= panel.kept.min() <= panel.kept.max() < tokens:
                raise ConfigError("a kept token lies outside of the grid", why=f"grid {self.grid}")


def draw_sight(sight: Sight) -> Markup:
    """A question with its panels side by side, for the middle of a page."""
    # Pages hold several pictures, and an id must be that of one: the content names it.
    digest = hashlib.sha256(sight.image.tobytes() + sight.question.encode())
    name = "p" + digest.hexdigest()[:10]
    panels = [_whole(sight, name)]
    if sight.scores is not None:
        panels.append(_heat(sight, sight.scores))
    panels += [_kept(sight, panel, name) for panel in sight.panels]
    return tag(
        "div",
        tag("p", tag("strong", shorten(sight.question, 300)), _class="asked"),
        _mixing(sight.mixing),
        tag("div", panels, _class="sights"),
        _class="sight",
    )


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """``[height, width, 3]`` of uint8 as a PNG file.

    Example:
        >>> png(np.zeros((1, 2, 3), np.uint8))[1:4]
        b'PNG'
    """
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # each row begins with its filter: none
    rows[:, 1:] = pixels.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def cells(grid: tuple[int, int], chosen: Sequence[int], height: int, width: int) -> str:
    """The path that fills the chosen cells of a grid over an image.

    Example:
        >>> cells((2, 2), [1], 4, 4)
        'M2 0h2v2h-2z'
    """
    high, wide = height / grid[0], width / grid[1]
    return "".join(
        f"M{index % grid[1] * wide:g} {index // grid[1] * high:g}h{wide:g}v{high:g}h-{wide:g}z"
        for index in chosen
    )


def outline(grid: tuple[int, int], chosen: Sequence[int], height: int, width: int) -> str:
    """The path around the chosen cells: an edge between two chosen cells is none.

    Example:
        >>> outline((1, 3), [0, 1], 2, 6)
        'M0 0h2M0 2h2M0 0v2M2 0h2M2 2h2M4 0v2'
    """
    rows, columns = grid
    high, wide = height / rows, width / columns
    within = np.zeros((rows + 2, columns + 2), bool)
    for index in chosen:
        within[index // columns + 1, index % columns + 1] = True
    edges = []
    for index in chosen:
        row, column = divmod(index, columns)
        left, top = column * wide, row * high
        if not within[row, column + 1]:
            edges.append(f"M{left:g} {top:g}h{wide:g}")
        if not within[row + 2, column + 1]:
            edges.append(f"M{left:g} {top + high:g}h{wide:g}")
        if not within[row + 1, column]:
            edges.append(f"M{left:g} {top:g}v{high:g}")
        if not within[row + 1, column + 2]:
            edges.append(f"M{left + wide:g} {top:g}v{high:g}")
    return "".join(edges)


def heat(scores: npt.NDArray[np.float64], grid: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Scores as one pixel per token, from pale (the lowest) to dark (the highest)."""
    finite = np.isfinite(scores)
    # A selector may say "never" by minus infinity: that is drawn as the lowest.
    low, high = (scores[finite].min(), scores[finite].max()) if finite.any() else (0.0, 0.0)
    held = np.nan_to_num(scores, nan=low, posinf=high, neginf=low)
    place = (held - low) / (high - low) if high > low else np.zeros_like(held)
    stops = np.linspace(0, 1, len(_RAMP))
    colours = np.stack([np.interp(place, stops, _RAMP[:, part]) for part in range(3)], -1)
    return colours.reshape(*grid, 3).round().astype(np.uint8)


def _whole(sight: Sight, name: str) -> Markup:
    height, width = sight.image.shape[:2]
    picture = tag("image", id=name, href=_data(sight.image), width=width, height=height)
    tokens = math.prod(sight.grid)
    caption = [f"all {tokens} tokens", *_said(sight, sight.full_answer, whole=True)]
    return _panel(picture, height, width, caption, "The whole image")


def _heat(sight: Sight, scores: npt.NDArray[np.float64]) -> Markup:
    rows, columns = sight.grid
    height, width = sight.image.shape[:2]
    picture = tag(
        "image",
        href=_data(heat(scores, sight.grid)),
        width=width,
        height=height,
        preserveAspectRatio="none",
        style="image-rendering:pixelated",
    )
    finite = scores[np.isfinite(scores)]
    span = f"pale {finite.min():.3g}, dark {finite.max():.3g}" if len(finite) else "none is finite"
    label = f"Scores of {rows} rows and {columns} columns"
    return _panel(picture, height, width, [f"scores: {span}"], label)


def _kept(sight: Sight, panel: Panel, name: str) -> Markup:
    height, width = sight.image.shape[:2]
    tokens = math.prod(sight.grid)
    kept = [int(index) for index in panel.kept]
    dropped = sorted(set(range(tokens)) - set(kept))
    drawn = [
        tag("use", href=f"#{name}"),
        tag("path", d=cells(sight.grid, dropped, height, width), fill=_VEIL, opacity=_DIM),
        tag(
            "path",
            d=outline(sight.grid, kept, height, width),
            fill="none",
            stroke="#2563eb",
            vector_effect="non-scaling-stroke",
        ),
    ]
    title = panel.title or f"{len(kept)} of {tokens} ({share(len(kept) / tokens)})"
    label = f"{len(kept)} of {tokens} patches kept"
    return _panel(drawn, height, width, [title, *_said(sight, panel.answer)], label)


def _panel(
    drawn: Content, height: int, width: int, caption: Sequence[Content], label: str
) -> Markup:
    svg = tag("svg", drawn, viewBox=f"0 0 {width} {height}", role="img", aria_label=label)
    return tag("figure", svg, tag("figcaption", [tag("div", line) for line in caption]))


def _said(sight: Sight, answer: str | None, *, whole: bool = False) -> list[Content]:
    """The answer, marked against the right one, else against that from all tokens."""
    if answer is None:
        return []
    said: list[Content] = [tag("strong", shorten(answer, 60) or "(nothing)")]
    if sight.expected is not None:
        right = answer.strip() == sight.expected.strip()
        said += [" ", badge("right" if right else "wrong", "good" if right else "bad")]
    elif sight.full_answer is not None and not whole:
        same = answer.strip() == sight.full_answer.strip()
        said += [" ", badge("as with all" if same else "differs", "even" if same else "bad")]
    return [said]


def _mixing(mixing: dict[str, float] | None) -> Markup | None:
    if not mixing:
        return None
    parts = ", ".join(f"{name} {share(weight)}" for name, weight in mixing.items())
    return tag("p", f"Weights of the ways of knowing: {parts}", _class="quiet")


def _data(pixels: npt.NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")
