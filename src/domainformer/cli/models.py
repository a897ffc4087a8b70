"""Verbs about models: ``pretrain``, ``finetune``, ``evaluate``, ``embed``, ``generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from domainformer.cli.data import Entity, Table, Time
from domainformer.cli.output import JSON, OVERWRITE, next_command, progress, results, say, show
from domainformer.errors import ConfigError

Model = Annotated[Path, typer.Argument(help="Model folder, or the run folder that holds it.")]


def register(app: typer.Typer) -> None:
    """Add this module's verbs to the application."""
    for verb in (pretrain, finetune, evaluate, embed, generate):
        app.command()(verb)


def pretrain(
    config: Annotated[Path | None, typer.Argument(help="Configuration (YAML).")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Dotted overrides: training.max_steps=200 …")
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Pretrain a model as CONFIG says; see `recipes list` and `init` for one to start from."""
    from domainformer.config import load_config
    from domainformer.training import RunConfig
    from domainformer.training import pretrain as run

    if config is not None and "=" in str(config) and not config.exists():
        config, overrides = None, [str(config), *(overrides or [])]
    result = run(load_config(RunConfig, config, overrides or []))
    show({"run": result.run_dir, "model": result.model_dir, **result.metrics}, as_json=as_json)
    next_command(f"domainformer evaluate {result.run_dir}")


def finetune(
    model: Model,
    table: Table,
    label: Annotated[str, typer.Option(help="Column with the class, constant for an entity.")],
    entity: Entity = None,
    time: Time = None,
    label_table: Annotated[
        Path | None, typer.Option(help="Table with the label, one row per entity.")
    ] = None,
    mode: Annotated[
        Literal["full", "head", "lora"],
        typer.Option(help="head keeps the backbone frozen, lora adds low-rank matrices to it."),
    ] = "full",
    output: Annotated[Path, typer.Option(help="Run folder to write.")] = Path("runs/finetuned"),
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Dotted overrides: training.epochs=3 …")
    ] = None,
    as_json: bool = JSON,
) -> None:
    """Fine-tune a pretrained model to classify entities."""
    from domainformer.cli.start import model_folder
    from domainformer.quickstart import read_events
    from domainformer.training import finetune as run

    folder = model_folder(model)
    result = run(
        folder,
        read_events(table, entity=entity, time=time, model=folder),
        label=label,
        label_table=label_table,
        mode=mode,
        output=output,
        overrides=overrides or [],
    )
    show({"run": result.run_dir, "model": result.model_dir, **result.metrics}, as_json=as_json)


def evaluate(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(help="Run folder of a pretrained model; none with --task.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="With --task, dotted overrides: samples=200 …")
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(help="Contest (YAML): models and baselines on one task, folds and seeds."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --task: folder of the results.")] = None,
    label: Annotated[str | None, typer.Option(help="Target of the downstream probe.")] = None,
    label_table: Annotated[
        Path | None, typer.Option(help="Table with the label, one row per entity.")
    ] = None,
    events: Annotated[int, typer.Option(help="Test events to score.", min=1)] = 3000,
    samples: Annotated[int, typer.Option(help="Monte-Carlo completions of each.", min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of the events drawn, completions and folds.")] = 0,
    as_json: bool = JSON,
) -> None:
    """Score a run's next events against honest baselines, or hold the contest of a task file."""
    if task is not None:
        from domainformer.cli.contest import run_contest

        _refuse_options_of_a_run(context)
        # The first override stands where the run would.
        given = [*([] if run is None else [str(run)]), *(overrides or [])]
        run_contest(task, out, given, as_json=as_json)
        return
    if run is None or overrides or out is not None:
        raise ConfigError(
            "evaluate needs one run folder, or a task file",
            next_step="domainformer evaluate RUN, or domainformer evaluate --task FILE.yaml",
        )
    from domainformer.evaluation import evaluate as score

    with progress("scoring events") as tell:
        evaluation = score(
            run,
            label=label,
            labels=label_table,
            max_events=events,
            samples=samples,
            seed=seed,
            progress=tell,
        )
    if as_json:
        show(evaluation.to_json(), as_json=True)
    else:
        results.print(evaluation.render())
    next_command(f"domainformer report {run}")


def _refuse_options_of_a_run(context: typer.Context) -> None:
    """A contest reads its own file: an option that it would not hear is an error."""
    for name in ("label", "label_table", "events", "samples", "seed"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise ConfigError(
                f"--{name.replace('_', '-')} belongs to a run, not to a task file",
                next_step="settings of a contest are overrides, as in: samples=200 seeds=[0,1]",
            )


def embed(
    model: Model,
    table: Table,
    output: Annotated[Path, typer.Option(help="Parquet file to write.")],
    entity: Entity = None,
    time: Time = None,
    how: Annotated[Literal["last", "mean"], typer.Option(help="Token pooling.")] = "last",
    permutations: Annotated[
        int, typer.Option(help="Average over so many permuted encodings (merges only).", min=0)
    ] = 0,
    overwrite: bool = OVERWRITE,
) -> None:
    """Write one embedding per entity of TABLE."""
    from domainformer.cli.start import fresh_file, model_folder
    from domainformer.inference import embed_to_parquet, load_bundle
    from domainformer.quickstart import read_events

    target, folder = fresh_file(output, overwrite), model_folder(model)
    events = read_events(table, entity=entity, time=time, model=folder)
    with progress("embedding entities") as tell:
        embed_to_parquet(
            load_bundle(folder), events, target, how=how, permutations=permutations, progress=tell
        )
    say(f"{events.n_entities:,} entities")
    results.print(str(target), markup=False)


def generate(
    model: Model,
    table: Table,
    output: Annotated[Path | None, typer.Option(help="Parquet file; none: print.")] = None,
    entity: Entity = None,
    time: Time = None,
    events: Annotated[int, typer.Option(help="Future events per entity.", min=1)] = 5,
    entities: Annotated[int | None, typer.Option(help="Only the first so many.", min=1)] = None,
    samples: Annotated[int, typer.Option(help="Futures of each.", min=1)] = 1,
    temperature: Annotated[float, typer.Option(help="0 takes the most probable.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Draw among the k most probable.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Draw among the likeliest share p.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    overwrite: bool = OVERWRITE,
) -> None:
    """Continue each entity's history: future events, decoded back to rows."""
    import numpy as np

    from domainformer.cli.start import fresh_file, model_folder
    from domainformer.inference import generate as run
    from domainformer.inference import load_bundle
    from domainformer.quickstart import read_events

    target = None if output is None else fresh_file(output, overwrite)
    folder = model_folder(model)
    history = read_events(table, entity=entity, time=time, model=folder)
    if entities is not None:
        history = history.take_entities(np.arange(min(entities, history.n_entities)))
    with progress("generating histories") as tell:
        frame = run(
            load_bundle(folder),
            history,
            n_events=events,
            n_samples=samples,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            progress=tell,
        )
    if target is None:
        results.print(frame.write_csv(), markup=False, end="")
        return
    frame.write_parquet(target)
    results.print(str(target), markup=False)
