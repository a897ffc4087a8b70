"""Verbs that make a tokenizer of plain text: ``tokenizer bpe``, ``tokenizer characters``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from domainformer.cli.output import JSON, OVERWRITE, next_command, say, show, working

Texts = Annotated[
    list[Path], typer.Argument(help="Files, folders (their .txt files) or patterns of text.")
]
Output = Annotated[Path, typer.Option(help="Folder to write; AutoTokenizer reads it.")]
Special = Annotated[
    list[str] | None, typer.Option("--special", help="A further special token, such as <|user|>.")
]
Parse = Annotated[
    bool,
    typer.Option("--parse-special", help="Special tokens inside a text are these, not text."),
]


def tokenizer_bpe(
    texts: Texts,
    output: Output,
    vocab_size: Annotated[int, typer.Option(help="Entries in all, 5,000 to 100,000.")] = 32_000,
    min_frequency: Annotated[
        int, typer.Option(help="Times that a pair must occur to be merged.", min=1)
    ] = 2,
    max_token_length: Annotated[
        int | None, typer.Option(help="Most bytes of a token; none: no limit.", min=1)
    ] = None,
    when_short: Annotated[
        Literal["tell", "error", "reserve"],
        typer.Option(help="Where the text cannot give the size."),
    ] = "tell",
    special: Special = None,
    parse_special: Parse = False,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Train a byte-level BPE on TEXTS, which are read as a stream."""
    from domainformer.cli.start import fresh_file
    from domainformer.tokenizers.language import FastBPETrainer, SpecialTokens, TrainingProgress

    target = fresh_file(output, overwrite)
    trainer = FastBPETrainer(
        vocab_size,
        special_tokens=SpecialTokens(extra=tuple(special or ())),
        min_frequency=min_frequency,
        max_token_length=max_token_length,
        when_short=when_short,
        parse_special_tokens=parse_special,
    )
    with working("training") as step:

        def tell(now: TrainingProgress) -> None:
            step(f"{now.stage}, {now.characters:,} characters of {now.texts:,} texts")

        trained = trainer.train(texts, progress=tell)
    trained.save_pretrained(target, overwrite=overwrite)
    show(trained.to_json() if as_json else trained.render(), as_json=as_json)
    _written(target, texts)


def tokenizer_characters(
    output: Output,
    texts: Annotated[
        list[Path] | None, typer.Argument(help="Files, folders or patterns; none: Unicode alone.")
    ] = None,
    vocab_size: Annotated[int, typer.Option(help="Entries in all, 100 to 500,000.")] = 4_096,
    unknown: Annotated[
        Literal["bytes", "unk"] | None,
        typer.Option(help="What characters without an entry become; none: by size."),
    ] = None,
    special: Special = None,
    parse_special: Parse = False,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Make a vocabulary of single characters: those of TEXTS by frequency, then Unicode's."""
    from domainformer.cli.start import fresh_file
    from domainformer.tokenizers.language import CharacterLevelTokenizer, SpecialTokens

    target = fresh_file(output, overwrite)
    made = CharacterLevelTokenizer(
        vocab_size,
        texts or None,
        special_tokens=SpecialTokens(extra=tuple(special or ())),
        unknown=unknown,
        parse_special_tokens=parse_special,
    )
    made.save_pretrained(target, overwrite=overwrite)
    show(made.to_json() if as_json else made.render(), as_json=as_json)
    _written(target, texts or [Path("TEXT")])


def _written(target: Path, texts: list[Path]) -> None:
    say(f"wrote {target}")
    next_command(f"domainformer train data.path={texts[0]} tokenizer.path={target}")
