"""The verb ``explain``: which fields and events a model's scores lean on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer

from domainformer.cli.data import Entity, Table, Time
from domainformer.cli.models import Model
from domainformer.cli.output import JSON, OVERWRITE, progress, results, say, show

Method = Literal["integrated-gradients", "occlusion"]


def register(app: typer.Typer) -> None:
    """Add this module's verb to the application."""
    app.command()(explain)


def explain(
    model: Model,
    table: Table,
    entity: Entity = None,
    time: Time = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="Only this entity; may be repeated.")
    ] = None,
    examples: Annotated[
        int, typer.Option(help="Entities drawn where no --key is given.", min=1)
    ] = 32,
    method: Annotated[Method, typer.Option(help="How.")] = "integrated-gradients",
    steps: Annotated[int, typer.Option(help="Of integrated gradients.", min=1)] = 32,
    baseline: Annotated[
        Literal["missing", "mean"], typer.Option(help="What integrated gradients start from.")
    ] = "missing",
    frame: Annotated[
        Path | None, typer.Option(help="Of a fusion model: table of the examples' features.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="Of a fusion model: which target.")] = None,
    choice: Annotated[str | None, typer.Option(help="Which class, of a classifier.")] = None,
    field: Annotated[
        str | None, typer.Option(help="Whose newest value, of a language model.")
    ] = None,
    attention: Annotated[
        bool, typer.Option("--attention", help="Add attention maps, which explain nothing.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the entities drawn and of the check.")] = 0,
    out: Annotated[Path | None, typer.Option(help="FILE.html or FILE.json to write.")] = None,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Explain scores of a model by fields and events of TABLE."""
    from domainformer.cli.start import fresh_file, model_folder
    from domainformer.quickstart import read_events
    from domainformer.reports.explaining import explain_model
    from domainformer.reports.explanations import write_explanation

    target_file = None if out is None else fresh_file(out, overwrite)
    folder = model_folder(model)
    events = read_events(table, entity=entity, time=time, model=folder)
    with progress("explaining") as tell:
        told, explanation = explain_model(
            folder,
            events,
            frame=frame,
            keys=keys,
            examples=examples,
            method=method,
            steps=steps,
            baseline=baseline,
            target=target,
            choice=choice,
            field=field,
            attention=attention,
            seed=seed,
            progress=tell,
        )
    if target_file is not None:
        results.print(str(write_explanation(target_file, told, explanation)), markup=False)
    elif as_json:
        show(explanation.to_json(), as_json=True)
    else:
        _print(told)
    for note in explanation.notes:
        say(f"note: {note}")
    say(told["disclaimer"])


def _print(told: dict[str, Any]) -> None:
    results.print(f"{told['subject']}, {told['n_examples']} examples", markup=False)
    for row in told["summary"]["fields"]:
        bar = "█" * int(np.ceil(24 * row["share"]))
        interval = f"{row['importance']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        results.print(f"  {row['name']:<24} {interval:<26} {bar}", markup=False)
