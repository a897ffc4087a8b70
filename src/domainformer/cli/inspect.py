"""The verb ``inspect``: what a model of your own takes, and which of its names are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from domainformer.cli.output import JSON, OVERWRITE, next_command, results, say, show
from domainformer.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add this module's verb to the application."""
    app.command()(inspect)


def inspect(
    target: Annotated[str, typer.Argument(metavar="FILE:CLASS", help="A Python file and a class.")],
    run: Annotated[
        bool, typer.Option("--run", help="Make the model in a limited subprocess.")
    ] = False,
    init: Annotated[
        str | None, typer.Option(help="With --run: keywords of its constructor, as JSON.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="With --run: how long it may take.")] = 60.0,
    repair: Annotated[
        Path | None, typer.Option(help="Write a corrected file here; shown as a diff.")
    ] = None,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Say what CLASS's forward takes, and list its undefined, dead and overwritten names.

    The file is read and not run, unless --run asks for it.
    """
    from domainformer.models.universal import inspect_file

    path, _, class_name = target.rpartition(":")
    found = inspect_file(
        path or target,
        class_name if path else "",
        run=run,
        arguments=None if init is None else _arguments(init),
        seconds=seconds,
        write_repair=repair,
        overwrite=overwrite,
    )
    if as_json:
        show(found.to_json(), as_json=True)
    else:
        results.print(found.render(), markup=False)
    if repair is not None:
        say(f"written: {repair}")
        next_command(f"domainformer inspect {repair}:{class_name} --run")
    elif not found.clean:
        next_command(f"domainformer inspect {target} --repair repaired.py")


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigError("--init is no JSON", where="--init", why=str(error)) from error
    if not isinstance(found, dict):
        raise ConfigError(
            "--init is no mapping", where="--init", next_step="""write it as '{"width": 16}'"""
        )
    return found
