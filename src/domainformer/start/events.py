"""The questions about a table of events: whose, when, the label, what to hold out, how long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl

from domainformer.data import TRAIN, EventTable, Split
from domainformer.errors import ConfigError, DataError, InputError, SchemaError
from domainformer.quickstart import (
    DEMO_TOKENS,
    MIN_DISTINCT_TIMES,
    MODEL,
    REAL_TOKENS,
    TOKENIZER,
    split_config,
    training_settings,
)
from domainformer.schema import InferredSchema, infer_schema
from domainformer.schema.roles import guess_entity, guess_time, required, time_is_text
from domainformer.start.found import EventsFound, known_columns
from domainformer.start.plan import Plan
from domainformer.start.questions import (
    Answer,
    Interview,
    Question,
    one_of,
    tokens_to_train,
)
from domainformer.training import SplitConfig
from domainformer.training.preparation import make_split

NONE = "none"
SIZES = {"quick": DEMO_TOKENS, "normal": REAL_TOKENS, "long": 5 * REAL_TOKENS}
SEEDS = 20
_DESPITE_THE_ORDER = "there is no time that could be held out: only the order of rows is known"


@dataclass(frozen=True)
class _Guess:
    """A column that names and shapes make plain, or why there is none."""

    column: str | None
    why: str


def ask_events(found: EventsFound, interview: Interview) -> Plan:
    """Ask what a configuration for a table of events needs.

    Args:
        found: The table.
        interview: Who is asked.

    Raises:
        InputError: The table cannot be used, or an answer that is needed cannot be had.
    """
    entity = interview(_entity(found))
    time = interview(_time(found, entity.value))
    table = EventTable.read(found.path, entity=entity.value, time=time.value)
    inferred = infer_schema(table)
    label = interview(_label(table, inferred))
    split = interview(_split(table))
    size = interview(_size())
    config, divided = split.value
    # The schema is what training may see: values of the held-out part must not shape it.
    inferred = infer_schema(divided.events(table, TRAIN), label=label.value)
    return Plan(
        kind="pretrain",
        values={
            "data": {
                "path": found.path,
                "entity": table.entity,
                "time": table.time,
                "label": label.value,
            },
            "split": {"kind": config.kind, "seed": config.seed},
            "tokenizer": TOKENIZER,
            "model": MODEL,
            "training": {**training_settings(), "max_tokens": size.value, "seed": 0},
            "output": {"root": "runs", "name": None},
        },
        sources=_sources(entity, time, label, split, size),
        inferred=inferred,
        found=str(found),
    )


def _sources(
    entity: Answer, time: Answer, label: Answer, split: Answer, size: Answer
) -> dict[str, str]:
    asked = {
        "data.entity": entity,
        "data.time": time,
        "data.label": label,
        "split.kind": split,
        "training.max_tokens": size,
    }
    taken = "as quickstart takes it"
    others = ["tokenizer.bpe_vocab_size", "model.preset", "model.overrides"]
    others += [f"training.{name}" for name in training_settings()]
    return {
        **dict.fromkeys(others, taken),
        **{key: answer.source for key, answer in asked.items()},
        "data.path": "the data that were looked at",
        "split.seed": "the first that leaves no part without events",
        "training.seed": "any number will do: equal seeds give equal runs",
    }


def _guess(known: str | None, guess: Callable[[], str], why: str) -> _Guess:
    if known is not None:
        return _Guess(known, "the format of the folder (MEDS) says so")
    try:
        return _Guess(guess(), why)
    except SchemaError as error:
        return _Guess(None, error.why or error.what)


def _entity(found: EventsFound) -> Question:
    frame = found.frame

    def parse(text: str) -> str:
        name = required(frame, text, "entity")
        EventTable.of(frame.select(name), entity=name)
        return name

    why = "the only column whose name and values say so"
    guess = _guess(known_columns(found).get("entity"), lambda: guess_entity(frame), why)
    return Question(
        "entity",
        "Which column says whose event a row is (client, patient, machine …)?",
        guess.column,
        guess.why,
        parse,
        tuple(frame.columns),
    )


def _time(found: EventsFound, entity: str) -> Question:
    frame = found.frame

    def parse(text: str) -> str | None:
        if text == NONE and NONE not in frame.columns:
            return None
        name = required(frame, text, "time")
        if name == entity:
            raise SchemaError(f"the column {name!r} is the entity already")
        if frame.schema[name] == pl.String:
            raise time_is_text(name)
        EventTable.of(frame.select(entity, name), entity=entity, time=name)
        return name

    why = "the only column whose name and type say so"
    guess = _guess(known_columns(found).get("time"), lambda: guess_time(frame, entity), why)
    choices = tuple(name for name in frame.columns if name != entity)
    return Question(
        "time",
        "Which column says when? ('none': only the order of the rows counts)",
        guess.column,
        guess.why,
        parse,
        (*choices, NONE),
    )


def _label(table: EventTable, inferred: InferredSchema) -> Question:
    roles = {table.entity, table.time}

    def parse(text: str) -> str | None:
        if text == NONE and NONE not in table.frame.columns:
            if inferred.label is None:
                return None
            raise SchemaError(
                f"the column {inferred.label!r} is left out whatever you answer",
                why="it is called as targets are, and never changes within an entity",
                next_step="rename it in the table if the model shall read it",
            )
        name = required(table.frame, text, "label")
        if name in roles:
            raise SchemaError(f"the column {name!r} is the entity or the time already")
        infer_schema(table, label=name)  # would anything be left to learn from?
        return name

    why = "no column is called as targets are and never changes within an entity"
    if inferred.label is not None:
        why = "it is called as targets are, and never changes within an entity"
    return Question(
        "label",
        "Which column is a target, to be kept from the model? ('none': there is none)",
        inferred.label or NONE,
        why,
        parse,
        (*(name for name in table.frame.columns if name not in roles), NONE),
    )


def _split(table: EventTable) -> Question:
    default = split_config(table, "auto", None, None, 0).kind

    def parse(text: str) -> tuple[SplitConfig, Split]:
        kind: Literal["time", "entity"] = one_of({"time": "time", "entity": "entity"})(text)
        if kind == "time" and table.time is None:
            raise ConfigError(_DESPITE_THE_ORDER, next_step="answer entity")
        return _divided(table, kind)

    other: Literal["time", "entity"] = "entity" if default == "time" else "time"
    why = _why_time() if default == "time" else _why_entity(table)
    if problem := _problem(parse, default):
        if _problem(parse, other):
            raise problem
        default, why = other, f"split by {default}, a part would have no events"
    return Question(
        "split",
        "Hold out later events of the same entities (time), or other entities (entity)?",
        default,
        why,
        parse,
        ("time", "entity"),
    )


def _divided(table: EventTable, kind: Literal["time", "entity"]) -> tuple[SplitConfig, Split]:
    """The split, and its parts; of few entities the first seed that leaves no part empty.

    Raises:
        DataError: One part would be empty, whatever the seed.
    """
    problem: InputError | None = None
    for seed in range(SEEDS if kind == "entity" else 1):
        config = SplitConfig(kind=kind, seed=seed)
        try:
            return config, make_split(table, config)
        except DataError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _why_time() -> str:
    return f"with {MIN_DISTINCT_TIMES} distinct dates or more, the future can be held out"


def _why_entity(table: EventTable) -> str:
    if table.time is None:
        return _DESPITE_THE_ORDER
    return f"the table has less than {MIN_DISTINCT_TIMES} distinct dates: too few to hold some out"


def _problem(parse: Callable[[str], Any], text: str) -> InputError | None:
    """Why an answer could not be taken; None: it could."""
    try:
        parse(text)
    except InputError as error:
        return error
    return None


def _size() -> Question:
    told = ", ".join(f"{name} ({tokens:,})" for name, tokens in SIZES.items())
    return Question(
        "size",
        f"How long shall it learn? {told}, or a number of tokens",
        "normal",
        "what quickstart gives to a table of your own",
        tokens_to_train(SIZES),
        tuple(SIZES),
    )
