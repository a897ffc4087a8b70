"""The picture of kept patches: cells and outlines as counted by hand, PNG read back, no markup."""

import re
import struct
import zlib

import numpy as np
import pytest

from domainformer.errors import ConfigError
from domainformer.reports.vision_picture import Panel, Sight, cells, draw_sight, heat, outline, png

EVIL = "<script>alert('x')</script>"


def pixels_of(data):
    """A PNG without filters, read by the format's definition."""
    parts, at = {}, 8
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        (check,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        assert check == zlib.crc32(kind + body)
        parts[kind], at = body, at + 12 + length
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, 1 + 3 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3)


def covered(path, height, width):
    """The pixels that a path of whole cells fills."""
    found = np.zeros((height, width), int)
    for left, top, wide, high in re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h-\d+z", path):
        left, top, wide, high = int(left), int(top), int(wide), int(high)
        found[top : top + high, left : left + wide] += 1
    return found


def edges_of(path):
    """Unit edges of a path of straight lines, each as (x, y, direction)."""
    return sorted(re.findall(r"M(\d+) (\d+)([hv])\d+", path))


@pytest.fixture
def sight():
    image = np.random.default_rng(0).integers(0, 256, (12, 18, 3), np.uint8)
    kept = (np.array([0, 1, 5]), np.array([4]))
    return Sight(
        image,
        (2, 3),
        f"which? {EVIL}",
        (Panel(kept[0], "7"), Panel(kept[1], f"9 {EVIL}")),
        full_answer="7",
        scores=np.array([3.0, 2.0, -np.inf, 0.0, 1.0, 2.5]),
        mixing={"coupling": 0.75, "information": 0.25},
    )


@pytest.mark.parametrize("seed", range(5))
def test_cells_and_outlines_are_those_of_a_slow_drawing(seed):
    draw = np.random.default_rng(seed)
    rows, columns = draw.integers(1, 6, 2)
    chosen = [int(i) for i in range(rows * columns) if draw.random() < 0.5]
    within = np.zeros((rows, columns), int)
    for index in chosen:
        within[index // columns, index % columns] = 1
    # One pixel per cell, so that filled pixels are the cells themselves.
    assert np.array_equal(
        covered(cells((rows, columns), chosen, rows, columns), rows, columns), within
    )
    around = np.pad(within, 1)
    expected = []
    for y in range(rows + 1):
        for x in range(columns + 1):
            if around[y, x + 1] != around[y + 1, x + 1]:
                expected.append((str(x), str(y), "h"))
            if around[y + 1, x] != around[y + 1, x + 1]:
                expected.append((str(x), str(y), "v"))
    assert edges_of(outline((rows, columns), chosen, rows, columns)) == sorted(expected)


def test_png_is_read_back():
    image = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(pixels_of(png(image)), image)


def test_heat_keeps_the_order_and_takes_what_is_not_finite():
    scores = np.array([3.0, 2.0, -np.inf, 0.0, 1.0, 2.5])
    brightness = heat(scores, (2, 3)).astype(int).sum(-1).reshape(-1)
    assert np.array_equal(np.argsort(-brightness, kind="stable"), [2, 3, 4, 1, 5, 0])
    assert len(np.unique(heat(np.full(6, 2.0), (2, 3)))) <= 3
    assert len(np.unique(heat(np.full(6, np.nan), (2, 3)))) <= 3


def test_a_picture_shows_what_is_kept_and_what_is_said(sight):
    drawn = draw_sight(sight)
    assert drawn.count("<svg") == 4
    assert "3 of 6 (50.0 %)" in drawn
    assert "1 of 6 (" in drawn
    assert drawn.count("as with all") == 1
    assert drawn.count("differs") == 1
    assert "coupling 75.0 %" in drawn
    assert "<script" not in drawn
    assert drawn.count("data:image/png;base64,") == 2  # the image once, whatever number of budgets


def test_answers_are_judged_where_the_right_one_is_known(sight):
    drawn = draw_sight(Sight(sight.image, (2, 3), "which?", sight.panels, "5", expected="7"))
    assert re.findall(r">(right|wrong)<", drawn) == ["wrong", "right", "wrong"]
    assert "scores" not in drawn


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": np.zeros((4, 4), np.uint8)}, "height, width, 3"),
        ({"scores": np.zeros(5)}, "do not fit the grid"),
        ({"panels": (Panel(np.array([6])),)}, "outside of the grid"),
    ],
)
def test_what_does_not_fit_is_refused(sight, change, message):
    given = {"image": sight.image, "grid": (2, 3), "question": "?", "panels": ()}
    with pytest.raises(ConfigError, match=message):
        Sight(**{**given, **change})
