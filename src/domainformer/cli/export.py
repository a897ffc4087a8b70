"""The verb ``export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from domainformer.cli.output import JSON, OVERWRITE, next_command, show, working


def register(app: typer.Typer) -> None:
    """Add this module's verb to the application."""
    app.command()(export)


def export(
    model: Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")],
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("exported"),
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="onnx, onnx-int8, pt2 or torchscript; may be repeated."),
    ] = None,
    what: Annotated[
        Literal["logits", "embedding"],
        typer.Option(help="logits, or embedding: the state at each row's last token."),
    ] = "logits",
    fixed: Annotated[
        bool, typer.Option("--fixed", help="Fix batch and length to those of an example.")
    ] = False,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference from PyTorch of a float format.")
    ] = 1e-4,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Write MODEL for other runtimes, each file compared with PyTorch on several shapes."""
    from domainformer.export import export_model

    with working("exporting"):
        report = export_model(
            model,
            output,
            formats=formats or ["onnx"],
            what=what,
            dynamic=not fixed,
            tolerance=tolerance,
            overwrite=overwrite,
        )
    show(report.to_json() if as_json else report.render(), as_json=as_json)
    next_command(f"python -c \"from domainformer import ExportedModel; ExportedModel('{output}')\"")
