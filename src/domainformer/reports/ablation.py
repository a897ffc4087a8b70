"""The page of an ablation: one plot of all differences, one table, and what they rest on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from domainformer.artifacts import write_text
from domainformer.errors import ArtifactError
from domainformer.evaluation.ablations import RESULT_FILE
from domainformer.reports import charts
from domainformer.reports.markup import (
    Content,
    Markup,
    badge,
    bullets,
    code,
    distinct,
    escape,
    facts,
    figure,
    paragraph,
    shorten,
    table,
    tag,
)
from domainformer.reports.numbers import compact, count, duration
from domainformer.reports.page import REPORT_FILE, document
from domainformer.version import __version__

Found = dict[str, Any]
BASE = "base"
_BADGES = {True: ("better", "good"), False: ("worse", "bad")}
_VERDICTS = {True: "ahead", False: "behind", None: "even"}
_PLOTTED = (("loss", "Loss: left is better"), ("downstream", "{measure}"))
_LOWER = ("log_loss", "rmse", "mae", "brier")


def write_ablation_report(folder: str | Path) -> Path:
    """Write ``report.html`` into the folder of an ablation: one self-contained page.

    Args:
        folder: That :func:`~domainformer.evaluation.ablations.ablate` wrote ``ablation.json`` into.

    Returns:
        The page.

    Raises:
        ArtifactError: There is no result, or it is damaged.
        MissingExtraError: Altair or vl-convert is not installed (extra ``report``).
    """
    path = Path(folder) / REPORT_FILE
    write_text(path, render(_read(Path(folder) / RESULT_FILE), Path(folder).name))
    return path


def render(found: Found, name: str) -> str:
    """The page as HTML text.

    Args:
        found: What stands in ``ablation.json``.
        name: What the ablation is called.
    """
    body = tag(
        "main",
        tag(
            "header",
            paragraph_of("kicker", "Ablation"),
            tag("h1", name),
            paragraph(_lead(found)),
        ),
        _plots(found),
        tag("section", tag("h2", "All figures"), _table(found), bullets(found["notes"])),
        tag("section", tag("h2", "What is compared"), _compared(found)),
        tag("footer", f"Written by domainformer {__version__}."),
    )
    return document(f"{name}: ablation", body)


def paragraph_of(kind: str, text: str) -> Markup:
    """A paragraph of a class of the style sheet."""
    return tag("p", text, _class=kind)


def _read(path: Path) -> Found:
    try:
        found: Found = json.loads(path.read_text(encoding="utf-8"))
        if not {"rows", "axes", "subject", "notes"} <= found.keys():
            raise ValueError("a part is missing")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read", why=str(error), next_step="run domainformer ablate again"
        ) from error
    return found


def _lead(found: Found) -> str:
    variants = [row for row in found["rows"] if row["variant"] != BASE]
    subject, seeds = found["subject"], found["subject"]["seeds"]
    return (
        f"{len(variants)} variants on {len({row['axis'] for row in found['rows']})} axes, each "
        f"trained with {len(seeds)} seed{'s' if len(seeds) > 1 else ''}, one factor changed at a "
        f"time. Judged on {count(subject['events'])} {subject['role']} events; all trainings and "
        f"scorings took {duration(found['seconds'])}."
    )


def _plots(found: Found) -> Content:
    """A section for each figure that variants have."""
    parts = []
    for key, title in _PLOTTED:
        drawn = _plot(found, key, title.format(measure=_measure(found)))
        if drawn is not None:
            parts.append(tag("section", tag("h2", f"Differences to the base: {key}"), drawn))
    nothing = paragraph("No variant has a figure that can be compared.", quiet=True)
    return parts or tag("section", nothing)


def _plot(found: Found, key: str, title: str) -> Markup | None:
    rows = [row for row in found["rows"] if row[key] is not None and row["variant"] != BASE]
    if not rows:
        return None
    differences = [row[key]["difference"] for row in rows]
    data = {
        "variant": distinct([shorten(f"{row['axis']}: {row['variant']}", 44) for row in rows]),
        "value": [one["value"] for one in differences],
        "low": [_end(one, "low") for one in differences],
        "high": [_end(one, "high") for one in differences],
        "verdict": [_VERDICTS[one["better"]] for one in differences],
    }
    drawn = charts.intervals(
        data,
        x="value",
        low="low",
        high="high",
        y="variant",
        verdict="verdict",
        title=title,
        wide=True,
    )
    known = any(one["low"] is not None for one in differences)
    caption = (
        "Variant minus base, with 95 % intervals; even: the interval holds zero."
        if known
        else "Variant minus base. With one seed there is no interval."
    )
    return figure(drawn, caption)


def _end(difference: Found, side: str) -> float:
    end = difference[side]
    return float(difference["value"] if end is None else end)


def _measure(found: Found) -> str:
    measure = found["measure"] or ""
    better = "left" if measure in _LOWER else "right"
    return f"{measure} of {found['subject']['downstream']}: {better} is better"


def _table(found: Found) -> Markup:
    measure = found["measure"]
    keys = ["loss", "accuracy", *(["downstream"] if measure else [])]
    names = {"loss": "loss", "accuracy": "accuracy", "downstream": measure}
    head: list[Content] = ["axis", "variant"]
    for key in keys:
        head += [names[key], "difference"]
    head += ["tokens / event", "events read", "parameters", "seconds"]
    rows = [_line(row, keys) for row in found["rows"]]
    caption = (
        "Loss: nats per event, given the history, over what an axis has in common. The base stands "
        "on each axis, as axes have different fields in common. ± after a figure: standard "
        "deviation over seeds."
    )
    return table(head, rows, numbers=range(2, len(head)), caption=caption)


def _line(row: Found, keys: list[str]) -> list[Content]:
    is_base = row["variant"] == BASE
    cells: list[Content] = [tag("strong", row["axis"]) if is_base else "", row["variant"]]
    for key in keys:
        cells += _figure(row[key])
    return [
        *cells,
        f"{row['tokens_per_event']:.1f}",
        compact(row["events_trained"]),
        compact(row["parameters"]),
        f"{row['seconds']:.1f}",
    ]


def _figure(found: Found | None) -> list[Content]:
    if found is None:
        return ["–", ""]
    value = f"{found['value']:.3f}"
    if found["spread"] is not None:
        value += f" ± {found['spread']:.3f}"
    difference = found["difference"]
    if difference is None:
        return [value, ""]
    told = f"{difference['value']:+.3f}"
    if difference["low"] is not None:
        told += f" [{difference['low']:+.3f}, {difference['high']:+.3f}]"
    parts: list[Content] = [told.replace("-", "−")]
    if difference["better"] is not None:
        parts += [" ", badge(*_BADGES[difference["better"]])]
    return [value, escape(parts)]


def _compared(found: Found) -> Content:
    subject = found["subject"]
    rows = [
        [
            tag("strong", axis),
            count(one["events"]),
            "whole events" if one["joint"] else "fields",
            ", ".join(one["loss"]) or "–",
        ]
        for axis, one in found["axes"].items()
    ]
    return [
        table(["axis", "events", "loss of", "slots behind the loss"], rows, numbers=[1]),
        facts(
            [
                ("data", code(subject["data"]) if subject["data"] else None),
                ("data fingerprint", code(subject["fingerprint"])),
                ("schema", subject["schema"]),
                ("context of the base", count(subject["context"])),
                ("seeds", ", ".join(map(str, subject["seeds"]))),
                ("split", subject["split"]["kind"]),
            ]
        ),
    ]
