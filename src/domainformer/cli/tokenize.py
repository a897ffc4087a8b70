"""Verbs that read all events: ``tokenizer fit`` and ``tokenize``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainformer.cli.data import Entity, Table, Time
from domainformer.cli.output import OVERWRITE, next_command, results, say


def tokenizer_fit(
    table: Table,
    output: Annotated[Path, typer.Option(help="Folder to write.")] = Path("tokenizer"),
    entity: Entity = None,
    time: Time = None,
    schema: Annotated[Path | None, typer.Option(help="Schema (YAML); none: inferred.")] = None,
    bpe_vocab_size: Annotated[int, typer.Option(help="Byte-pair tokens for text fields.")] = 4096,
    overwrite: bool = OVERWRITE,
) -> None:
    """Fit a tokenizer on every event of TABLE (use `pretrain` to fit on training events only)."""
    from domainformer.quickstart import read_events
    from domainformer.schema import DomainSchema
    from domainformer.tokenizers import DomainTokenizer

    events = read_events(table, entity=entity, time=time)
    chosen = DomainSchema.from_yaml(schema) if schema else DomainSchema.infer(events)
    tokenizer = DomainTokenizer(chosen, bpe_vocab_size=bpe_vocab_size).fit(events)
    tokenizer.save_pretrained(output, overwrite=overwrite)
    say(f"{tokenizer.vocab_size:,} tokens for {len(chosen.fields)} fields")
    results.print(str(output), markup=False)
    next_command(f"domainformer tokenizer show {output}")


def tokenize(
    table: Table,
    tokenizer: Annotated[Path, typer.Option(help="Folder of a saved tokenizer or model.")],
    output: Annotated[Path, typer.Option(help="Token store to write.")],
    entity: Entity = None,
    time: Time = None,
    overwrite: bool = OVERWRITE,
) -> None:
    """Encode TABLE into a memory-mapped token store."""
    from domainformer.cli.start import model_folder
    from domainformer.quickstart import read_events
    from domainformer.tokenizers import DomainTokenizer

    folder = model_folder(tokenizer)
    events = read_events(table, entity=entity, time=time, model=folder)
    fitted = DomainTokenizer.from_pretrained(folder)
    store = fitted.encode_to_store(events, output, overwrite=overwrite)
    say(f"{store.n_tokens:,} tokens of {store.n_events:,} events, {store.n_entities:,} entities")
    results.print(str(output), markup=False)
