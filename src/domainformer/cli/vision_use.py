"""The verbs ``vision evaluate`` and ``vision compress``: what a compressor is worth, and does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from domainformer.cli.output import JSON, OVERWRITE, next_command, results, show, working
from domainformer.errors import ConfigError

if TYPE_CHECKING:
    from domainformer.reports.vision_picture import Sight

Folder = Annotated[Path, typer.Argument(help="Run folder of `vision train`, or adapter folder.")]
Model = Annotated[str | None, typer.Option(help="The base model, where it lies elsewhere by now.")]
Budgets = Annotated[
    list[str] | None,
    typer.Option(
        "--budget",
        help="Tokens to keep of an image: a share (1/9, 0.25), a number (64), or dynamic, which "
        "the compressor decides; may be repeated.",
    ),
]
_DYNAMIC = "dynamic"


def parse_budget(text: str) -> int | float | None:
    """A budget as it is typed: a share, a number of tokens, or None for a dynamic one.

    Raises:
        ConfigError: It is none of these.

    Example:
        >>> parse_budget("1/4"), parse_budget("0.25"), parse_budget("64"), parse_budget("dynamic")
        (0.25, 0.25, 64, None)
    """
    if text == _DYNAMIC:
        return None
    try:
        above, slash, below = text.partition("/")
        if slash:
            value: int | float = int(above) / int(below)
        else:
            value = float(text) if "." in text else int(text)
    except (ValueError, ZeroDivisionError):
        value = 0
    if value <= 0 or (isinstance(value, float) and value > 1):
        raise ConfigError(
            f"{text!r} is no budget",
            where="--budget",
            next_step="give a share up to 1 (1/9, 0.25), a number of tokens (64), or dynamic",
        )
    return value


def vision_evaluate(
    folder: Annotated[
        Path | None,
        typer.Argument(help="Run folder of `vision train`, or adapter folder; none: --model."),
    ] = None,
    questions: Annotated[
        Path | None,
        typer.Option(help="JSONL or Parquet; left out: the validation questions of the run."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that paths of images start from.")
    ] = None,
    baselines: Annotated[
        list[str] | None,
        typer.Option("--baseline", help="By name, or all; may be repeated."),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(help="Another adapter of the same model, to compare; may be repeated."),
    ] = None,
    budget: Budgets = None,
    limit: Annotated[
        int | None, typer.Option(help="Ask so many questions, evenly spread.", min=1)
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Questions at once.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Of baselines that draw.")] = 0,
    pictures: Annotated[
        int, typer.Option(help="Questions to draw on the page, evenly spread.", min=0)
    ] = 6,
    model: Model = None,
    out: Annotated[Path | None, typer.Option(help="FILE.html to write the page into.")] = None,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Judge a compressor beside baselines, with the dropped tokens gone."""
    from domainformer.cli.start import fresh_file
    from domainformer.reports.vision_judging import judge_vision, spread, vision_page
    from domainformer.training.vision import open_vision

    budgets = [parse_budget(text) for text in budget or ["1/4", "1/9", _DYNAMIC]]
    target = None if out is None else fresh_file(out, overwrite)
    with working("opening the model"):
        opened = open_vision(folder, model=model)
        asked = spread(opened.questions(questions, images=images), limit)
    with working("answering"):
        found = judge_vision(
            opened,
            asked,
            baselines=baselines or [],
            beside=beside or [],
            budgets=budgets,
            batch_size=batch_size,
            seed=seed,
        )
    if as_json:
        show(json.loads(found.to_json()), as_json=True)
    else:
        results.print(found.render(), markup=False)
    if target is not None:
        title = "Baselines" if folder is None else folder.resolve().name
        with working("drawing"):
            vision_page(
                target, opened, asked, found, title=title, budgets=budgets, pictures=pictures
            )
        next_command(f"open {target}")


def vision_compress(
    folder: Folder,
    image: Annotated[Path, typer.Argument(help="An image file.")],
    question: Annotated[str, typer.Argument(help="What is asked about it.")],
    budget: Budgets = None,
    model: Model = None,
    max_new_tokens: Annotated[int, typer.Option(help="Of an answer.", min=1)] = 16,
    out: Annotated[Path | None, typer.Option(help="FILE.html to draw what was kept into.")] = None,
    overwrite: bool = OVERWRITE,
    as_json: bool = JSON,
) -> None:
    """Answer QUESTION about IMAGE with and without compression, and show what was kept."""
    from domainformer.cli.start import fresh_file
    from domainformer.data.vision_questions import VisionQuestion
    from domainformer.reports.vision import write_vision_report
    from domainformer.reports.vision_looking import check_image, look
    from domainformer.training.vision import open_vision

    budgets = [parse_budget(text) for text in budget or [_DYNAMIC]]
    target = None if out is None else fresh_file(out, overwrite)
    check_image(image)
    with working("opening the model"):
        opened = open_vision(folder, model=model)
    asked = VisionQuestion(image, question, "")
    with working("answering"):
        sight = look(
            opened.realizer,
            opened.processor,
            asked,
            budgets=budgets,
            prompt=opened.config.model.prompt,
            max_new_tokens=max_new_tokens,
        )
    told = _told(sight)
    if as_json:
        show(told, as_json=True)
    else:
        _print(told)
    if target is not None:
        about = {"model": opened.config.model.name, "compressor": folder, "image": image.name}
        write_vision_report(target, title=question, sights=[sight], about=about)
        next_command(f"open {target}")


def _told(sight: Sight) -> dict[str, Any]:
    tokens = sight.grid[0] * sight.grid[1]
    return {
        "question": sight.question,
        "grid": list(sight.grid),
        "tokens": tokens,
        "length": sight.full_length,
        "answer": sight.full_answer,
        "mixing": sight.mixing,
        "budgets": [
            {
                "tokens": len(panel.kept),
                "length": panel.length,
                "answer": panel.answer,
                "kept": panel.kept.tolist(),
            }
            for panel in sight.panels
        ],
    }


def _print(told: dict[str, Any]) -> None:
    def line(tokens: int, length: int, answer: str) -> None:
        results.print(f"{tokens:>6} {length:>8}  {answer}", markup=False)

    results.print(f"{'image':>6} {'prompt':>8}  answer", markup=False)
    line(told["tokens"], told["length"], told["answer"])
    for one in told["budgets"]:
        line(one["tokens"], one["length"], one["answer"])
    for one in told["budgets"]:
        kept = ", ".join(map(str, one["kept"]))
        results.print(f"kept of {told['tokens']}: {kept}", markup=False)
    if told["mixing"]:
        parts = ", ".join(f"{name} {weight:.2f}" for name, weight in told["mixing"].items())
        results.print(f"ways of knowing: {parts}", markup=False)
