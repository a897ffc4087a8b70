"""Questions of files: read as they are, refused with their line."""

import json

import numpy as np
import polars as pl
import pytest

from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import ConfigError, DataError, DomainformerError
from domainformer.training.vision import (
    SOURCES,
    Split,
    open_questions,
    pixels_of,
    questions_fingerprint,
    read_questions,
    source,
)
from domainformer.training.vision.config import QuestionsConfig, VisionDataConfig

GOOD = {"image": "a.png", "question": "which digit ?", "answer": "7"}


@pytest.fixture
def folder(tmp_path):
    from PIL import Image

    for name, value in (("a.png", 10), ("b.png", 200)):
        Image.fromarray(np.full((4, 6, 3), value, np.uint8)).save(tmp_path / name)
    return tmp_path


def _write(folder, *lines):
    path = folder / "questions.jsonl"
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines))
    return path


def test_jsonl_and_parquet_say_the_same(folder):
    rows = [{**GOOD, "kind": "colour"}, {**GOOD, "image": "b.png", "kind": None}]
    path = _write(folder, rows[0], "", rows[1])
    pl.DataFrame(rows).write_parquet(folder / "questions.parquet")
    lines, table = read_questions(path), read_questions(folder / "questions.parquet")
    assert [(one.image, one.answer, one.kind) for one in lines] == [
        (folder / "a.png", "7", "colour"),
        (folder / "b.png", "7", "question"),
    ]
    assert questions_fingerprint(lines) == questions_fingerprint(table)
    np.testing.assert_array_equal(pixels_of(lines[1]), np.full((4, 6, 3), 200, np.uint8))


def test_images_may_lie_elsewhere(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    path = _write(elsewhere, GOOD)
    assert read_questions(path, images=folder)[0].image == folder / "a.png"
    with pytest.raises(DataError, match="no image"):
        read_questions(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON"),
        ("[1]", "JSON object"),
        ({"image": "a.png", "question": "which ?"}, "needs answer"),
        ({**GOOD, "question": "  "}, "needs question"),
        ({**GOOD, "answer": 7}, "needs answer"),
        ({**GOOD, "image": "c.png"}, "no image"),
        ({**GOOD, "kind": 3}, "kind is a text"),
    ],
)
def test_a_bad_line_is_named(folder, line, message):
    with pytest.raises(DataError, match=message) as caught:
        read_questions(_write(folder, GOOD, GOOD, line))
    assert caught.value.where.endswith("questions.jsonl, line 3")


def test_files_that_are_none(folder):
    with pytest.raises(DataError, match="no file"):
        read_questions(folder / "missing.jsonl")
    with pytest.raises(DataError, match="no question"):
        read_questions(_write(folder, ""))
    (folder / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="no text"):
        read_questions(folder / "bytes.jsonl")
    (folder / "bad.parquet").write_text("no table")
    with pytest.raises(DataError, match="cannot be read"):
        read_questions(folder / "bad.parquet")


def test_what_is_wrong_teaches(folder):
    def told(line):
        with pytest.raises(DomainformerError) as caught:
            read_questions(_write(folder, GOOD, line))
        assert caught.value.where.endswith("questions.jsonl, line 2")
        return str(caught.value)

    assert "there are 'picture', 'question'" in told({"picture": "a.png", "question": "which ?"})
    assert "name the columns image, question, answer" in told({"picture": "a.png"})
    assert "fill in question, or leave" in told({**GOOD, "question": " "})
    assert "data.images (train) or --images" in told({**GOOD, "image": "c.png"})
    assert "clip.MP4 is a video" in told({**GOOD, "image": "clip.MP4"})


def test_a_photo_stands_upright(folder):
    from PIL import Image

    picture = np.zeros((4, 6, 3), np.uint8)
    picture[0, 0] = 255
    notes = Image.Exif()
    notes[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(picture).save(folder / "turned.png", exif=notes)
    upright = pixels_of(VisionQuestion(folder / "turned.png", "which ?", "7"))
    np.testing.assert_array_equal(upright, np.rot90(picture, -1))


@pytest.mark.parametrize("image", ["a.png", None])
def test_an_image_is_a_path_or_an_array(image):
    with pytest.raises(DataError, match="a Path or an array"):
        pixels_of(VisionQuestion(image, "which ?", "7"))


def test_pictures_that_are_none(folder):
    (folder / "text.png").write_text("no picture")
    with pytest.raises(DataError, match="no image"):
        pixels_of(VisionQuestion(folder / "text.png", "which ?", "7"))
    for bad in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(DataError, match="height, width, 3"):
            pixels_of(VisionQuestion(bad, "which ?", "7"))


def test_the_fingerprint_sees_pixels_texts_and_order():
    pictures = [np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)]
    one, other = (VisionQuestion(picture, "which ?", "7") for picture in pictures)
    names = [[one], [other], [one, other], [other, one]]
    names.append([VisionQuestion(pictures[0], "which ?", "8")])
    assert len({questions_fingerprint(each) for each in names}) == len(names)


def test_sources_are_found_by_name(folder, monkeypatch):
    path = _write(folder, GOOD)
    split = open_questions(VisionDataConfig(train=str(path), validation=str(path)))
    assert (len(split.train), len(split.validation), split.fingerprint) == (1, 1, None)

    monkeypatch.setattr("domainformer.training.vision.sources.SOURCES", dict(SOURCES))
    table = open_questions.__globals__["SOURCES"]
    made = Split([VisionQuestion(np.zeros((2, 2, 3), np.uint8), "which ?", "7")])
    table["made"] = lambda options: made
    first, again, other = (
        open_questions(VisionDataConfig(questions=QuestionsConfig(source="made", options=options)))
        for options in ({}, {}, {"rows": 9})
    )
    assert first.train is made.train
    assert first.fingerprint == again.fingerprint != other.fingerprint

    with pytest.raises(ConfigError, match="no source of questions 'mad'") as caught:
        open_questions(VisionDataConfig(questions=QuestionsConfig(source="mad")))
    assert "made" in caught.value.next_step
    with pytest.raises(ConfigError, match="no questions to train"):
        open_questions(VisionDataConfig())
    with pytest.raises(ConfigError, match="no option 'trian'"):
        SOURCES["files"]({"trian": "a"})


def test_a_source_is_entered_by_its_decorator(monkeypatch):
    monkeypatch.setattr("domainformer.training.vision.sources.SOURCES", {})

    @source("mine")
    def mine(options):
        return Split([])

    assert open_questions.__globals__["SOURCES"] == {"mine": mine}
