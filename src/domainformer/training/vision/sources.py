"""Where the questions of a run come from: a small table of sources, by name.

A source takes its options and gives the questions to learn from and those to judge by::

    @source("tiles")
    def tiles(options: Mapping[str, Any]) -> Split: ...

Files are the source of every configuration that names ``data.train``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from domainformer.artifacts import fingerprint
from domainformer.data.tile_questions import TileQuestions
from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import ConfigError, nearest
from domainformer.training.vision.config import VisionDataConfig
from domainformer.training.vision.examples import read_questions


@dataclass(frozen=True)
class Split:
    """Questions to learn from, and questions to judge by.

    Args:
        train: Sized and indexed; items may be made when they are asked for.
        validation: The same, of other images; empty: nothing is judged.
        fingerprint: What identifies both; None: their pixels and texts, which are all read.
    """

    train: Sequence[VisionQuestion]
    validation: Sequence[VisionQuestion] = ()
    fingerprint: str | None = None


Source = Callable[[Mapping[str, Any]], Split]
SOURCES: dict[str, Source] = {}
"""The sources by the name that ``data.questions.source`` gives."""


def source(name: str) -> Callable[[Source], Source]:
    """Enter a function into :data:`SOURCES` under a name."""

    def enter(function: Source) -> Source:
        SOURCES[name] = function
        return function

    return enter


@source("files")
def files(options: Mapping[str, Any]) -> Split:
    """Questions of files: ``train``, ``validation`` and ``images`` as in ``data``."""
    unknown = sorted(options.keys() - {"train", "validation", "images"})
    if unknown:
        raise ConfigError(
            f"the source 'files' has no option {unknown[0]!r}",
            where="data.questions.options",
            next_step=nearest(unknown[0], ("train", "validation", "images")),
        )
    if options.get("train") is None:
        raise ConfigError(
            "there are no questions to train on",
            where="data.train",
            next_step="name a JSONL or Parquet file with image, question and answer",
        )
    images, validation = options.get("images"), options.get("validation")
    return Split(
        train=read_questions(options["train"], images=images),
        validation=() if validation is None else read_questions(validation, images=images),
    )


@source("tiles")
def tiles(options: Mapping[str, Any]) -> Split:
    """Questions on generated mosaics of digits (:class:`TileQuestions`).

    Takes ``size`` and ``validation_size`` beside what ``TileQuestions`` takes; the two parts
    show different handwritten digits.
    """
    known = ("size", "validation_size", "rows", "columns", "kinds", "seed", "questions_per_scene")
    unknown = sorted(options.keys() - set(known))
    if unknown:
        raise ConfigError(
            f"the source 'tiles' has no option {unknown[0]!r}",
            where="data.questions.options",
            next_step=nearest(unknown[0], known),
        )
    shared = {key: options[key] for key in known[2:] if key in options}
    size, validation = options.get("size", 6000), options.get("validation_size", 600)
    return Split(
        train=TileQuestions(size, part="train", **shared),
        validation=TileQuestions(validation, part="validation", **shared),
    )


def open_questions(config: VisionDataConfig) -> Split:
    """The questions that a configuration names.

    Raises:
        ConfigError: There is no such source, or it does not take these options.
        DataError: A file cannot be used.
    """
    asked = config.questions
    if asked is None:
        return files(config.model_dump(exclude={"questions"}))
    if asked.source not in SOURCES:
        raise ConfigError(
            f"there is no source of questions {asked.source!r}",
            where="data.questions.source",
            next_step=nearest(asked.source, SOURCES),
        )
    made = SOURCES[asked.source](asked.options)
    if made.fingerprint is not None or asked.source == "files":
        return made
    # What is generated follows from the options; the code has its own place in a run's identity.
    return replace(made, fingerprint=fingerprint(asked.model_dump(mode="json")))
