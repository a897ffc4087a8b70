"""The verbs ``compare`` and ``sweep``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainformer.cli.output import JSON, next_command, progress, quoted, results, say, show

_ALLOW = typer.Option(help="What else may differ, without being compared; may be repeated.")


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the application."""
    app.command()(compare)
    app.command()(sweep)


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; the first is the base.")],
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="What is compared: training.learning_rate, rules, code, … May be repeated."
        ),
    ] = None,
    allow: Annotated[list[str] | None, _ALLOW] = None,
    mark: Annotated[
        bool, typer.Option("--mark", help="Mark what nobody named instead of refusing.")
    ] = False,
    metric: Annotated[
        str | None, typer.Option(help="A figure of the results; the validation loss.")
    ] = None,
    higher: Annotated[
        bool | None,
        typer.Option("--higher/--lower", help="Which is better; known for usual figures."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for comparison.json and page.")] = None,
    as_json: bool = JSON,
) -> None:
    """Set runs beside each other, provided that they differ in nothing but what is compared."""
    from domainformer.evaluation.comparisons import compare as run
    from domainformer.reports.comparison import write_comparison_report

    found = run(
        runs, vary or (), allow=allow or (), mark=mark, metric=metric, higher_is_better=higher
    )
    if out is not None:
        found.write(out)
        say(f"wrote {write_comparison_report(out)}")
    if as_json:
        show(found.to_json(), as_json=True)
        return
    results.print(found.render())
    if out is None:
        next_command("the same with --out comparison, for a page with curves")


def sweep(
    source: Annotated[Path, typer.Argument(help="Configuration of the sweep (YAML).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Dotted overrides: seeds=[0,1] set.model.preset=tiny")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="Seeds of each setting, as in 0,1,2.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write, or to go on with.")] = None,
    allow: Annotated[list[str] | None, _ALLOW] = None,
    as_json: bool = JSON,
) -> None:
    """Train every setting with every seed, and compare them; run again, it goes on."""
    from domainformer.config import load_config
    from domainformer.evaluation.comparisons import SweepConfig
    from domainformer.evaluation.comparisons import sweep as run
    from domainformer.reports.comparison import write_comparison_report

    given = list(overrides or [])
    if seeds is not None:
        given.append(f"seeds=[{seeds}]")
    if out is not None:
        given += [f"output.root={quoted(out.parent)}", f"output.name={quoted(out.name)}"]
    config = load_config(SweepConfig, source, given)
    with progress("training settings") as tell:
        found = run(config, allow=allow or (), progress=tell)
    page = write_comparison_report(found.folder)
    if as_json:
        show(found.to_json(), as_json=True)
    else:
        results.print(found.comparison.render())
    for cell in found.failed:
        say(f"failed: {cell.setting}, seed {cell.seed}: {cell.error}")
    say(f"wrote {page}")
    if found.failed:
        next_command(f"domainformer sweep {source} (the same again tries what failed)")
        raise typer.Exit(1)
    next_command(f"domainformer report {found.folder / found.cells[0].folder}")
