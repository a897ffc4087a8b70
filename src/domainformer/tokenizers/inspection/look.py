"""How tokenizers look in a terminal: one style of table, one row of colours."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

# Colours that read on dark and on light terminals; fields take them in turn.
COLOURS = ("cyan", "green", "magenta", "blue", "yellow", "red")


def new_table(title: str | None = None) -> Table:
    """An empty table in the house style."""
    return Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
    )
