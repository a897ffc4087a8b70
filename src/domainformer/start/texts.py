"""The questions about text: what reads it, foreign characters, how far back, how long."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domainformer.data.text import Document, normalise_documents, split_text
from domainformer.data.text_policy import TextReport, Unknown
from domainformer.errors import ConfigError, DataError
from domainformer.start.found import TextFound
from domainformer.start.plan import Plan
from domainformer.start.questions import (
    Answer,
    Interview,
    Question,
    one_of,
    tokens_to_train,
    whole_number,
)

CHARACTERS = "characters"
SHORTEST, CONTEXT, LONGEST = 8, 64, 1024
# `normal` is the recipe shakespeare_char: 2,000 steps of 768 tokens.
SIZES = {"quick": 150_000, "normal": 1_536_000, "long": 15_000_000}
_RECIPE = {
    "batch_tokens": 768,
    "learning_rate": 0.004,
    "weight_decay": 0.1,
    "eval_rows": 240,
}
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
# With more foreign characters than this the text would be full of question marks.
FEW = 0.01


def ask_text(found: TextFound, interview: Interview) -> Plan:
    """Ask what a configuration for a language model needs.

    Args:
        found: The text.
        interview: Who is asked.

    Raises:
        InputError: The text cannot be used, or an answer that is needed cannot be had.
    """
    documents, report = _normalised(found.documents, "replace")
    foreign = sum(report.replaced.values())
    split_parts(documents)  # too little text is told before anything is asked
    tokenizer = interview(_tokenizer(found, report, foreign))
    unknown = None
    if tokenizer.value is None:
        if foreign:
            unknown = interview(_unknown(report))
            documents, _ = _normalised(found.documents, unknown.value)
    else:
        documents = found.documents
    train, validation = split_parts(documents)
    # A token of a tokenizer stands for some four characters, so that there are fewer of them.
    most = _room(train) // (1 if tokenizer.value is None else 4)
    context = interview(_context(max(SHORTEST, min(most, LONGEST))))
    size = interview(_size())
    # The path of a text may name variables of the environment: a sign of its own is doubled.
    data: dict[str, Any] = {"path": found.path.replace("$", "$$"), "validation": 0.1}
    if unknown is not None:
        data["unknown"] = unknown.value
    if len(found.documents) > 1:
        data["cross_documents"] = True
    reading = _reading(tokenizer, train, validation)
    plan: dict[str, dict[str, Any]] = {
        "data": data,
        "tokenizer": reading,
        "model": {"preset": "tiny"},
        "training": {
            "context": context.value,
            "max_tokens": size.value,
            **_RECIPE,
            "batch_tokens": max(_RECIPE["batch_tokens"], context.value),
            "seed": 0,
        },
        "sampling": {"tokens": 200, "temperature": 0.8},
        "output": {"root": "runs", "name": None},
    }
    sources = _sources(tokenizer, unknown, context, size)
    return Plan("train", plan, sources, found=str(found))


def _reading(
    tokenizer: Answer, train: Sequence[Document], validation: Sequence[Document]
) -> dict[str, Any]:
    if tokenizer.value is not None:
        return {"path": tokenizer.value}
    # A character that only the validation text has would be none of a fitted alphabet.
    return {"alphabet": "ascii" if _letters(validation) - _letters(train) else "fitted"}


def _letters(documents: Sequence[Document]) -> set[str]:
    return set().union(*(set(document.text) for document in documents))


def _normalised(
    documents: Sequence[Document], unknown: Unknown
) -> tuple[tuple[Document, ...], TextReport]:
    done, report = normalise_documents(documents, unknown=unknown)
    return tuple(done), report


def split_parts(documents: Sequence[Document]) -> tuple[list[Document], list[Document]]:
    """Training and validation text, as the run will split them.

    Raises:
        DataError: There is too little text.
    """
    train, validation = split_text(documents, "position", 0.1)
    if _room(train) < SHORTEST:
        raise DataError(
            "the text is too short for a language model",
            why=f"{_room(train) + 1:,} characters are left for training, and even the shortest "
            f"context takes {SHORTEST + 1}",
            next_step="give more text: some ten thousand characters are a beginning",
        )
    return train, validation


def _room(train: Sequence[Document]) -> int:
    """The longest context, in characters: windows cross documents where there are several."""
    return sum(len(document.text) for document in train) - 1


def _tokenizer(found: TextFound, report: TextReport, foreign: int) -> Question:
    def parse(text: str) -> str | None:
        if text.lower() == CHARACTERS:
            return None
        folder = Path(text).expanduser()
        if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
            raise ConfigError(
                f"there is no tokenizer in {text!r}",
                why=f"neither {' nor '.join(_TOKENIZER_FILES)} is there",
                next_step=f"answer {CHARACTERS}, or name a folder that `domainformer tokenizer "
                "bpe` or save_pretrained made",
            )
        return str(folder)

    why = "they need no fitting, and suit small texts"
    if foreign > FEW * found.characters:
        why = (
            f"they suit small texts, but {foreign / found.characters:.0%} of yours are not ASCII "
            "and would be lost: stop here, make a tokenizer with `domainformer tokenizer bpe`, "
            "and name its folder"
        )
    return Question(
        "tokenizer",
        "What shall it read: characters, or the tokens of a tokenizer (its folder)?",
        CHARACTERS,
        why,
        parse,
        (CHARACTERS, "FOLDER"),
    )


def _unknown(report: TextReport) -> Question:
    return Question(
        "unknown",
        "What shall become of characters that are not ASCII: replace (by ?), or drop?",
        "replace",
        f"every character keeps its place; found were {report.render()}",
        one_of({"replace": "replace", "drop": "drop"}),
        ("replace", "drop"),
    )


def _context(most: int) -> Question:
    def parse(text: str) -> int:
        value = whole_number(text)
        if not SHORTEST <= value <= most:
            raise ConfigError(
                f"the context must lie between {SHORTEST} and {most:,}",
                why="a window has to fit into the training text"
                if most < LONGEST
                else "a tiny model gains nothing beyond it",
            )
        return value

    default = min(CONTEXT, most)
    why = "as in the recipe shakespeare_char"
    if default < CONTEXT:
        why = "as far as the training text reaches"
    return Question("context", "How many tokens shall it look back?", str(default), why, parse)


def _size() -> Question:
    told = ", ".join(f"{name} ({tokens:,})" for name, tokens in SIZES.items())
    return Question(
        "size",
        f"How long shall it learn? {told}, or a number of tokens",
        "normal",
        "as in the recipe shakespeare_char: some minutes of one core",
        tokens_to_train(SIZES),
        tuple(SIZES),
    )


def _sources(
    tokenizer: Answer, unknown: Answer | None, context: Answer, size: Answer
) -> dict[str, str]:
    recipe = "as in the recipe shakespeare_char"
    return {
        **dict.fromkeys((f"training.{name}" for name in _RECIPE), recipe),
        **dict.fromkeys(("tokenizer.path", "tokenizer.alphabet"), tokenizer.source),
        **({"data.unknown": unknown.source} if unknown else {}),
        "data.path": "the data that were looked at",
        "data.cross_documents": "there are several documents, and some may be short",
        "model.preset": recipe,
        "training.context": context.source,
        "training.max_tokens": size.source,
        "training.seed": "any number will do: equal seeds give equal runs",
    }
