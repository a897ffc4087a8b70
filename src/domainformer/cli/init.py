"""The verb ``init``: asks what the data do not tell, and writes a configuration to run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from domainformer.cli.data import Entity, Time
from domainformer.cli.output import JSON, OVERWRITE, messages, next_command, results, say, show
from domainformer.errors import ConfigError

if TYPE_CHECKING:
    from domainformer.start import Question, Written

Split = Annotated[str | None, typer.Option(help="Events: hold out later time, or other entity.")]


def register(app: typer.Typer) -> None:
    """Add this module's verb to the application."""
    app.command()(init)


def init(
    data: Annotated[
        str | None,
        typer.Argument(help="Table of events (file, glob, folder), or text; none: what lies here."),
    ] = None,
    folder: Annotated[Path, typer.Argument(help="Folder to make.")] = Path("."),
    entity: Entity = None,
    time: Time = None,
    label: Annotated[str | None, typer.Option(help="Column to leave out: the label.")] = None,
    split: Split = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Text: characters, or the folder of a tokenizer.")
    ] = None,
    context: Annotated[str | None, typer.Option(help="Text: tokens to look back.")] = None,
    size: Annotated[
        str | None, typer.Option(help="quick, normal, long, or a number of tokens to learn.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing, take defaults.")] = False,
    run: Annotated[
        bool | None, typer.Option("--run/--no-run", help="Run it at once; else you are asked.")
    ] = None,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Look at DATA, ask at most six questions, write a commented configuration to FOLDER.

    A table of events gives schema.yaml and run.yaml for `pretrain`, text gives run.yaml for
    `train`. Enter takes the default. Options answer a question beforehand. Without a terminal
    nothing is asked: name DATA, or pass --yes.
    """
    from domainformer.start import begin

    asks = not yes and sys.stdin.isatty()
    if data is None and not yes and not asks:
        raise ConfigError(
            "init asks questions, and there is no terminal to answer them",
            next_step="pass --yes to take what is found here, or name the data: "
            "domainformer init DATA FOLDER (--help lists the options that answer beforehand)",
        )
    given = {"entity": entity, "time": time, "label": label, "split": split, "size": size}
    given |= {"tokenizer": tokenizer, "context": context}
    written = begin(
        data,
        folder,
        ask=_ask if asks else None,
        tell=say,
        given=given,
        overwrite=overwrite,
    )
    _told(written, as_json=as_json and not run)
    if run or (run is None and asks and _wants_to_run()):
        _run(written, as_json=as_json)
    else:
        next_command(written.command)


def _ask(question: Question, number: int) -> str:
    """A question, what Enter means and why, on stderr; the answer from the terminal."""
    say(f"\n{number}. {question.text}")
    if question.choices:
        say(f"   answers: {', '.join(question.choices)}")
    if question.default is None:
        say(f"   no default: {question.why}")
    else:
        say(f"   default: {question.default} ({question.why})")
    messages.print("   > ", end="", markup=False)
    return input()


def _told(written: Written, *, as_json: bool) -> None:
    beside = f"{written.schema} and " if written.schema else ""
    say(f"wrote {beside}{written.config}; edit them as you like")
    if as_json:
        paths = {"config": written.config, "schema": written.schema}
        show({**paths, "kind": written.kind, "command": written.command}, as_json=True)
    else:
        results.print(str(written.config), markup=False)


def _wants_to_run() -> bool:
    messages.print("\nRun it now? [y/N] > ", end="", markup=False)
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _run(written: Written, *, as_json: bool) -> None:
    """As the verb that the configuration is for, with its output."""
    from domainformer.cli import language, models

    if written.kind == "pretrain":
        models.pretrain(written.config, as_json=as_json)
    else:
        language.train(written.config, as_json=as_json)
