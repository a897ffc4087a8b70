"""Generated questions: the answer is right, the scene unambiguous, the parts apart."""

import numpy as np
import pytest

from domainformer.data.tile_questions import KINDS, TileQuestions, vocabulary
from domainformer.data.tile_scenes import (
    COUNTED,
    DOT_LEAD,
    DOTS,
    FIRST_COUNTED,
    FIRST_PAIRED,
    GROUNDS,
    INKS,
    TILE,
    TileScene,
    _glyphs,
)
from domainformer.errors import DataError

inks, grounds, dots = list(INKS), list(GROUNDS), list(DOTS)


def tiles_of(scene: TileScene, words: list[str]) -> list[int]:
    """The slow, obvious reading: walk over all tiles and compare names."""
    found = []
    for tile in range(scene.rows * scene.columns):
        ink, ground = inks[scene.inks[tile]], grounds[scene.grounds[tile]]
        if words == [ink] or words == [ink, "on", ground]:
            found.append(tile)
    return found


def answer_of(scene: TileScene, question: str) -> tuple[str, list[int]]:
    words = question.split()
    if words[:3] == ["how", "many", "digits"]:
        tiles = tiles_of(scene, words[4:])
        return str(len(tiles)), tiles
    if words[1] == "dot":
        names = [dots[d] for d in scene.dots]
        return max(dots, key=names.count), list(range(len(names)))
    if words[3:5] == ["at", "row"]:
        tile = int(words[5]) * scene.columns + int(words[7])
        return str(scene.digits[tile]), [tile]
    if words[3:5] == ["right", "of"]:
        (tile,) = tiles_of(scene, words[5:])
        return str(scene.digits[tile + 1]), [tile, tile + 1]
    (tile,) = tiles_of(scene, words[3:])
    return str(scene.digits[tile]), [tile]


@pytest.mark.parametrize("side", [3, 4, 8, 12])
def test_every_answer_is_what_a_reader_of_the_scene_finds(side):
    questions = TileQuestions(48, rows=side, columns=side, seed=3, questions_per_scene=6)
    for number in range(8):
        scene, asked = questions.group(number)
        assert [question.kind for question in asked] == list(KINDS)
        for question in asked:
            answer, relevant = answer_of(scene, question.question)
            assert question.answer == answer
            assert question.relevant.tolist() == relevant


@pytest.mark.parametrize("side", [8, 24])
def test_names_are_unambiguous_and_dots_have_a_margin(side):
    scene, _ = TileQuestions(1, rows=side, columns=side).group(0)
    shown = np.bincount(scene.inks, minlength=len(INKS))
    assert (shown[:FIRST_PAIRED] == 1).all()
    paired = (scene.inks >= FIRST_PAIRED) & (scene.inks < FIRST_COUNTED)
    pairs = scene.inks[paired] * len(GROUNDS) + scene.grounds[paired]
    assert len(set(pairs.tolist())) == len(pairs) > 0
    assert shown[FIRST_COUNTED : FIRST_COUNTED + len(COUNTED)].max() <= 3
    second, first = np.sort(np.bincount(scene.dots, minlength=len(DOTS)))[-2:]
    assert first - second >= round(DOT_LEAD * side * side)


def test_a_tile_is_painted_as_its_labels_say():
    scene, _ = TileQuestions(1, rows=8, columns=9, seed=5).group(0)
    assert scene.image.shape == (64, 72, 3)
    for tile in (0, 10, 71):
        row, column = divmod(tile, 9)
        pixels = scene.image[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        assert tuple(pixels[0, 0]) == list(DOTS.values())[scene.dots[tile]]
        # The last column is empty in nearly all handwritten images: there the ground shows.
        ground = np.array(list(GROUNDS.values())[scene.grounds[tile]])
        assert np.abs(pixels[:, -1].astype(int) - ground).min() == 0


def test_scenes_are_a_function_of_seed_part_and_number():
    one, same = TileQuestions(6, seed=1), TileQuestions(12, seed=1)
    assert one[3].question == same[3].question
    assert np.array_equal(one[3].image, same[3].image)
    assert not np.array_equal(one[3].image, TileQuestions(6, seed=2)[3].image)
    assert not np.array_equal(one[3].image, TileQuestions(6, seed=1, part="test")[3].image)
    assert [q.question for q in one] == [one[i].question for i in range(6)]
    assert one[-1].question == one[5].question
    assert [q.question for q in one[1:4]] == [one[i].question for i in (1, 2, 3)]
    with pytest.raises(IndexError):
        one[6]


def test_no_handwritten_image_is_in_two_parts():
    seen = [
        {glyph.tobytes() for digit in _glyphs(part) for glyph in digit}
        for part in ("train", "validation", "test")
    ]
    assert min(map(len, seen)) > 300
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


def test_the_vocabulary_holds_every_word():
    words = set(vocabulary())
    for question in TileQuestions(60, rows=24, columns=24, questions_per_scene=6):
        assert {*question.question.split(), question.answer} <= words


def test_unknown_kinds_and_small_grids_are_refused():
    with pytest.raises(DataError, match="shape"):
        TileQuestions(1, kinds=["shape"])
    with pytest.raises(DataError, match="2 × 9"):
        TileQuestions(1, rows=2, columns=9)
