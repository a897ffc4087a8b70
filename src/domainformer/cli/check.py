"""The verb ``check``: everything that one asks a model before one trusts it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainformer.cli.output import JSON, next_command, show, working


def register(app: typer.Typer) -> None:
    """Add this module's verb to the application."""
    app.command()(check)


def check(
    model: Annotated[
        Path | None,
        typer.Argument(
            help="Model folder, or the run folder that holds it; with --source its "
            "weights, if there are any."
        ),
    ] = None,
    tier: Annotated[int, typer.Option(help="1: seconds; 2: minutes; 3: short trainings.")] = 1,
    only: Annotated[
        list[str] | None, typer.Option(help="A check by its name; may be repeated.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="A text file, read by the model's own tokenizer.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="FILE:CLASS", help="A class of your own.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="With --source: keywords of its constructor, as JSON.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the file of --source in this process.")
    ] = False,
    causal: Annotated[
        bool | None,
        typer.Option("--causal/--bidirectional", help="What it is meant to be; by its class."),
    ] = None,
    vocab_size: Annotated[int | None, typer.Option(help="Ids are below it.")] = None,
    length: Annotated[int, typer.Option(help="Tokens per row.")] = 16,
    steps: Annotated[int, typer.Option(help="Of each short training.")] = 120,
    trials: Annotated[int, typer.Option(help="Of the hyper-parameter probe.")] = 6,
    seconds: Annotated[float, typer.Option(help="Most time of one training.")] = 60.0,
    export_format: Annotated[str, typer.Option(help="onnx, pt2 or torchscript.")] = "onnx",
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    as_json: bool = JSON,
) -> None:
    """Check MODEL, with the reason and the remedy of each check; exit code 1 if one fails."""
    from domainformer.evaluation.checks import check as run
    from domainformer.evaluation.checks import open_model

    opened, tokenizer, trained = open_model(model, source=source, arguments=init, trust=trust)
    with working("checking") as tell:
        report = run(
            opened,
            tier=tier,
            only=only,
            tokenizer=tokenizer,
            text=text,
            vocab_size=vocab_size,
            causal=causal,
            trained=trained,
            length=length,
            steps=steps,
            trials=trials,
            seconds=seconds,
            export_format=export_format,
            seed=seed,
            progress=tell,
        )
    show(report.to_json() if as_json else report.render(), as_json=as_json)
    if report.failures:
        raise typer.Exit(1)
    if tier < 3 and not only:
        next_command(f"the same with --tier {tier + 1}")
