"""The application: its verbs, and the one place where errors become exit codes."""

from __future__ import annotations

import sys

import typer

from domainformer.cli import (
    ablate,
    check,
    compare,
    config,
    data,
    explain,
    export,
    init,
    inspect,
    language,
    models,
    registry,
    start,
    surgery,
    tokenizer,
    vision,
)
from domainformer.cli.output import messages
from domainformer.errors import DomainformerError

app = typer.Typer(
    name="domainformer",
    help="Turn a table of events into a small Transformer worth having.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for module in (
    start,
    init,
    data,
    tokenizer,
    models,
    language,
    registry,
    ablate,
    compare,
    config,
    explain,
    inspect,
    check,
    export,
    surgery,
    vision,
):
    module.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; deliberate errors become one message and exit code 2."""
    try:
        app(arguments, prog_name="domainformer")
    except DomainformerError as error:
        first, *rest = str(error).splitlines()
        messages.print(f"error: {first}", style="bold red", markup=False)
        for line in rest:
            messages.print(line, markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        messages.print("interrupted; finished checkpoints are kept", markup=False)
        sys.exit(130)
