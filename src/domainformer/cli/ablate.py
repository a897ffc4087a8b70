"""The verb ``ablate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainformer.cli.output import JSON, progress, quoted, results, say, show


def register(app: typer.Typer) -> None:
    """Add this module's verb to the application."""
    app.command()(ablate)


def ablate(
    source: Annotated[Path, typer.Argument(help="Configuration (YAML), or the folder of a run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Dotted overrides: training.max_steps=200 …")
    ] = None,
    axis: Annotated[
        str | None, typer.Option(help="Only these axes, as in context,bins; none: all.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write, or to go on with.")] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds of each variant, as in 0,1,2.")] = None,
    as_json: bool = JSON,
) -> None:
    """Vary one choice of a run at a time, and tell what each is worth."""
    from domainformer.evaluation import ablate as run
    from domainformer.evaluation import load_ablation
    from domainformer.reports.ablation import write_ablation_report

    given = list(overrides or [])
    if seeds is not None:
        given.append(f"ablation.seeds=[{seeds}]")
    if out is not None:
        given += [f"output.root={quoted(out.parent)}", f"output.name={quoted(out.name)}"]
    config = load_ablation(source, given)
    axes = None if axis is None else [name.strip() for name in axis.split(",") if name.strip()]
    with progress("training variants") as tell:
        found = run(config, axes=axes, progress=tell)
    page = write_ablation_report(found.folder)
    if as_json:
        show(found.to_json(), as_json=True)
    else:
        results.print(found.render())
    say(f"wrote {page}")
