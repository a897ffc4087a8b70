"""Verbs about a tokenizer: ``show``, ``validate``, ``semantic-ids``, ``merges``.

Those that read all events are in `tokenize`, those for when the data change in `change`, those
that make a tokenizer of plain text in `tokenizer_text` and `tokenizer_adaptive`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from domainformer.cli import change, tokenize, tokenizer_adaptive, tokenizer_text
from domainformer.cli.data import Entity, Table, Time
from domainformer.cli.output import JSON, OVERWRITE, next_command, progress, say, show
from domainformer.errors import ConfigError

if TYPE_CHECKING:
    from domainformer.data import EventTable

tokenizer_app = typer.Typer(
    help="Fit a tokenizer on a table, or look at one.", no_args_is_help=True
)

Folder = Annotated[Path, typer.Argument(help="Folder of a saved tokenizer or model.")]


def register(app: typer.Typer) -> None:
    """Add this module's verbs, and those that read all events, to the application."""
    for name, verb in (
        ("fit", tokenize.tokenizer_fit),
        ("show", tokenizer_show),
        ("validate", tokenizer_validate),
        ("extend", change.tokenizer_extend),
        ("diff", change.tokenizer_diff),
        ("drift", change.tokenizer_drift),
        ("semantic-ids", tokenizer_semantic_ids),
        ("merges", tokenizer_merges),
        ("bpe", tokenizer_text.tokenizer_bpe),
        ("characters", tokenizer_text.tokenizer_characters),
        ("adaptive", tokenizer_adaptive.tokenizer_adaptive),
    ):
        tokenizer_app.command(name)(verb)
    app.add_typer(tokenizer_app, name="tokenizer")
    app.command()(tokenize.tokenize)


def tokenizer_show(
    folder: Folder,
    table: Annotated[
        str | None, typer.Argument(help="Events to take the example of; none: it is made up.")
    ] = None,
    field: Annotated[str | None, typer.Option(help="One field, with all its tokens.")] = None,
    merges: Annotated[
        Path | None, typer.Option(help="The first merges of this file, told in tokens.")
    ] = None,
    entity: Entity = None,
    time: Time = None,
    as_json: bool = JSON,
) -> None:
    """Show what the tokens of a tokenizer stand for, and an event as the model reads it."""
    from domainformer.cli.start import model_folder
    from domainformer.quickstart import read_events
    from domainformer.tokenizers import (
        ActionPieceMerges,
        DomainTokenizer,
        describe_tokenizer,
        describe_vocabulary,
        render_vocabulary,
    )
    from domainformer.tokenizers.inspection import describe_merges

    home = model_folder(folder)
    fitted = DomainTokenizer.from_pretrained(home)
    if merges is not None:
        told = describe_merges(ActionPieceMerges.load(merges), fitted)
        show(told.to_json() if as_json else told.render(), as_json=as_json)
        return
    if field is not None:
        described = describe_vocabulary(fitted, field=field)
        show(described if as_json else render_vocabulary(described), as_json=as_json)
        return
    events = read_events(table, entity=entity, time=time, model=home) if table else None
    glance = describe_tokenizer(fitted, events)
    show(glance.to_json() if as_json else glance.render(), as_json=as_json)
    next_command(f"domainformer tokenizer validate {folder} {table or 'TABLE'}")


def tokenizer_validate(
    folder: Annotated[
        Path, typer.Argument(help="A saved tokenizer or model; of text, also a tokenizer file.")
    ],
    table: Annotated[
        str | None, typer.Argument(help="Events to check on; for a tokenizer of text, texts.")
    ] = None,
    entity: Entity = None,
    time: Time = None,
    events: Annotated[int, typer.Option(help="Events to look at one by one.", min=1)] = 2000,
    seed: Annotated[int, typer.Option(help="Of the sample.")] = 0,
    memory: tokenize.Memory = "1GB",
    vocab_size: Annotated[
        int | None, typer.Option(help="Of text: the size that the model expects.", min=1)
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Of text: warnings are failures.")
    ] = False,
    as_json: bool = JSON,
) -> None:
    """Check a tokenizer on a sample of TABLE: equal paths, true meanings, and the way back.

    A tokenizer of plain text is checked on texts from all over Unicode. Exit code 1 where a
    promise is broken.
    """
    from domainformer.cli.start import model_folder
    from domainformer.distributed import Means, validate_table
    from domainformer.quickstart import columns_of
    from domainformer.tokenizers import DomainTokenizer
    from domainformer.tokenizers.language import is_text_tokenizer

    home = model_folder(folder)
    if is_text_tokenizer(home):
        tokenizer_adaptive.validate_text(home, table, vocab_size, strict=strict, as_json=as_json)
    fitted = DomainTokenizer.from_pretrained(home)
    if table is None:
        raise ConfigError(
            "a tokenizer of events is checked on events",
            next_step=f"domainformer tokenizer validate {folder} TABLE",
        )
    with progress("checking promises") as tell:
        report = validate_table(
            table,
            fitted,
            entity=entity,
            time=time,
            known=columns_of(home),
            events=events,
            seed=seed,
            means=Means(memory=memory, say=say),
            progress=tell,
        )
    show(report.to_json() if as_json else report.render(), as_json=as_json)
    if report.ok:
        next_command(f"domainformer tokenize {table} --tokenizer {folder} --output store")
    raise typer.Exit(report.exit_code)


def tokenizer_semantic_ids(
    table: Table,
    field: Annotated[str, typer.Option(help="Column of the entities, such as product.")],
    output: Annotated[Path, typer.Option(help="Folder to write.")],
    entity: Entity = None,
    time: Time = None,
    items: Annotated[
        str | None, typer.Option(help="Table with a row per entity; none: from the events.")
    ] = None,
    extends: Annotated[
        Path | None,
        typer.Option(help="Folder of earlier ids: keep them, and give new entities theirs."),
    ] = None,
    method: Annotated[
        Literal["rqvae", "kmeans"], typer.Option(help="kmeans is lighter, and needs no torch.")
    ] = "rqvae",
    levels: Annotated[int, typer.Option(help="Codes of an entity.", min=1)] = 3,
    codes: Annotated[int, typer.Option(help="Different codes of a level.", min=2)] = 256,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Give every entity of a column a short code that like entities share."""
    from domainformer.cli.start import fresh_file
    from domainformer.quickstart import read_events
    from domainformer.schema import FieldSpec
    from domainformer.tokenizers import fit_semantic_ids

    target = fresh_file(output, overwrite)
    if extends is not None:
        given = items or read_events(table, entity=entity, time=time)
        facts = _continued_ids(extends, field, given, target, overwrite=overwrite)
        show(facts, as_json=as_json)
        say(f"wrote {target}")
        next_command(
            f"domainformer tokenizer extend FOLDER {table} --semantic-ids {field}={target} "
            "--output extended"
        )
        return
    options = {"semantic_levels": levels, "semantic_codes": codes}
    spec = FieldSpec(field, "categorical_entity", **options)
    events = read_events(table, entity=entity, time=time)
    with progress("fitting codes") as tell:
        found = fit_semantic_ids(
            events,
            spec,
            items=items,
            method=method,
            seed=seed,
            progress=lambda done, total, what: tell(done, total),
        )
    found.tokenizer.save(target, overwrite=overwrite)
    show(found.to_json() if as_json else found.render(), as_json=as_json)
    say(f"wrote {target}; the schema asks for it by semantic_levels: {levels}")
    next_command(
        f"domainformer tokenizer fit {table} --schema schema.yaml --semantic-ids {field}={target}"
    )


def _continued_ids(
    folder: Path, field: str, items: EventTable | str, target: Path, *, overwrite: bool
) -> dict[str, Any]:
    """Saved semantic ids with the new entities of a table, saved again."""
    from domainformer.tokenizers import SemanticIdTokenizer

    before = SemanticIdTokenizer.load(folder)
    after = before.for_field(before.spec.model_copy(update={"name": field, "column": None}))
    after = after.with_entities(items)
    after.save(target, overwrite=overwrite)
    count = len(after.entities)
    return {"field": field, "entities": count, "new": count - len(before.entities)}


def tokenizer_merges(
    store: Annotated[Path, typer.Argument(help="Token store, as `tokenize` writes it.")],
    tokenizer: Annotated[Path, typer.Option(help="Folder of its tokenizer or model.")],
    output: Annotated[Path, typer.Option(help="File to write (JSON).")] = Path("merges.json"),
    vocab_size: Annotated[int, typer.Option(help="Tokens in all to reach.", min=5)] = 40_000,
    across_events: Annotated[
        bool, typer.Option(help="Also merge parts of adjacent events.")
    ] = True,
    merged: Annotated[Path | None, typer.Option(help="Also write the merged store here.")] = None,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Learn one token for what often occurs together (ActionPiece), from training events."""
    from domainformer.cli.start import fresh_file, model_folder
    from domainformer.data import TokenStore
    from domainformer.tokenizers import DomainTokenizer, learn_merges

    target = fresh_file(output, overwrite)
    fitted = DomainTokenizer.from_pretrained(model_folder(tokenizer))
    events = TokenStore.open(store).events()
    with progress("learning merges") as tell:
        result = learn_merges(
            events,
            vocab_size,
            tell,
            slot_of_id=fitted.layout.slot_of_id,
            vocab=fitted.vocab,
            across_events=across_events,
        )
    result.merges.save(target, overwrite=overwrite)
    if merged is not None:
        TokenStore.write(merged, result.merges.encode(events), overwrite=overwrite)
    show(result.to_json() if as_json else result.render(), as_json=as_json)
    say(f"wrote {target}" + (f" and {merged}" if merged else ""))
    next_command(f"domainformer tokenizer show {tokenizer} --merges {target}")
