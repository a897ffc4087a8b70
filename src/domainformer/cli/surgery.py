"""The verb ``surgery``: a model folder with other layers, vocabulary or head."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from domainformer.cli.output import JSON, OVERWRITE, next_command, say, show, working


def register(app: typer.Typer) -> None:
    """Add this module's verb to the application."""
    app.command()(surgery)


def surgery(
    folder: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    output: Annotated[Path, typer.Option(help="Model folder to write.")],
    drop_layers: Annotated[
        str | None, typer.Option(help="Places from 0: 2,3 or 4-7; -1 is the last.")
    ] = None,
    duplicate_layers: Annotated[
        str | None, typer.Option(help="Places to double, after dropping.")
    ] = None,
    stack: Annotated[
        str | None, typer.Option(help="Which list of layers, where there are several.")
    ] = None,
    resize: Annotated[int | None, typer.Option(help="Rows of the embedding.", min=1)] = None,
    init: Annotated[
        Literal["mean", "mean+noise", "zero"], typer.Option(help="How new rows begin.")
    ] = "mean",
    copy_of: Annotated[
        str | None, typer.Option(help="New rows are copies of these ids, one for each: 3,7.")
    ] = None,
    replace_head: Annotated[
        str | None, typer.Option(help="Task: sequence-classification, causal-lm, …")
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="Of the new head: how many, or names: no,yes.")
    ] = None,
    merge_lora: Annotated[
        Path | None, typer.Option(help="Folder of low-rank additions to merge first.")
    ] = None,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Change the model of FOLDER and write it as another folder, with its lineage."""
    from domainformer.models.surgery import folder as folders

    operations = folders.Operations(
        merge_lora=None if merge_lora is None else str(merge_lora),
        resize=resize,
        init="copy" if copy_of else init,
        sources=folders.parsed_places(copy_of) if copy_of else None,
        drop_layers=folders.parsed_places(drop_layers) if drop_layers else (),
        duplicate_layers=folders.parsed_places(duplicate_layers) if duplicate_layers else (),
        path=stack,
        replace_head=replace_head,
        labels=folders.parsed_labels(labels) if labels else None,
    )
    with working("operating"):
        done = folders.operate_on_folder(folder, output, operations, overwrite=overwrite)
    show(done.to_json() if as_json else done.render(), as_json=as_json)
    say(f"wrote {output}")
    next_command(f"domainformer check {output}")
