"""From a path to a configuration that runs: look, ask, write."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from domainformer.errors import ConfigError, DataError
from domainformer.start.events import ask_events
from domainformer.start.found import EventsFound, TextFound, candidates, readable
from domainformer.start.plan import Kind, Plan
from domainformer.start.questions import Ask, Interview, Question
from domainformer.start.texts import ask_text
from domainformer.start.writing import (
    CONFIG_FILE,
    SCHEMA_FILE,
    config_text,
    refuse_existing,
    schema_text,
    write_files,
)

Tell = Callable[[str], None]
# Questions that have a meaning for one kind of data alone.
_OF_EVENTS, _OF_TEXT = (
    ("entity", "time", "label", "split"),
    ("tokenizer", "unknown", "context"),
)


@dataclass(frozen=True)
class Written:
    """What a beginning has written.

    Args:
        kind: ``pretrain`` for a model of events, ``train`` for a language model.
        config: The configuration.
        schema: The schema beside it; None for text.
        command: What runs it.
        questions: How many were asked.
    """

    kind: Kind
    config: Path
    schema: Path | None
    command: str
    questions: int


def begin(
    data: str | Path | None = None,
    folder: str | Path = ".",
    *,
    ask: Ask | None = None,
    tell: Tell = lambda line: None,
    given: Mapping[str, str | None] | None = None,
    overwrite: bool = False,
) -> Written:
    """Look at data, ask what it does not tell, and write a commented configuration.

    A table of events (Parquet, CSV, Arrow, a folder of them, MEDS) gives ``run.yaml`` and
    ``schema.yaml`` for ``pretrain``; text gives ``run.yaml`` for ``train``. At most six questions
    are asked. Files appear together at the end, or not at all.

    Args:
        data: A table or text; None: the first question, with what lies in the working folder.
        folder: Where to write.
        ask: Receives a question and its number; its answer "" takes the default. EOFError ends the
            interview. None: nobody is asked, all defaults are taken.
        tell: Receives what was found, and the reason where an answer is asked for again.
        given: Answers beforehand, by the names of questions (``entity``, ``time``, …).
        overwrite: Replace files of an earlier beginning.

    Raises:
        ConfigError: A file exists, an answer cannot be taken or is missing.
        DataError: The data cannot be used.
        SchemaError: A named column does not exist or cannot be used, or nothing can be learned.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp())
        >>> _ = (place / "poem.txt").write_text("to be or not to be, " * 20)
        >>> written = begin(place / "poem.txt", place, ask=lambda question, number: "")
        >>> written.kind, written.questions, written.config.name
        ('train', 3, 'run.yaml')
    """
    config, schema = Path(folder) / CONFIG_FILE, Path(folder) / SCHEMA_FILE
    refuse_existing((config, schema), overwrite=overwrite)
    interview = Interview(ask, tell, given)
    found = readable(str(data)) if data is not None else interview(_which()).value
    tell(f"{found.path}: {found}")
    _refuse_foreign(found, interview.given)
    plan = (
        ask_events(found, interview)
        if isinstance(found, EventsFound)
        else ask_text(found, interview)
    )
    files = _files(plan, config, schema)
    write_files(files, overwrite=overwrite)
    command = _command(plan, config)
    return Written(plan.kind, config, schema if schema in files else None, command, interview.count)


def write_start(
    data: str | Path,
    folder: str | Path,
    *,
    entity: str | None = None,
    time: str | None = None,
    label: str | None = None,
) -> tuple[Path, Path]:
    """Write ``run.yaml`` and ``schema.yaml`` for a table, ready to edit and to pretrain with.

    Args:
        data: Table of events.
        folder: Where to write; existing files are kept and refused.
        entity: Column that says whose event a row is; None: guessed.
        time: Column of the event's time; None: guessed.
        label: Column with a target, left out of the fields.

    Returns:
        The paths of ``run.yaml`` and ``schema.yaml``.

    Raises:
        ConfigError: One of the files exists.
        DataError: The table cannot be used.
        SchemaError: A column cannot be guessed, or one that was named does not exist.
    """
    written = begin(data, folder, given={"entity": entity, "time": time, "label": label})
    if written.schema is None:
        written.config.unlink()
        raise DataError(f"{data} is no table of events", next_step="use begin() for text")
    return written.config, written.schema


def _which() -> Question:
    here = candidates(".")
    default = here[0] if here else None
    why = "no table and no text lies in this folder"
    if here:
        others = f", the first of {len(here)} (tables first, the largest first)"
        why = f"it lies in this folder{others if len(here) > 1 else ''}"
    return Question(
        "data",
        "Which data? A table of events (Parquet, CSV, a folder), or text (a file, a folder)",
        default,
        why,
        readable,
        here[:8],
    )


def _refuse_foreign(found: EventsFound | TextFound, given: Mapping[str, str]) -> None:
    foreign = _OF_TEXT if isinstance(found, EventsFound) else _OF_EVENTS
    for name in foreign:
        if name in given:
            raise ConfigError(
                f"--{name} is of no use here",
                why=f"{found.path} is {found}",
                next_step="leave it out, or name other data",
            )


def _files(plan: Plan, config: Path, schema: Path) -> dict[Path, str]:
    command = _command(plan, config)
    if plan.inferred is None:
        return {config: config_text(plan, command)}
    # As the path of the table, that of the schema is seen from where the command is run.
    text = config_text(plan, command, schema=str(schema))
    return {schema: schema_text(plan.inferred), config: text}


def _command(plan: Plan, config: Path) -> str:
    return f"domainformer {plan.kind} {shlex.quote(os.fspath(config))}"
