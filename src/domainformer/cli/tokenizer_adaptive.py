"""``tokenizer adaptive``, and ``tokenizer validate`` of tokenizers of plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from domainformer.cli.output import JSON, OVERWRITE, next_command, say, show, working


def tokenizer_adaptive(
    text: Annotated[str, typer.Argument(help="Text: a file, folder (its .txt files) or pattern.")],
    output: Annotated[Path, typer.Option(help="Folder to write; AutoTokenizer reads it.")],
    vocab_size: Annotated[
        int | None, typer.Option(help="Of the model; none: that of --model or --own.", min=1)
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder of a model, or its id on the hub.")
    ] = None,
    own: Annotated[
        Path | None,
        typer.Option(help="tokenizer.json, SentencePiece model, tiktoken file, or merges."),
    ] = None,
    tier: Annotated[
        Literal["pretrained", "bpe", "characters", "own"] | None,
        typer.Option(help="This tier or none."),
    ] = None,
    fallback: Annotated[
        bool, typer.Option("--fallback", help="The next tier where --model or --own fails.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask the hub.")] = False,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of trained tokenizers, by content.")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(help="How a tiktoken file cuts words: r50k, cl100k, o200k.")
    ] = None,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Choose a tokenizer for a vocabulary size and TEXT, and say why this one."""
    from domainformer.cli.start import fresh_file
    from domainformer.tokenizers import AdaptiveTokenizer

    target = fresh_file(output, overwrite)
    with working("choosing"):
        tokenizer = AdaptiveTokenizer.fit(
            text,
            vocab_size,
            model=model,
            own=own,
            tier=tier,
            fallback=fallback,
            offline=offline,
            cache=cache,
            pattern=pattern,
        )
    tokenizer.save_pretrained(target, overwrite=overwrite)
    choice = tokenizer.choice
    facts = {"output": str(target), "fingerprint": tokenizer.fingerprint, **choice.to_json()}
    show(facts if as_json else choice.render(), as_json=as_json)
    say(f"wrote {target}")
    next_command(f"domainformer tokenizer validate {target} {text}")


def validate_text(
    place: Path, text: str | None, vocab_size: int | None, *, strict: bool, as_json: bool
) -> None:
    """Check a tokenizer of plain text, print what was found, and exit with 0 or 1."""
    from domainformer.data import read_texts
    from domainformer.tokenizers import TokenizerValidator
    from domainformer.tokenizers.language import open_text_tokenizer

    texts = [document.text for document in read_texts(text)] if text else []
    with working("checking promises"):
        tokenizer, rows = open_text_tokenizer(place)
        report = TokenizerValidator.validate(
            tokenizer, vocab_size, rows=rows, texts=texts, strict=strict, raises=False
        )
    show(report.to_json() if as_json else report.render(), as_json=as_json)
    raise typer.Exit(report.exit_code)
