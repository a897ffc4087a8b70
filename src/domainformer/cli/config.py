"""Verbs about configurations: ``config schema`` and ``config reference``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from domainformer.artifacts import write_text
from domainformer.cli.output import OVERWRITE, next_command, results

config_app = typer.Typer(help="What can be configured, for editors and readers.")


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the application."""
    app.add_typer(config_app, name="config")


@config_app.command("schema")
def schema(
    kind: Annotated[str, typer.Argument(help="train, pretrain or vision.")] = "train",
    output: Annotated[Path | None, typer.Argument(help="File to write; none: print.")] = None,
    overwrite: bool = OVERWRITE,
) -> None:
    """Write the JSON Schema of a configuration, which editors complete and check with."""
    from domainformer.cli.start import fresh_file
    from domainformer.training.config_reference import config_schema

    text = json.dumps(config_schema(kind), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        results.print(text, markup=False, end="")
        return
    write_text(fresh_file(output, overwrite), text)
    results.print(str(output), markup=False)
    next_command(f"first line of the YAML: # yaml-language-server: $schema={output}")


@config_app.command("reference")
def reference() -> None:
    """Print the page of reference (Markdown)."""
    from domainformer.training.config_reference import config_reference

    results.print(config_reference(), markup=False, end="")
