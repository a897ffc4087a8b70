"""Verbs about tables: ``simulate``, ``schema infer``, ``schema check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainformer.cli.output import JSON, OVERWRITE, messages, next_command, results, say, show

schema_app = typer.Typer(help="Propose a schema for a table, or check one.", no_args_is_help=True)

Table = Annotated[str, typer.Argument(help="Parquet or CSV file, glob, hive or MEDS folder.")]
Entity = Annotated[str | None, typer.Option("--entity", help="Column naming whose event it is.")]
Time = Annotated[str | None, typer.Option("--time", help="Column saying when it happened.")]


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the application."""
    app.command()(simulate)
    app.add_typer(schema_app, name="schema")


def simulate(
    domain: Annotated[str, typer.Argument(help="finance, ecommerce or health.")],
    output: Annotated[Path, typer.Argument(help="Parquet file to write.")],
    entities: Annotated[int, typer.Option(help="How many clients, customers or patients.")] = 1000,
    events: Annotated[float, typer.Option(help="Mean number of events of each.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal tables.")] = 0,
    overwrite: bool = OVERWRITE,
) -> None:
    """Write a realistic table of events, with a label that depends on order and timing."""
    from domainformer.cli.start import fresh_file
    from domainformer.data import write_simulated

    path = write_simulated(
        domain,
        fresh_file(output, overwrite),
        entities=entities,
        events_per_entity=events,
        seed=seed,
    )
    results.print(str(path), markup=False)
    next_command(f"domainformer schema infer {output}")


@schema_app.command("infer")
def schema_infer(
    table: Table,
    entity: Entity = None,
    time: Time = None,
    label: Annotated[str | None, typer.Option(help="Column to leave out: the label.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the schema here as YAML.")] = None,
    as_json: bool = JSON,
) -> None:
    """Propose a schema for TABLE, with the evidence for each decision."""
    from domainformer.quickstart import read_events
    from domainformer.schema import infer_schema

    events = read_events(table, entity=entity, time=time)
    for note in events.notes:
        say(note)
    inferred = infer_schema(events, label=label)
    if output is not None:
        inferred.schema.to_yaml(output)
        say(f"wrote {output}")
    if as_json:
        show(inferred.to_dict(), as_json=True)
        return
    results.print(inferred)
    if output is None:
        results.print(inferred.schema.to_yaml(), markup=False)
    next_command(
        f"domainformer tokenizer fit {table} --entity {inferred.entity}"
        + (f" --time {inferred.time}" if inferred.time else "")
        + (f" --schema {output}" if output else "")
        + " --output tokenizer"
    )


@schema_app.command("check")
def schema_check(
    schema: Annotated[Path, typer.Argument(help="Schema file (YAML).")],
    table: Annotated[str | None, typer.Argument(help="Table that it shall fit.")] = None,
) -> None:
    """Check a schema file, and whether TABLE has what it reads."""
    from domainformer.data.readers import scan
    from domainformer.schema import DomainSchema

    loaded = DomainSchema.from_yaml(schema)
    if table is not None:
        loaded.check(list(scan(table).schema()))
    fits = f" and fits {table}" if table else ""
    messages.print(f"{schema} is a valid schema of {len(loaded.fields)} fields{fits}", markup=False)
    results.print(
        {
            "name": loaded.name,
            "fields": len(loaded.fields),
            "special_tokens": loaded.special_token_count,
        }
    )
