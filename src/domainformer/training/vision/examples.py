"""Questions from files, and what identifies them.

A file has one question a line (JSONL) or a row (Parquet)::

    {"image": "tiles/0001.png", "question": "which digit is red?", "answer": "7", "kind": "colour"}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import DataError, MissingExtraError, VisionError

_REQUIRED = ("image", "question", "answer")
_VIDEOS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg"})


def read_questions(
    path: str | Path, *, images: str | Path | None = None
) -> tuple[VisionQuestion, ...]:
    """Read a file of questions; images stay on the disk until they are needed.

    Args:
        path: JSONL (``.jsonl``, ``.json``) or Parquet with ``image`` (a path), ``question``,
            ``answer`` and, where there are several, ``kind``.
        images: The folder that relative paths start from; None: the file's own.

    Raises:
        DataError: The file is missing or empty, or a line is not a question; line and column are
            named.
        VisionError: A line names a video.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / "a.png").touch()
        >>> _ = (folder / "q.jsonl").write_text(
        ...     '{"image": "a.png", "question": "which digit?", "answer": "7"}')
        >>> [one] = read_questions(folder / "q.jsonl")
        >>> one.image.name, one.answer, one.kind
        ('a.png', '7', 'question')
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"there is no file {path}",
            next_step="name a JSONL or Parquet file with image, question and answer; a relative "
            "path starts from where you are",
        )
    root = path.parent if images is None else Path(images)
    found = tuple(
        _question(values, root, f"{path}, line {number}") for number, values in _rows(path)
    )
    if not found:
        raise DataError(f"{path} has no question", next_step="write one a line")
    return found


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    if path.suffix == ".parquet":
        yield from enumerate(_parquet(path), start=1)
        return
    with path.open(encoding="utf-8") as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, _parsed(line, f"{path}, line {number}")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no text", why=str(error)) from error


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read", why=str(error)) from error
    return frame.iter_rows(named=True)


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise DataError("a line is no JSON", where=where, why=str(error)) from error


def _question(values: Any, root: Path, where: str) -> VisionQuestion:
    if not isinstance(values, Mapping):
        raise DataError(
            "a question is a JSON object", where=where, why=f"found {type(values).__name__}"
        )
    for key in _REQUIRED:
        value = values.get(key)
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"a question needs {key}",
                where=where,
                why=f"found {value!r}, not a text that says something"
                if key in values
                else f"there are {', '.join(map(repr, values))}",
                next_step=f"name the columns {', '.join(_REQUIRED)}"
                if key not in values
                else f"fill in {key}, or leave the example out",
            )
    image = root / values["image"]
    refuse_video(image, where=where)
    if not image.is_file():
        raise DataError(
            f"there is no image {image}",
            where=where,
            next_step="relative paths start from the file's own folder; name another as "
            "data.images (train) or --images (evaluate)",
        )
    kind = values.get("kind")
    if kind is not None and not isinstance(kind, str):
        raise DataError("kind is a text", where=where, why=f"found {kind!r}")
    return VisionQuestion(image, values["question"], values["answer"], kind or "question")


def refuse_video(path: Path, *, where: str | None = None) -> None:
    """Say that videos are not compressed, where a file is one by its name.

    Raises:
        VisionError: It is.
    """
    if path.suffix.lower() in _VIDEOS:
        raise VisionError(
            f"{path.name} is a video, and videos are not compressed",
            where=where,
            why="budgets and positions are those of single images",
            next_step="give a frame of it as an image",
        )


def pixels_of(question: VisionQuestion) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The image of a question as ``[height, width, 3]`` of uint8.

    Raises:
        DataError: The file is no image, or the array has another shape or type.
        MissingExtraError: A file is to be read, and pillow is not installed.
    """
    image = question.image
    if isinstance(image, Path):
        return _read_image(image)
    if not isinstance(image, np.ndarray):
        raise DataError(
            "an image is a Path or an array",
            where=f"the question {question.question!r}",
            why=f"found {type(image).__name__}",
            next_step="give pathlib.Path(...), or numpy.asarray(picture.convert('RGB'))",
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise DataError(
            "an image is [height, width, 3] of uint8",
            where=f"the question {question.question!r}",
            why=f"found {list(image.shape)} of {image.dtype}",
        )
    return image


def _read_image(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError as error:
        raise MissingExtraError("pillow", extra="vision", purpose="reading images") from error
    try:
        with Image.open(path) as opened:
            # A photo is stored as the sensor lay; its upright way is a note beside the pixels.
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(
            f"{path} is no image",
            why=str(error),
            next_step="give a picture that pillow opens: PNG, JPEG, WebP, …",
        ) from error


def questions_fingerprint(questions: Iterable[VisionQuestion]) -> str:
    """A short name of what questions hold: pixels or files by their bytes, texts, order.

    Example:
        >>> one = VisionQuestion(np.zeros((2, 2, 3), np.uint8), "which?", "7")
        >>> questions_fingerprint([one]) == questions_fingerprint([one, one])
        False
    """
    digest = hashlib.sha256()
    for one in questions:
        texts = json.dumps([one.question, one.answer, one.kind])
        image = one.image
        if isinstance(image, Path):
            content = image.read_bytes()
        else:
            texts += str(image.shape)
            content = np.ascontiguousarray(image).tobytes()
        digest.update(texts.encode())
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]
