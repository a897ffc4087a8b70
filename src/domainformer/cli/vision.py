"""Verbs about image tokens: ``vision train``; those of use are in `vision_use`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from domainformer.cli.output import JSON, next_command, show
from domainformer.cli.vision_use import vision_compress, vision_evaluate

vision_app = typer.Typer(
    help="Let a vision-language model read the image tokens that a question needs.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the application."""
    vision_app.command("base")(vision_base)
    vision_app.command("train")(vision_train)
    vision_app.command("evaluate")(vision_evaluate)
    vision_app.command("compress")(vision_compress)
    app.add_typer(vision_app, name="vision")


def vision_train(
    config: Annotated[Path | None, typer.Argument(help="Configuration (YAML).")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Dotted overrides: training.steps=200 …")
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Train a compressor of image tokens on a frozen model, as CONFIG says."""
    from domainformer.config import load_config
    from domainformer.training.vision import VisionRunConfig, train_vision

    if config is not None and "=" in str(config) and not config.exists():
        config, overrides = None, [str(config), *(overrides or [])]
    trained = train_vision(load_config(VisionRunConfig, config, overrides or []))
    paths = {"run": trained.run_dir, "adapter": trained.adapter_dir}
    show({**paths, **trained.metrics}, as_json=as_json)
    next_command(f"domainformer vision evaluate {trained.adapter_dir}")


def vision_base(
    out: Annotated[Path, typer.Argument(help="Folder of the models, one per grid.")],
    tokens: Annotated[
        int, typer.Option(help="The largest image: 64, 144 or 576 tokens. Each is a round more.")
    ] = 64,
    seed: Annotated[int, typer.Option(help="Of weights, scenes and questions.")] = 0,
    as_json: bool = JSON,
) -> None:
    """Train the small Qwen2-VL of the recipes, which answers questions on mosaics of digits.

    A stopped run goes on where it was. On one core 64 tokens take about a quarter of an hour.
    """
    from domainformer.training.vision.base_model import train_base
    from domainformer.training.vision.base_rounds import rounds_until

    models = train_base(out, seed=seed, rounds=rounds_until(tokens))
    show({str(side * side): folder for side, folder in models.items()}, as_json=as_json)
    recipe = f"recipes/vision/tiles-{tokens}.yaml"
    next_command(f"domainformer vision train {recipe} model.name={models[round(tokens**0.5)]}")
