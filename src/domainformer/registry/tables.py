"""Entries as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from domainformer.registry.entry import Entry
from domainformer.registry.lineage import readable


def entries_table(entries: Sequence[Entry]) -> Table:
    """One row per model."""
    table = Table(box=SIMPLE_HEAD)
    for heading in ("model", "architecture", "fine-tuned from", "license", "created"):
        table.add_column(heading)
    table.add_column("parameters", justify="right")
    for entry in entries:
        cells = (
            entry.model_name,
            entry.architecture_type,
            entry.fine_tuned_from or "",
            entry.license or "",
            entry.created_at[:10],
            readable(entry.sizes.parameters),
        )
        table.add_row(*map(Text, cells))
    return table


def entry_table(entry: Entry) -> Table:
    """All that is known of one model, a row for each fact and each file."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    values = entry.model_dump(mode="json")
    sizes = f"{entry.sizes.parameters:,} parameters, {entry.sizes.bytes:,} bytes"
    values |= {"sizes": sizes, "rules": ", ".join(entry.rules)}
    values["metrics"] = "\n".join(
        f"{name}  {value:.6g}" if isinstance(value, float) else f"{name}  {value}"
        for name, value in entry.metrics.items()
    )
    values["files"] = "\n".join(f"{digest[:12]}…  {name}" for name, digest in entry.files.items())
    for key, value in values.items():
        if value not in (None, ""):
            table.add_row(Text(key, style="dim"), Text(str(value)))
    return table
