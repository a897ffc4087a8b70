"""Verbs that read all events: ``tokenizer fit`` and ``tokenize``.

Small tables are read whole; many files, tables larger than ``--memory`` and jobs of several
workers are streamed. Both ways fit the same tokenizer.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from domainformer.cli.data import Entity, Table, Time
from domainformer.cli.output import JSON, OVERWRITE, next_command, results, say, show, stages
from domainformer.errors import ConfigError

if TYPE_CHECKING:
    from domainformer.tokenizers import SemanticIdTokenizer

Workers = Annotated[int, typer.Option(help="Processes at work.", min=1)]
Engine = Annotated[Literal["local", "ray", "spark"], typer.Option(help="Who runs the workers.")]
Memory = Annotated[str, typer.Option(help="Memory for each worker's events, such as 2GB.")]
Work = Annotated[Path | None, typer.Option(help="Folder of unfinished work; none: OUTPUT.partial.")]
Resume = Annotated[
    bool, typer.Option("--resume/--restart", help="Go on with what an interrupted call has left.")
]


def tokenizer_fit(
    table: Table,
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("tokenizer"),
    entity: Entity = None,
    time: Time = None,
    schema: Annotated[Path | None, typer.Option(help="Schema (YAML); none: inferred.")] = None,
    before: Annotated[
        str | None, typer.Option(help="Fit on events before this time alone.")
    ] = None,
    bpe_vocab_size: Annotated[int, typer.Option(help="Byte-pair tokens for text fields.")] = 4096,
    semantic_ids: Annotated[
        list[str] | None, typer.Option(help="field=FOLDER of `semantic-ids`; may be repeated.")
    ] = None,
    workers: Workers = 1,
    engine: Engine = "local",
    memory: Memory = "1GB",
    work: Work = None,
    resume: Resume = True,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Fit a tokenizer on every event of TABLE (use `pretrain` to fit on training events only)."""
    from domainformer.cli.start import fresh_file
    from domainformer.distributed import Means, fit_table
    from domainformer.schema import DomainSchema

    target = fresh_file(output, overwrite)
    given = None if schema is None else DomainSchema.from_yaml(schema)
    with stages() as tell:
        tokenizer = fit_table(
            table,
            target,
            given,
            entity=entity,
            time=time,
            before=before,
            bpe_vocab_size=bpe_vocab_size,
            semantic_ids=saved_semantic_ids(semantic_ids),
            overwrite=overwrite,
            means=Means(workers, engine, memory, work, resume, tell, say),
        )
    say(f"{tokenizer.vocab_size:,} tokens for {len(tokenizer.schema.fields)} fields")
    if as_json:
        facts = {"vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint}
        show({"tokenizer": target, **facts}, as_json=True)
    else:
        results.print(str(target), markup=False)
    next_command(f"domainformer tokenizer show {quote(str(target))}")


def tokenize(
    table: Table,
    tokenizer: Annotated[Path, typer.Option(help="Folder of a saved tokenizer or model.")],
    output: Annotated[Path, typer.Option(help="Token store to write.")],
    entity: Entity = None,
    time: Time = None,
    validation_from: Annotated[
        str | None, typer.Option(help="Events from this time on are for validation.")
    ] = None,
    test_from: Annotated[
        str | None, typer.Option(help="Events from this time on are for the test.")
    ] = None,
    workers: Workers = 1,
    engine: Engine = "local",
    memory: Memory = "1GB",
    work: Work = None,
    resume: Resume = True,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Encode TABLE into a memory-mapped token store."""
    from domainformer.cli.start import model_folder
    from domainformer.distributed import Means, tokenize_table
    from domainformer.quickstart import columns_of
    from domainformer.tokenizers import DomainTokenizer

    folder = model_folder(tokenizer)
    fitted = DomainTokenizer.from_pretrained(folder)
    with stages() as tell:
        store = tokenize_table(
            table,
            fitted,
            output,
            entity=entity,
            time=time,
            known=columns_of(folder),
            validation_from=validation_from,
            test_from=test_from,
            overwrite=overwrite,
            means=Means(workers, engine, memory, work, resume, tell, say),
        )
    facts = {"tokens": store.n_tokens, "events": store.n_events, "entities": store.n_entities}
    say(f"{store.n_tokens:,} tokens of {store.n_events:,} events, {store.n_entities:,} entities")
    if as_json:
        show({"store": output, **facts}, as_json=True)
    else:
        results.print(str(output), markup=False)
    if not fitted.layout.has_text:
        store_and_model = f"{quote(str(output))} --tokenizer {quote(str(tokenizer))}"
        next_command(f"domainformer tokenizer merges {store_and_model}")


def saved_semantic_ids(given: list[str] | None) -> dict[str, SemanticIdTokenizer]:
    """Saved semantic ids by field, from options such as ``product=folder``."""
    from domainformer.tokenizers import SemanticIdTokenizer

    found: dict[str, SemanticIdTokenizer] = {}
    for item in given or ():
        field, separator, folder = item.partition("=")
        if not separator:
            raise ConfigError(
                f"{item!r} does not say whose semantic ids these are",
                where="--semantic-ids",
                next_step="write it as FIELD=FOLDER",
            )
        found[field] = SemanticIdTokenizer.load(folder)
    return found
