"""Verbs to begin with: ``quickstart``, ``report``, ``recipes``, ``env``; ``init`` is beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from domainformer.cli.data import Entity, Time
from domainformer.cli.output import JSON, OVERWRITE, next_command, results, say, show
from domainformer.errors import ConfigError

recipes_app = typer.Typer(help="Ready configurations.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the application."""
    for verb in (quickstart, report, env):
        app.command()(verb)
    app.add_typer(recipes_app, name="recipes")


def quickstart(
    data: Annotated[
        str | None, typer.Option(help="Table of events; none: a simulated one.")
    ] = None,
    entity: Entity = None,
    time: Time = None,
    label: Annotated[str | None, typer.Option(help="Target of the probe.")] = None,
    label_table: Annotated[
        Path | None, typer.Option(help="Table with the label, one row per entity.")
    ] = None,
    domain: Annotated[str, typer.Option(help="What to simulate: finance, ecommerce, health.")] = (
        "finance"
    ),
    split: Annotated[
        Literal["auto", "time", "entity"], typer.Option(help="What to hold out.")
    ] = "auto",
    validation_from: Annotated[str | None, typer.Option(help="First validation time.")] = None,
    test_from: Annotated[str | None, typer.Option(help="First test time.")] = None,
    output: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/quickstart"),
    seed: Annotated[int, typer.Option(help="Of simulation, split, training and probe.")] = 0,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Dotted overrides: model.preset=24m …")
    ] = None,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """From a table to a model, its proof and a report, in one command."""
    from domainformer.quickstart import quickstart as run

    result = run(
        data,
        entity=entity,
        time=time,
        label=label,
        label_table=label_table,
        domain=domain,
        split=split,
        validation_from=validation_from,
        test_from=test_from,
        output=output,
        overwrite=overwrite,
        seed=seed,
        overrides=overrides or [],
        say=say,
    )
    summary = {"run": result.run_dir, "model": result.model_dir, "report": result.report}
    if as_json:
        show({**summary, "seconds": result.seconds}, as_json=True)
    else:
        results.print(result.evaluation.render())
        show(summary)
    next_command(f"open {result.report}, then")
    table = data or result.source
    say(f"      domainformer generate {result.model_dir} {table} --entities 3")
    say(f"      domainformer embed {result.model_dir} {table} --output embeddings.parquet")


def report(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Write the report page of a run again."""
    from domainformer.reports import write_report

    results.print(str(write_report(run)), markup=False)


@recipes_app.command("list")
def recipes_list(as_json: bool = JSON) -> None:
    """List the ready configurations."""
    from domainformer.training import list_recipes

    show({recipe.name: recipe.purpose for recipe in list_recipes()}, as_json=as_json)


@recipes_app.command("copy")
def recipes_copy(
    name: Annotated[str, typer.Argument(help="Recipe, as `recipes list` names it.")],
    output: Annotated[Path | None, typer.Argument(help="File to write.")] = None,
    overwrite: bool = OVERWRITE,
) -> None:
    """Copy a recipe here, to edit."""
    from domainformer.training import copy_recipe
    from domainformer.training.recipes import command_of

    target = copy_recipe(name, fresh_file(output or Path(f"{name}.yaml"), overwrite))
    results.print(str(target), markup=False)
    next_command(command_of(target, name))


def env(as_json: bool = JSON) -> None:
    """Print what domainformer runs on, for a bug report."""
    from domainformer.run import code_version, environment

    show({**code_version(), **environment()}, as_json=as_json)


def model_folder(path: Path) -> Path:
    """The model folder itself, where a run folder is given."""
    inner = path / "model"
    return inner if (path / "run.json").is_file() and inner.is_dir() else path


def fresh_file(path: Path, overwrite: bool) -> Path:
    """A file that may be written.

    Raises:
        ConfigError: It exists and ``--overwrite`` was not given.
    """
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists already", next_step="pass --overwrite to replace it")
    return path
