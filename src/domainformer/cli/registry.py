"""Verbs about the registry: ``import-model`` and ``models …``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from domainformer.cli.output import (
    JSON,
    OVERWRITE,
    next_command,
    progress,
    results,
    say,
    show,
)
from domainformer.errors import ConfigError

Root = Annotated[Path, typer.Option("--registry", help="Folder of the registry.")]
Name = Annotated[str, typer.Argument(help="Registered name.")]
ROOT = Path("models")

models = typer.Typer(
    help="Registered models: list, show, verify, publish, push, rename, remove, lineage.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the application."""
    app.command("import-model")(import_model)
    app.add_typer(models, name="models")


def import_model(
    source: Annotated[str, typer.Argument(help="Folder, or repository of the hub: ORG/NAME.")],
    name: Annotated[str | None, typer.Option(help="None: the source's own.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    registry: Root = ROOT,
    as_json: bool = JSON,
) -> None:
    """Bring a language model and its native tokenizer into the registry.

    Safetensors only: pickles are never fetched or opened, and code in the source is never run.
    """
    from domainformer.registry import import_model as run

    with progress("fetching files") as tell:
        entry = run(source, name, registry=registry, revision=revision, progress=tell)
    _show_entry(entry, as_json=as_json)
    next_command(f"domainformer models lineage {entry.model_name}{_where(registry)}")


@models.command("list")
def list_models(registry: Root = ROOT, as_json: bool = JSON) -> None:
    """All models of the registry."""
    from domainformer.registry import Registry
    from domainformer.registry.tables import entries_table

    entries = Registry(registry).list()
    if as_json:
        show([entry.model_dump(mode="json") for entry in entries], as_json=True)
    elif entries:
        results.print(entries_table(entries))
    else:
        say(f"no models in {registry}")
        next_command("domainformer import-model SOURCE, or domainformer models publish RUN")


@models.command("show")
def show_model(name: Name, registry: Root = ROOT, as_json: bool = JSON) -> None:
    """All that is known of a model."""
    from domainformer.registry import Registry

    _show_entry(Registry(registry).resolve(name), as_json=as_json)


@models.command()
def verify(
    name: Annotated[str | None, typer.Argument(help="One model; none: all.")] = None,
    registry: Root = ROOT,
    as_json: bool = JSON,
) -> None:
    """Compare files with their SHA-256; exit code 1 where one differs."""
    from domainformer.registry import Registry

    found = Registry(registry).verify(name)
    if as_json:
        show(found, as_json=True)
    else:
        for model, problems in found.items():
            results.print(f"{model}: {'as registered' if not problems else ''}", markup=False)
            for problem in problems:
                results.print(f"  {problem}", markup=False)
    if any(found.values()):
        raise typer.Exit(1)


@models.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    name: Annotated[str | None, typer.Argument(help="None: the folder's.")] = None,
    fine_tuned_from: Annotated[
        str | None, typer.Option("--from", help="Registered model that it goes back to.")
    ] = None,
    model_license: Annotated[str | None, typer.Option("--license")] = None,
    metric: Annotated[
        list[str] | None, typer.Option(help="NAME=NUMBER; may be given several times.")
    ] = None,
    overwrite: bool = OVERWRITE,
    registry: Root = ROOT,
    as_json: bool = JSON,
) -> None:
    """Copy a model into the registry; what is not said is read from the folder."""
    from domainformer.registry import Registry

    entry = Registry(registry).publish(
        folder,
        name,
        fine_tuned_from=fine_tuned_from,
        license=model_license,
        metrics=_metrics(metric) if metric else None,
        overwrite=overwrite,
    )
    _show_entry(entry, as_json=as_json)
    next_command(f"domainformer models lineage {entry.model_name}{_where(registry)}")


@models.command()
def push(
    source: Annotated[str, typer.Argument(help="Model folder, run folder, or registered name.")],
    repository: Annotated[str, typer.Argument(help="Of the hub: ORG/NAME.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    model_license: Annotated[str | None, typer.Option("--license")] = None,
    notes: Annotated[Path | None, typer.Option(help="Markdown that the card begins with.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch.")] = None,
    card_only: Annotated[
        bool, typer.Option("--card", help="Print the card that would be sent; send nothing.")
    ] = False,
    registry: Root = ROOT,
    as_json: bool = JSON,
) -> None:
    """Send a model with its generated card to the hub, in one commit."""
    from domainformer.registry import Registry, model_card, push_to_hub

    text = "" if notes is None else notes.read_text(encoding="utf-8")
    if card_only:
        folder = Path(source) if Path(source).is_dir() else Registry(registry).folder(source)
        title = repository.rpartition("/")[2]
        results.print(model_card(folder, title, license=model_license, notes=text), markup=False)
        return
    address = push_to_hub(
        source,
        repository,
        registry=registry,
        private=not public,
        license=model_license,
        notes=text,
        revision=revision,
    )
    show({"commit": address}, as_json=as_json)
    next_command(f"domainformer import-model {repository}")


@models.command()
def rename(
    old: Name,
    new: Annotated[str, typer.Argument(help="New name.")],
    registry: Root = ROOT,
) -> None:
    """Give a model another name; its descendants follow."""
    from domainformer.registry import Registry

    Registry(registry).rename(old, new)
    results.print(new, markup=False)


@models.command()
def remove(
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Even if others descend from it.")] = False,
    registry: Root = ROOT,
) -> None:
    """Take a model out of the registry and delete its files."""
    from domainformer.registry import Registry

    Registry(registry).remove(name, force=force)
    say(f"removed {name}")


@models.command()
def lineage(name: Name, registry: Root = ROOT, as_json: bool = JSON) -> None:
    """The model's ancestors and descendants, as a tree."""
    from domainformer.registry import Registry

    found = Registry(registry).lineage(name)
    show(found.to_json() if as_json else found.render(), as_json=as_json)


def _show_entry(entry: Any, *, as_json: bool) -> None:
    if as_json:
        show(entry.model_dump(mode="json"), as_json=True)
        return
    from domainformer.registry.tables import entry_table

    results.print(entry_table(entry))


def _metrics(given: list[str]) -> dict[str, float]:
    metrics = {}
    for text in given:
        name, _, value = text.partition("=")
        try:
            metrics[name.strip()] = float(value)
        except ValueError:
            raise ConfigError(
                f"{text!r} is no metric", next_step="write NAME=NUMBER, as in eval_loss=1.47"
            ) from None
    return metrics


def _where(registry: Path) -> str:
    return "" if registry == ROOT else f" --registry {registry}"
