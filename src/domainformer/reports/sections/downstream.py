"""What the embeddings are worth: the probe, and a map of them."""

from __future__ import annotations

from typing import Any

from domainformer.reports import charts
from domainformer.reports.collect import Collected
from domainformer.reports.markup import (
    Content,
    Markup,
    badge,
    bullets,
    code,
    figure,
    paragraph,
    shorten,
    table,
    tag,
)
from domainformer.reports.numbers import bracketed, count, share, signed
from domainformer.reports.verdicts import LOWER_IS_BETTER, verdict

_TITLES = {
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "log_loss": "log-loss",
    "r_squared": "R²",
    "rmse": "RMSE",
    "accuracy": "accuracy",
}
_BADGES = {"ahead": ("better", "good"), "even": ("even", "even"), "behind": ("worse", "bad")}
_MOST_CLASSES = 12


def probe_section(run: Collected) -> Markup:
    """The probe, or the command that makes one."""
    probe = run.probe
    if probe is None:
        how = code(f"domainformer evaluate {run.folder} --label COLUMN")
        body: Content = paragraph(
            "No probe was run. With a label per entity, ",
            how,
            " compares the embeddings with hand-made aggregates.",
        )
        return tag("section", tag("h2", "Downstream probe"), body, id="probe")
    settings = probe["settings"]
    return tag(
        "section",
        tag("h2", "Downstream probe"),
        paragraph(
            f"The same LightGBM (fixed settings, {settings['folds']} folds, seed "
            f"{settings['seed']}) learns ",
            tag("strong", probe["label"]),
            f" ({probe['task']}, {count(probe['entities'])} entities{_classes(probe)}) from frozen "
            "embeddings, from an analyst's aggregates, and from both. All figures are on "
            "out-of-fold predictions, with bootstrap 95 % intervals.",
        ),
        tag("div", [_chart(probe, metric) for metric in _metrics(probe)], _class="grid"),
        _figures(probe),
        _differences(probe),
        bullets(probe.get("notes") or []),
        id="probe",
    )


def map_section(run: Collected) -> Markup:
    """The embeddings in a plane; empty where there are none."""
    found = run.map
    if found is None:
        return Markup("")
    data: dict[str, list[Any]] = {"x": found.x, "y": found.y}
    if found.colour_name:
        data["colour"] = [v if isinstance(v, float) else shorten(v, 24) for v in found.colour]
    shown = f"{len(found.x):,} of {found.entities:,} entities"
    edge = f" {count(found.outside)} outliers are drawn at the border." if found.outside else ""
    caption = (
        f"{shown}; {found.width} numbers each, projected on the two directions in which "
        f"they differ most ({share(found.explained[0])} and {share(found.explained[1])} of the "
        "variance). Near points have alike histories in the eyes of the model." + edge
    )
    drawn = charts.scatter(
        data,
        x="x",
        y="y",
        colour="colour" if found.colour_name else None,
        legend=shorten(found.colour_name, 30),
    )
    return tag(
        "section",
        tag("h2", "Embedding map"),
        tag("div", figure(drawn, caption), _class="card wide"),
        id="map",
    )


def _metrics(probe: dict[str, Any]) -> list[str]:
    return list(next(iter(probe["figures"].values())))


def _classes(probe: dict[str, Any]) -> str:
    classes, counts = probe.get("classes") or [], probe.get("class_counts") or []
    if not classes:
        return ""
    told = ", ".join(
        f"{shorten(name, 20)}: {size:,}"
        for name, size in list(zip(classes, counts, strict=True))[:_MOST_CLASSES]
    )
    return f"; {told}" + ("; …" if len(classes) > _MOST_CLASSES else "")


def _chart(probe: dict[str, Any], metric: str) -> Markup:
    figures = {name: row[metric] for name, row in probe["figures"].items()}
    data: dict[str, list[Any]] = {
        "features": list(figures),
        **{key: [cell[key] for cell in figures.values()] for key in ("value", "low", "high")},
    }
    better = "left" if metric in LOWER_IS_BETTER else "right"
    drawn = charts.intervals(
        data, x="value", low="low", high="high", y="features", title=_TITLES.get(metric, metric)
    )
    return tag("div", figure(drawn, f"95 % interval; {better} is better."), _class="card")


def _figures(probe: dict[str, Any]) -> Markup:
    metrics = _metrics(probe)
    rows = [
        [
            tag("strong", name),
            count(probe["features"].get(name)),
            *(bracketed(row[m]) for m in metrics),
        ]
        for name, row in probe["figures"].items()
    ]
    head = ["features", "columns", *(_TITLES.get(metric, metric) for metric in metrics)]
    return table(head, rows, numbers=range(1, len(head)))


def _differences(probe: dict[str, Any]) -> Content:
    if not probe["differences"]:
        return None
    metrics = _metrics(probe)
    rows = []
    for pair, row in probe["differences"].items():
        cells = []
        for metric in metrics:
            text, kind = _BADGES[verdict(row[metric], metric)]
            cells.append([signed(row[metric]), " ", badge(text, kind)])
        rows.append([tag("strong", pair.replace(" - ", " − ")), *cells])
    head = ["difference", *(_TITLES.get(metric, metric) for metric in metrics)]
    caption = "Paired differences: both are judged on the same resampled entities."
    return table(head, rows, numbers=range(1, len(head)), caption=caption)
