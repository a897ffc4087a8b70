"""Verbs about language models: ``train`` and ``sample``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from domainformer.cli.output import JSON, next_command, say, show


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the application."""
    for verb in (train, sample):
        app.command()(verb)


def train(
    config: Annotated[Path | None, typer.Argument(help="Configuration (YAML).")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Dotted overrides: training.max_steps=200 …")
    ] = None,
    report: Annotated[bool, typer.Option(help="Write the run's page, report.html.")] = True,
    as_json: bool = JSON,
) -> None:
    """Train a language model on text as CONFIG says; see `recipes list` for one to start from."""
    from domainformer.config import load_config
    from domainformer.training.language import TextRunConfig
    from domainformer.training.language import train as run

    if config is not None and "=" in str(config) and not config.exists():
        config, overrides = None, [str(config), *(overrides or [])]
    result = run(load_config(TextRunConfig, config, overrides or []))
    page = _report(result.run_dir) if report else None
    paths = {"run": result.run_dir, "model": result.model_dir, **({"report": page} if page else {})}
    show({**paths, **result.metrics}, as_json=as_json)
    next_command(f"domainformer sample {result.run_dir}")


def _report(run: Path) -> Path | None:
    """The page of a run; None, and a word why, where charts cannot be drawn here."""
    from domainformer.errors import MissingExtraError
    from domainformer.reports import write_report

    try:
        return write_report(run)
    except MissingExtraError as error:
        # The model is trained: that its page lacks a package must not make the command fail.
        say(f"no report was written: {error}")
        return None


def sample(
    model: Annotated[str, typer.Argument(help="Run folder, model folder, or registered name.")],
    prompt: Annotated[str, typer.Option(help="The beginning.")] = "\n",
    tokens: Annotated[int, typer.Option(help="Length beyond the prompt.", min=1)] = 300,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable.", min=0)] = 0.8,
    top_k: Annotated[
        int | None, typer.Option(help="Draw among the k most probable.", min=1)
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw among the likeliest share p.", min=0, max=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.", min=0)] = 0,
    samples: Annotated[int, typer.Option(help="Texts, each with the next seed.", min=1)] = 1,
    registry: Annotated[Path, typer.Option(help="Folder of the registry.")] = Path("models"),
    as_json: bool = JSON,
) -> None:
    """Let a language model write, as fast as it draws."""
    from domainformer.training.language import open_language_model, stream

    texts = []
    with open_language_model(model, registry=registry) as opened:
        for number in range(samples):
            pieces = stream(
                opened.model,
                opened.tokenizer,
                prompt,
                tokens=tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                seed=seed + number,
                context=opened.context,
            )
            if as_json:
                texts.append({"seed": seed + number, "text": prompt + "".join(pieces)})
                continue
            sys.stdout.write(prompt)
            for piece in pieces:
                sys.stdout.write(piece)
                sys.stdout.flush()
            sys.stdout.write("\n" + ("─" * 40 + "\n" if number + 1 < samples else ""))
    if as_json:
        show(texts, as_json=True)
