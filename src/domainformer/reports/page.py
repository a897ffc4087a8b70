"""``write_report``: one file that tells a run, opens offline, prints, and fits a phone."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

import polars as pl

from domainformer.artifacts import write_text
from domainformer.errors import ConfigError
from domainformer.reports import sections
from domainformer.reports.collect import Collected, collect
from domainformer.reports.language import language_page
from domainformer.reports.language_run import LANGUAGE_KIND
from domainformer.reports.markup import Markup, tag, trusted
from domainformer.run import read_run
from domainformer.schema import InferredSchema
from domainformer.version import __version__

REPORT_FILE = "report.html"
_VISION_KIND = "vision"  # of the runs of `vision train`, whose page needs their model
# Nothing may be loaded and nothing may run, whatever a category is called.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
# Pictures that lie in the page itself: still nothing is loaded.
_PICTURES = "; img-src data:"
_PARTS = (
    ("data", "Data", sections.data_section),
    ("tokens", "Tokens", sections.vocabulary_section),
    ("training", "Training", sections.training_section),
    ("evaluation", "Evaluation", sections.contest_section),
    ("probe", "Probe", sections.probe_section),
    ("map", "Map", sections.map_section),
    ("explanation", "Explanation", sections.explanation_section),
    ("next", "Next", sections.next_section),
    ("identity", "Identity", sections.identity_section),
)


def write_report(
    run_dir: str | Path,
    *,
    inferred: InferredSchema | None = None,
    labels: pl.DataFrame | None = None,
) -> Path:
    """Write ``report.html`` into a run folder: one self-contained page about the run.

    A run of a language model has a page of its own, by its kind (see
    :mod:`~domainformer.reports.language`).

    What the run does not have yet (an evaluation, a probe, embeddings) is left out, or replaced by
    the command that makes it; calling again later gives the fuller page.

    Args:
        run_dir: The run folder.
        inferred: Evidence behind the schema; else the run's ``schema_evidence.json``, if any.
        labels: Entity column and label column, to colour the embedding map where the run's table
            does not hold the label.

    Returns:
        The page.

    Raises:
        ArtifactError: The folder is no run, or a part of it is damaged.
        ConfigError: It is the run of a compressor of image tokens, whose page another verb writes.
        FingerprintError: Parts of different runs were mixed.
        MissingExtraError: Altair or vl-convert is not installed (extra ``report``).
    """
    path = Path(run_dir) / REPORT_FILE
    kind = read_run(run_dir).kind
    if kind == _VISION_KIND:
        raise ConfigError(
            f"{run_dir} is the run of a compressor of image tokens",
            why="its page shows answers, for which the model must be asked",
            next_step=f"domainformer vision evaluate {run_dir} --baseline all --out {path}",
        )
    if kind == LANGUAGE_KIND:
        text = document(*language_page(run_dir))
    else:
        text = render(collect(run_dir, inferred=inferred, labels=labels))
    write_text(path, text)
    return path


def render(run: Collected) -> str:
    """The page as HTML text."""
    parts = [(name, title, draw(run)) for name, title, draw in _PARTS]
    present = [(name, title) for name, title, part in parts if part]
    written = datetime.now(UTC).isoformat(sep=" ", timespec="minutes")
    footer = (
        f"Written by domainformer {__version__} at {written[:16]} UTC. This page shows values of "
        "your data (categories, and some events of one entity): share it as you would share those."
    )
    body = tag(
        "main",
        sections.overview(run),
        tag("nav", [tag("a", title, href=f"#{name}") for name, title in present]),
        [part for _, _, part in parts],
        tag("footer", footer),
    )
    return document(run.record.name, body)


def document(title: str, body: Markup, *, pictures: bool = False) -> str:
    """A self-contained page as HTML text.

    Args:
        title: Of the window.
        body: All that is on it.
        pictures: Pictures are embedded in it (as ``data:``), and may be shown.
    """
    head = _head(title, _POLICY + _PICTURES * pictures)
    return "<!doctype html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def _head(title: str, policy: str) -> Markup:
    style = resources.files("domainformer.reports").joinpath("style.css").read_text("utf-8")
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} · domainformer"),
        tag("style", trusted(style)),
    )
