"""Verbs about a tokenizer: ``tokenizer fit``, ``show``, ``validate``; and ``tokenize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainformer.cli import tokenize
from domainformer.cli.data import Entity, Table, Time
from domainformer.cli.output import JSON, next_command, progress, show

tokenizer_app = typer.Typer(
    help="Fit a tokenizer on a table, or look at one.", no_args_is_help=True
)

Folder = Annotated[Path, typer.Argument(help="Folder of a saved tokenizer or model.")]


def register(app: typer.Typer) -> None:
    """Add this module's verbs, and those that read all events, to the application."""
    tokenizer_app.command("fit")(tokenize.tokenizer_fit)
    tokenizer_app.command("show")(tokenizer_show)
    tokenizer_app.command("validate")(tokenizer_validate)
    app.add_typer(tokenizer_app, name="tokenizer")
    app.command()(tokenize.tokenize)


def tokenizer_show(
    folder: Folder,
    table: Annotated[
        str | None, typer.Argument(help="Events to take the example of; none: it is made up.")
    ] = None,
    field: Annotated[str | None, typer.Option(help="One field, with all its tokens.")] = None,
    entity: Entity = None,
    time: Time = None,
    as_json: bool = JSON,
) -> None:
    """Show what the tokens of a tokenizer stand for, and an event as the model reads it."""
    from domainformer.cli.start import model_folder
    from domainformer.quickstart import read_events
    from domainformer.tokenizers import (
        DomainTokenizer,
        describe_tokenizer,
        describe_vocabulary,
        render_vocabulary,
    )

    home = model_folder(folder)
    fitted = DomainTokenizer.from_pretrained(home)
    if field is not None:
        described = describe_vocabulary(fitted, field=field)
        show(described if as_json else render_vocabulary(described), as_json=as_json)
        return
    events = read_events(table, entity=entity, time=time, model=home) if table else None
    glance = describe_tokenizer(fitted, events)
    show(glance.to_json() if as_json else glance.render(), as_json=as_json)
    next_command(f"domainformer tokenizer validate {folder} {table or 'TABLE'}")


def tokenizer_validate(
    folder: Folder,
    table: Table,
    entity: Entity = None,
    time: Time = None,
    events: Annotated[int, typer.Option(help="Events to look at one by one.", min=1)] = 2000,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    as_json: bool = JSON,
) -> None:
    """Check a tokenizer on a sample of TABLE: equal paths, true meanings, and the way back.

    Exit code 1 where a promise is broken.
    """
    from domainformer.cli.start import model_folder
    from domainformer.quickstart import read_events
    from domainformer.tokenizers import DomainTokenizer, validate_tokenizer

    home = model_folder(folder)
    fitted = DomainTokenizer.from_pretrained(home)
    sample = read_events(table, entity=entity, time=time, model=home)
    with progress("checking promises") as tell:
        report = validate_tokenizer(fitted, sample, events=events, seed=seed, progress=tell)
    show(report.to_json() if as_json else report.render(), as_json=as_json)
    if report.ok:
        next_command(f"domainformer tokenize {table} --tokenizer {folder} --output store")
    raise typer.Exit(report.exit_code)
