"""Verbs for when the data change: ``tokenizer extend``, ``diff``, ``drift``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainformer.cli.data import Entity, Table, Time
from domainformer.cli.output import JSON, OVERWRITE, next_command, say, show, working
from domainformer.cli.tokenize import Memory, saved_semantic_ids

Folder = Annotated[Path, typer.Argument(help="Folder of a saved tokenizer or model.")]


def tokenizer_extend(
    folder: Folder,
    table: Table,
    output: Annotated[Path, typer.Option(help="Folder to write: tokenizer, or model too.")],
    entity: Entity = None,
    time: Time = None,
    fields: Annotated[
        list[str] | None, typer.Option("--field", help="Only this field; may be repeated.")
    ] = None,
    min_frequency: Annotated[
        int | None, typer.Option(help="A new value has to occur so often.", min=1)
    ] = None,
    most_new: Annotated[int | None, typer.Option(help="New values of a field.", min=0)] = None,
    most_merges: Annotated[int, typer.Option(help="New byte pairs for text.", min=0)] = 256,
    semantic_ids: Annotated[
        list[str] | None,
        typer.Option(help="field=FOLDER of `semantic-ids --extends`; may be repeated."),
    ] = None,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Add the new values, entities and words of TABLE, without moving an id.

    Of a model folder the model grows along; give training events only.
    """
    from domainformer.cli.start import fresh_file, model_folder
    from domainformer.quickstart import read_events
    from domainformer.tokenizers import extend

    home, target = model_folder(folder), fresh_file(output, overwrite)
    events = read_events(table, entity=entity, time=time, model=home)
    has_model = (home / "domainformer.json").is_file()
    with working("extending") as tell:
        result = extend(
            home,
            events,
            fields=fields,
            min_frequency=min_frequency,
            most_new=most_new,
            most_merges=most_merges,
            semantic_ids=saved_semantic_ids(semantic_ids),
            output=None if has_model else target,
            overwrite=overwrite,
            progress=tell,
        )
    grown = None
    if has_model:
        from domainformer.inference import extend_bundle

        grown = extend_bundle(home, result.tokenizer, target, overwrite=overwrite)
    if as_json:
        show(result.to_json() | ({"model": grown.to_json()} if grown else {}), as_json=True)
    else:
        show(result.render())
        if grown:
            show(grown.render())
    say(f"wrote {target}")
    next_command(f"domainformer tokenizer diff {folder} {target}")


def tokenizer_diff(
    first: Folder,
    second: Annotated[Path, typer.Argument(help="Another one.")],
    as_json: bool = JSON,
) -> None:
    """Compare two tokenizers: which tokens came, went or moved."""
    from domainformer.cli.start import model_folder
    from domainformer.tokenizers import diff_tokenizers

    found = diff_tokenizers(model_folder(first), model_folder(second))
    show(found.to_json() if as_json else found.render(), as_json=as_json)


def tokenizer_drift(
    folder: Folder,
    table: Table,
    entity: Entity = None,
    time: Time = None,
    reference: Annotated[
        str | None, typer.Option(help="Events to compare with; none: what the fit has kept.")
    ] = None,
    memory: Memory = "1GB",
    as_json: bool = JSON,
) -> None:
    """Compare TABLE with what was fitted, and say whether to extend or to fit again."""
    from domainformer.cli.start import model_folder
    from domainformer.distributed import Means, drift_table
    from domainformer.quickstart import columns_of
    from domainformer.tokenizers import DomainTokenizer

    home = model_folder(folder)
    with working("comparing") as tell:
        report = drift_table(
            table,
            DomainTokenizer.from_pretrained(home),
            entity=entity,
            time=time,
            known=columns_of(home),
            reference=reference,
            means=Means(memory=memory, say=say),
            progress=tell,
        )
    show(report.to_json() if as_json else report.render(), as_json=as_json)
    if report.verdict == "extend":
        next_command(f"domainformer tokenizer extend {folder} {table} --output extended")
