"""Where the command line prints: results to stdout, everything else to stderr."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

# A pipe or a file has no width of its own; tables need room.
WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 132

results = Console(highlight=False, soft_wrap=True, width=WIDTH)
messages = Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """A message for the person at the terminal (stderr)."""
    messages.print(text, markup=False)


def show(value: Any, *, as_json: bool = False) -> None:
    """A result (stdout): JSON for programs, otherwise rendered for people."""
    if as_json:
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n")
    elif isinstance(value, dict):
        for key, item in value.items():
            results.print(f"{key}: {item}", markup=False)
    else:
        results.print(value)


def next_command(text: str) -> None:
    """The next useful command, as the last line of a verb."""
    say(f"next: {text}")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else getattr(value, "tolist", lambda: str(value))()


# The options that several verbs share, so that they read and behave alike everywhere.
JSON = typer.Option(False, "--json", help="Print JSON for programs.")
OVERWRITE = typer.Option(False, "--overwrite", help="Replace the output if it exists.")
