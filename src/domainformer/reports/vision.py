"""The page of a compression: pictures of what was kept, and figures beside the baselines'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from domainformer.artifacts import write_text
from domainformer.errors import ConfigError
from domainformer.reports.markup import Content, Markup, facts, paragraph, tag
from domainformer.reports.page import document
from domainformer.reports.vision_figures import Figures, figures_section
from domainformer.reports.vision_picture import Sight, draw_sight
from domainformer.version import __version__

_HOW = (
    "Patches that were dropped are dimmed. Scores are those by which patches are ranked; a darker "
    "one is kept longer. A compressor with context fills its budget with the palest. Under each "
    "picture stands the model's answer from these patches alone."
)


def write_vision_report(
    path: str | Path,
    *,
    title: str,
    sights: Sequence[Sight] = (),
    figures: Figures | None = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write one self-contained page about a compressor.

    Args:
        path: ``FILE.html``; it is replaced where it exists.
        title: Of the page.
        sights: Questions to show, see :func:`~domainformer.reports.vision_looking.look`.
        figures: Of an evaluation.
        about: Names and values to tell: the model, the adapter, the questions.

    Raises:
        ConfigError: The file has another ending, or there is nothing to show.
        ArtifactError: It cannot be written.
        MissingExtraError: Altair or vl-convert is not installed (extra ``report``), for figures.
    """
    path = Path(path)
    if path.suffix not in (".html", ".htm"):
        raise ConfigError(f"{path.name} is no page", next_step="name it FILE.html")
    if not sights and figures is None:
        raise ConfigError("a page about a compression needs pictures or figures")
    write_text(path, render(title, sights, figures, about or {}))
    return path


def render(
    title: str, sights: Sequence[Sight], figures: Figures | None, about: Mapping[str, Any]
) -> str:
    """The page as HTML text."""
    written = datetime.now(UTC).isoformat(sep=" ", timespec="minutes")[:16]
    parts: list[Content] = [
        tag("header", tag("p", "Vision token compression", _class="kicker"), tag("h1", title)),
        facts(list(about.items())),
    ]
    if figures is not None:
        parts.append(figures_section(figures))
    if sights:
        parts.append(pictures_section(sights))
    footer = (
        f"Written by domainformer {__version__} at {written} UTC."
        + " This page shows your images: share it as you would share those." * bool(sights)
    )
    body = tag("main", parts, tag("footer", footer))
    return document(title, body, pictures=bool(sights))


def pictures_section(sights: Sequence[Sight]) -> Markup:
    """What was kept for each question, for the middle of a page."""
    drawn = [draw_sight(sight) for sight in sights]
    return tag(
        "section",
        tag("h2", "What was kept"),
        paragraph(_HOW, quiet=True),
        drawn,
        id="pictures",
    )
