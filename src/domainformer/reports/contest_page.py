"""``write_contest_report``: one page that answers "is it better, and how sure are you?"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from domainformer.artifacts import write_text
from domainformer.config import dump_yaml
from domainformer.errors import ArtifactError
from domainformer.evaluation.contest import COMPARISON_FILE
from domainformer.reports import contest_charts as pictures
from domainformer.reports.contest_verdict import (
    METRICS,
    Found,
    answer,
    metric_name,
    outcome,
    pretty,
)
from domainformer.reports.markup import (
    Markup,
    badge,
    bullets,
    code,
    facts,
    figure,
    more,
    paragraph,
    table,
    tag,
    trusted,
)
from domainformer.reports.numbers import count, duration, share
from domainformer.version import __version__

CONTEST_REPORT = "report.html"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_BADGES = {"ahead": "good", "even": "even", "behind": "bad"}


def write_contest_report(folder: str | Path) -> Path:
    """Write ``report.html`` into a contest's folder, from its ``comparison.json`` alone.

    Args:
        folder: The output of :func:`~domainformer.evaluation.contest.contest`.

    Returns:
        The page: one file without scripts that opens offline and prints.

    Raises:
        ArtifactError: There is no finished contest in the folder.
        MissingExtraError: Altair or vl-convert is not installed (extra ``report``).
    """
    folder = Path(folder)
    path = folder / COMPARISON_FILE
    if not path.is_file():
        raise ArtifactError(
            f"there is no finished contest in {folder}",
            why=f"it has no {COMPARISON_FILE}",
            next_step="domainformer evaluate --task FILE.yaml",
        )
    try:
        found = Found(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read", why=str(error)) from error
    write_text(folder / CONTEST_REPORT, render_contest(found))
    return folder / CONTEST_REPORT


def render_contest(found: Found) -> str:
    """The page as HTML text."""
    parts = [
        ("results", "Results", _results(found)),
        ("curves", "Probabilities and ranking", _curves(found)),
        ("contestants", "Who took part", _contestants(found)),
        ("protocol", "How it was judged", _protocol(found)),
        ("identity", "Identity", _identity(found)),
    ]
    present = [(name, title) for name, title, part in parts if part]
    written = datetime.now(UTC).isoformat(sep=" ", timespec="minutes")[:16]
    body = tag(
        "main",
        _overview(found),
        tag("nav", [tag("a", title, href=f"#{name}") for name, title in present]),
        [part for _, _, part in parts],
        tag("footer", f"Written by domainformer {__version__} at {written} UTC."),
    )
    style = resources.files("domainformer.reports").joinpath("style.css").read_text("utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{found.task} · contest · domainformer"),
        tag("style", trusted(style)),
    )
    return "<!doctype html>\n" + tag("html", head, tag("body", body), lang="en") + "\n"


def _overview(found: Found) -> Markup:
    record = found.record
    verdict, sentence = answer(found)
    positives = found.positives
    tiles = [
        (
            "test examples",
            count(record["examples"]),
            f"in {len(record['folds'])} folds" if len(record["folds"]) > 1 else "in one fold",
        ),
        *(
            [("positive", share(positives), found.positive_class or "of all examples")]
            if positives is not None
            else []
        ),
        ("seeds", count(len(record["seeds"])), "runs of every contestant per fold"),
    ]
    for name in (found.best_of_ours, found.best_baseline):
        if name is not None:
            note = "best baseline" if name == found.best_baseline else "best of the others"
            tiles.append((f"{metric_name(found.primary)}: {name}", found.figure(name), note))
    return tag(
        "header",
        tag("p", "contest", _class="kicker"),
        tag("h1", found.task),
        paragraph(
            badge({"ahead": "yes", "even": "not shown", "behind": "no"}[verdict], _BADGES[verdict]),
            " ",
            sentence,
        )
        if found.best_baseline and found.best_of_ours
        else paragraph(sentence),
        tag(
            "div",
            [
                tag(
                    "div",
                    tag("span", name, _class="name"),
                    tag("strong", value),
                    tag("span", note, _class="note"),
                    _class="tile",
                )
                for name, value, note in tiles
            ],
            _class="tiles",
        ),
    )


def _results(found: Found) -> Markup:
    head = ["", *(metric_name(name) for name in found.metrics)]
    rows = [
        [_named(found, name), *(_figure(found, name, metric) for metric in found.metrics)]
        for name in found.ranked
    ]
    blocks = [
        tag("h2", "Results"),
        table(
            head,
            rows,
            numbers=range(1, len(head)),
            caption="Mean over folds and seeds ± standard error; the best of each column is bold.",
        ),
        tag(
            "div",
            tag("div", figure(pictures.figures(found), pictures.HOW_FIGURES), _class="card"),
            tag("div", figure(pictures.differences(found), pictures.HOW_DIFFERENCES), _class="card")
            if found.differences
            else None,
            _class="grid",
        ),
    ]
    if found.differences:
        shown = [name for name in found.metrics if name in next(iter(found.differences.values()))]
        blocks += [
            tag("h3", f"Differences from {found.best_baseline}, the best baseline"),
            table(
                ["", *(metric_name(name) for name in shown)],
                [
                    [name, *(_difference(found, name, metric) for metric in shown)]
                    for name in found.ranked
                    if name in found.differences
                ],
                numbers=range(1, len(shown) + 1),
                caption="Contestant minus baseline on the same examples, 95 % interval and p of a "
                "paired bootstrap over entities.",
            ),
        ]
    return tag("section", blocks, id="results")


def _named(found: Found, name: str) -> list[Any]:
    return [name, " ", badge("baseline", "even") if name in found.baselines else None]


def _figure(found: Found, name: str, metric: str) -> Markup:
    figure_ = found.figures[name][metric]
    text = pretty(figure_["mean"])
    error = "" if figure_["error"] is None else f" ± {pretty(figure_['error'])}"
    mean = tag("b", text) if name in found.leaders(metric) else tag("span", text)
    return tag("span", mean, error)


def _difference(found: Found, name: str, metric: str) -> list[Any]:
    one = found.differences[name][metric]
    interval = f"[{pretty(one['low'], signed=True)}, {pretty(one['high'], signed=True)}]"
    what = outcome(found, name, metric)
    return [
        tag("span", pretty(one["value"], signed=True), " ", _class=None),
        badge(what, _BADGES[what]) if what != "even" else None,
        tag("br"),
        tag("span", f"{interval}, p {one['p_value']:.3f}", _class="quiet"),
    ]


def _curves(found: Found) -> Markup:
    curves = found.plain.get("curves") or {}
    if not curves:
        return trusted("")
    cards = [
        tag(
            "div",
            figure(pictures.calibration(curves["calibration"]), pictures.HOW_CALIBRATION),
            _class="card",
        )
    ]
    blocks: list[Any] = [tag("h2", "Probabilities and ranking")]
    if "lift" in curves:
        cards += [
            tag("div", figure(pictures.lift(curves["lift"]), pictures.HOW_LIFT), _class="card"),
            tag("div", figure(pictures.found(curves["lift"]), pictures.HOW_FOUND), _class="card"),
        ]
    blocks.append(tag("div", cards, _class="grid"))
    if "lift" in curves:
        tenths = [str(place + 1) for place in range(len(next(iter(curves["lift"].values()))))]
        rows = [
            [name, *(f"{point['lift']:.2f}" for point in curves["lift"][name])]
            for name in found.ranked
        ]
        drawn = table(["decile", *tenths], rows, numbers=range(1, len(tenths) + 1))
        blocks.append(more("Lift by decile as a table", drawn))
    return tag("section", blocks, id="curves")


def _contestants(found: Found) -> Markup:
    rows = []
    for name in found.ranked:
        known = found.contestants.get(name, {})
        seconds = [cell["seconds"] for cell in found.plain["cells"][name]]
        rows.append(
            [
                _named(found, name),
                known.get("summary", "").replace("`", ""),
                duration(sum(seconds) / len(seconds)),
            ]
        )
    weights = [
        f"{name}, fold {one['fold']}, seed {one['seed']}: "
        + ", ".join(f"{member} {weight:.2f}" for member, weight in one["weights"].items())
        for name, cells in found.identity["models"].items()
        for one in cells
        if "weights" in one
    ]
    return tag(
        "section",
        tag("h2", "Who took part"),
        table(["", "what it is", "time of a fit"], rows, numbers=[2]),
        more("Weights of the blends", bullets(weights)) if weights else None,
        id="contestants",
    )


def _protocol(found: Found) -> Markup:
    by_time = found.identity["task"]["split"] == "time"
    lines: Sequence[Any] = [
        "Every contestant saw the same events: those strictly before the cut of each example."
        if by_time
        else "Every contestant saw the same events and learned from the same entities.",
        "The split is by time: training labels were complete before the tested cut."
        if by_time
        else "The split is by entity: nobody is both learned from and tested.",
        "Settings, early stopping, calibration and blend weights come from validation examples "
        "inside the training part. Test labels are read once, by the figures on this page.",
        "The best baseline is chosen by its test figure, in the baselines' favour. The best of the "
        "others is chosen among "
        f"{len(found.others)}: with many contestants, some look good by luck.",
        "The bootstrap knows the noise of the test examples, not that of training: the spread over "
        "seeds tells that, so run several.",
        "Standard errors are taken over folds (over seeds where there is one fold); training parts "
        "of folds overlap, so they are a little too small.",
    ]
    glossary = facts(
        (metric_name(name), METRICS[name][1]) for name in found.metrics if name in METRICS
    )
    return tag(
        "section",
        tag("h2", "How it was judged"),
        bullets(lines),
        tag("h3", "The figures"),
        glossary,
        id="protocol",
    )


def _identity(found: Found) -> Markup:
    identity = found.identity
    task, machine = identity["task"], identity["environment"]
    packages = {name: known for name, known in machine["packages"].items() if known}
    return tag(
        "section",
        tag("h2", "Identity"),
        facts(
            [
                ("task", f"{task['name']} ({task['kind']}, by {task['split']})"),
                ("task fingerprint", code(task["fingerprint"])),
                ("entities", count(task["entities"])),
                ("events", count(task["events"])),
                ("seeds", ", ".join(map(str, found.record["seeds"]))),
                ("folds", ", ".join(map(str, found.record["folds"]))),
                ("configuration", code(identity["config_hash"])),
                ("revisions of the code", count(len(identity["revisions"]))),
                ("python", machine["python"]),
                ("machine", f"{machine['machine']}, {machine['cores']} cores"),
                ("begun", identity["started"]),
                ("finished", identity["finished"]),
            ]
        ),
        more("Configuration", tag("pre", dump_yaml(identity["config"]))),
        more("How the task was made", tag("pre", dump_yaml(task["record"]))),
        more("Packages", facts(sorted(packages.items()))),
        id="identity",
    )
