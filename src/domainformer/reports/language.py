"""The page of a language model's run: what it read, what it is, how good, and what it writes."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from pathlib import Path

from domainformer.reports.language_run import LanguageRun, collect_language
from domainformer.reports.markup import Content, Markup, code, paragraph, tag
from domainformer.reports.numbers import compact, count, duration
from domainformer.reports.sections.identity import identity_section
from domainformer.reports.sections.language_data import text_section
from domainformer.reports.sections.language_model import model_section
from domainformer.reports.sections.language_samples import samples_section
from domainformer.reports.sections.language_scores import (
    best_validation,
    bits_per_character,
    scores_section,
    yardsticks,
)
from domainformer.reports.sections.language_training import language_training_section
from domainformer.reports.sections.overview import heading
from domainformer.version import __version__


def language_page(run_dir: str | Path) -> tuple[str, Markup]:
    """The page about a run of ``domainformer train``, as far as the run got.

    Args:
        run_dir: The run folder.

    Returns:
        The run's name and the body of the page.

    Raises:
        ArtifactError: The folder is no run, or a part of it is damaged.
        MissingExtraError: Altair or vl-convert is not installed (extra ``report``).
    """
    run = collect_language(run_dir)
    written = datetime.now(UTC).isoformat(sep=" ", timespec="minutes")
    footer = (
        f"Written by domainformer {__version__} at {written[:16]} UTC. Samples may repeat your "
        "text word for word: share this page as you would share the text."
    )
    body = tag(
        "main",
        heading(run.record, _tiles(run), _headlines(run)),
        tag("nav", [tag("a", title, href=f"#{name}") for name, title, _ in _PARTS]),
        [draw(run) for _, _, draw in _PARTS],
        tag("footer", footer),
    )
    return run.record.name, body


def _tiles(run: LanguageRun) -> list[tuple[str, str, str]]:
    results, resolved, split = run.results, run.resolved, run.split
    tiles = []
    if "nats" in results:
        bits = f"{results['bits_per_character']:.3f}"
        tiles += [
            ("validation", f"{results['nats']:.3f}", "nats per token, the whole text"),
            ("bits per character", bits, f"perplexity {results['perplexity']:,.2f}"),
        ]
    elif (best := best_validation(run)) is not None:
        tiles.append(("validation so far", f"{best[0]:.3f}", f"nats, step {count(best[1])}"))
    if "parameters" in resolved:
        kind = "trained further" if run.record.config.get("model_name") else "new model"
        tiles.append(("parameters", compact(resolved["parameters"]), kind))
    if split:
        size = split.get("train_characters")
        read = (compact(size), "characters") if size else (compact(split["train_tokens"]), "tokens")
        tiles.append(("training text", read[0], read[1]))
    if "seconds" in results:
        tiles.append(
            ("trained in", duration(results["seconds"]), f"{count(results['steps'])} steps")
        )
    rules = len(run.record.rules)
    if rules:
        names = ", ".join(key.partition(":")[2] for key in run.record.rules)
        tiles.append(("learning rules", count(rules), names))
    return tiles


def _headlines(run: LanguageRun) -> list[Content]:
    lines: list[Content] = []
    if "nats" in run.results:
        against = " and ".join(
            f"{bits_per_character(run, nats):.2f} for {name}" for name, nats in yardsticks(run)
        )
        told = f"{run.results['bits_per_character']:.2f} bits for each character"
        lines.append(
            f"Text that it was not trained on costs the model {told}"
            + (f", against {against}." if against else ".")
        )
    judged = [(int(row["step"]), row["eval_loss"]) for row in run.metrics if "eval_loss" in row]
    best = best_validation(run)
    if best is not None and len(judged) > 2 and "nats" in run.results:
        if best[1] == judged[-1][0]:
            lines.append("The validation loss was still falling at the end: train longer.")
        else:
            lines.append(
                f"The validation loss was best at step {count(best[1])} of {count(judged[-1][0])}: "
                "after it the model learned its text by heart, or just wandered."
            )
    return lines


def _next(run: LanguageRun) -> Markup:
    """Commands that work as they stand."""
    folder = shlex.quote(str(run.folder))
    if run.record.status == "finished":
        # A prompt of the run's own: another one may have characters that the model lacks.
        prompt = next((str(one.get("prompt", "")) for one in run.samples), "")
        begin = (
            f" --prompt {shlex.quote(prompt)}" if prompt.strip() and prompt.isprintable() else ""
        )
        commands = [
            f"domainformer sample {folder}{begin} --tokens 500",
            f"domainformer models publish {folder} NAME",
            f"domainformer compare {folder} OTHER_RUN --vary rules",
        ]
    else:
        named = run.settings("output").get("name")
        name = "" if named else f" output.name={shlex.quote(run.record.name)}"
        commands = [f"domainformer train {folder}/config.yaml{name} training.resume=true"]
    return tag(
        "section",
        tag("h2", "Next"),
        paragraph(
            "Commands for this run; ", code("domainformer report"), " writes this page again."
        ),
        tag("pre", "\n".join(commands)),
        id="next",
    )


_PARTS = (
    ("scores", "Scores", scores_section),
    ("samples", "Samples", samples_section),
    ("training", "Training", language_training_section),
    ("data", "Data", text_section),
    ("model", "Model", model_section),
    ("next", "Next", _next),
    ("identity", "Identity", identity_section),
)
