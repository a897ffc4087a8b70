"""The page of a comparison: the verdict, all figures, the curves, and what may be believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from domainformer.artifacts import write_text
from domainformer.errors import ArtifactError
from domainformer.evaluation.comparisons import RESULT_FILE
from domainformer.evaluation.comparisons.labels import told
from domainformer.evaluation.comparisons.result import told_p
from domainformer.reports import charts
from domainformer.reports.markup import (
    Content,
    Markup,
    badge,
    bullets,
    code,
    distinct,
    facts,
    figure,
    more,
    paragraph,
    shorten,
    table,
    tag,
)
from domainformer.reports.numbers import count, duration, signed
from domainformer.reports.page import REPORT_FILE, document
from domainformer.version import __version__

Found = dict[str, Any]
_BADGES = {"better": "good", "worse": "bad", "even": "even", "unknown": "even"}
_VERDICTS = {"better": "ahead", "worse": "behind"}
_DIGITS = 4
_LABEL = 44  # letters of a setting in a chart
_MANY_POINTS = 20  # of a curve that can do without its beginning
_BEGINNING = 0.1  # share of the steps that is no part of a long curve
_MOST_CURVES = 6  # settings that the eye tells apart in one chart
# The curve that people look for comes first, then that of the training, then what rules tell.
_FIRST_CURVES = ("eval_loss", "loss")


def write_comparison_report(folder: str | Path) -> Path:
    """Write ``report.html`` beside a ``comparison.json``: one self-contained page.

    Args:
        folder: That :func:`~domainformer.evaluation.comparisons.sweep`, or the method ``write`` of
            a comparison, wrote into.

    Returns:
        The page.

    Raises:
        ArtifactError: There is no comparison, or it is damaged.
        MissingExtraError: Altair or vl-convert is not installed (extra ``report``).
    """
    folder = Path(folder)
    path = folder / REPORT_FILE
    write_text(path, render(_read(folder / RESULT_FILE), folder.resolve().name))
    return path


def render(found: Found, name: str) -> str:
    """The page as HTML text.

    Args:
        found: What stands in ``comparison.json``.
        name: What the comparison is called.
    """
    body = tag(
        "main",
        tag(
            "header",
            tag("p", "Comparison of runs", _class="kicker"),
            tag("h1", name),
            paragraph(_lead(found)),
        ),
        tag("section", tag("h2", "Verdict"), _plot(found), _table(found), bullets(found["notes"])),
        _curves(found),
        tag("section", tag("h2", "What is compared"), _compared(found)),
        tag("footer", f"Written by domainformer {__version__}."),
    )
    return document(f"{name}: comparison", body)


def _read(path: Path) -> Found:
    try:
        found: Found = json.loads(path.read_text(encoding="utf-8"))
        if not {"metric", "groups", "curves", "notes"} <= found.keys():
            raise ValueError("a part is missing")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path} cannot be read", why=str(error), next_step="run domainformer compare again"
        ) from error
    return found


def _lead(found: Found) -> str:
    groups = found["groups"]
    runs = sum(len(group["runs"]) for group in groups)
    if len(groups) == 1:
        return f"{runs} repetitions of one experiment."
    ahead = [group for group in groups[1:] if group["against"]["verdict"] == "better"]
    direction = "higher" if found["higher_is_better"] else "lower"
    text = (
        f"{count(len(groups))} settings, {count(runs)} runs, judged by {found['metric']} "
        f"({direction} is better). "
    )
    if not ahead:
        return text + f"None is better than {groups[0]['name']} beyond the noise of seeds."
    chosen = (max if found["higher_is_better"] else min)(ahead, key=lambda group: group["mean"])
    return text + (
        f"{chosen['name']} has the best mean of those that are better than {groups[0]['name']} "
        f"beyond the noise of seeds: {chosen['mean']:.{_DIGITS}f} against "
        f"{groups[0]['mean']:.{_DIGITS}f}."
    )


def _plot(found: Found) -> Markup | None:
    groups = found["groups"][1:]
    if not groups:
        return None
    ends = [_interval(group["against"]) for group in groups]
    data: charts.Columns = {
        "setting": distinct([shorten(group["name"], _LABEL) for group in groups]),
        "value": [end["value"] for end in ends],
        "low": [end["low"] for end in ends],
        "high": [end["high"] for end in ends],
        "verdict": [_VERDICTS.get(group["against"]["verdict"], "even") for group in groups],
    }
    side = "right" if found["higher_is_better"] else "left"
    drawn = charts.intervals(
        data,
        x="value",
        low="low",
        high="high",
        y="setting",
        verdict="verdict",
        title=f"Difference in {found['metric']}: {side} is better",
        wide=True,
    )
    base = found["groups"][0]["name"]
    return figure(
        drawn,
        f"Setting minus {base}, with 95 % intervals of the deciding test. The verdict is corrected "
        "for the number of settings, and so may be even where an interval just leaves zero out.",
    )


def _interval(against: Found) -> dict[str, float]:
    test = against["test"]
    value = against["difference"]
    return {
        "value": value,
        "low": value if test is None else test["low"],
        "high": value if test is None else test["high"],
    }


def _table(found: Found) -> Markup:
    head = ["setting", "seeds", found["metric"], "difference", "p", "test", "verdict", "time"]
    rows = [_line(group) for group in found["groups"]]
    caption = (
        "Mean over seeds ± standard error of the mean. p: two-sided, corrected for the number of "
        "settings (Holm). The test is paired where both have the same seeds, else Welch’s."
    )
    return table(head, rows, numbers=[1, 2, 3, 4, 7], caption=caption)


def _line(group: Found) -> list[Content]:
    against = group["against"]
    seconds = group["results"].get("seconds")
    name: Content = (
        [group["name"], " ", badge("marked", "bad")] if group["marks"] else group["name"]
    )
    cells = [name, count(len(group["runs"])), _figure(group["mean"], group["error"])]
    end = duration(seconds["mean"]) if seconds else ""
    if against is None:
        return [tag("strong", name), *cells[1:], "", "", "", "base", end]
    test, p = against["test"], against["p"]
    verdict = against["verdict"]
    return [
        *cells,
        _signed(against["difference"]) if test is None else signed(_interval(against), _DIGITS),
        "–" if p is None else told_p(p),
        "–" if test is None else test["kind"],
        badge(verdict, _BADGES[verdict]),
        end,
    ]


def _figure(mean: float, error: float | None) -> str:
    text = f"{mean:.{_DIGITS}f}"
    return text if error is None else f"{text} ± {error:.{_DIGITS}f}"


def _signed(value: float) -> str:
    return f"{value:+.{_DIGITS}f}".replace("-", "−")


def _curves(found: Found) -> Markup | None:
    """What people look for first; figures that rules tell are folded away."""
    keys = list(dict.fromkeys(curve["key"] for curve in found["curves"]))
    main = [key for key in _FIRST_CURVES if key in keys]
    first = [drawn for key in main for drawn in _charts(found, key)]
    rest = [drawn for key in keys if key not in main for drawn in _charts(found, key)]
    if not first and not rest:
        return None
    further = more("Further figures", rest) if rest else None
    return tag("section", tag("h2", "Curves"), first, further)


def _charts(found: Found, key: str) -> list[Markup]:
    """Charts of one figure: the base in each, and as many others as the eye tells apart."""
    curves = [one for one in found["curves"] if one["key"] == key and len(one["steps"]) > 1]
    if not curves:
        return []
    base, others = curves[0], curves[1:]
    size = _MOST_CURVES - 1
    chunks = [others[start : start + size] for start in range(0, len(others), size)] or [[]]
    return [tag("h3", key), *(_chart([base, *chunk]) for chunk in chunks)]


def _chart(curves: list[Found]) -> Markup:
    names = distinct([shorten(curve["group"], _LABEL) for curve in curves])
    columns = ("steps", "mean", "low", "high")
    data: dict[str, list[Any]] = {"setting": [], **{column: [] for column in columns}}
    begin = _begin(curves)
    for name, curve in zip(names, curves, strict=True):
        kept = [index for index, step in enumerate(curve["steps"]) if step >= begin]
        data["setting"] += [name] * len(kept)
        for column in columns:
            data[column] += [curve[column][index] for index in kept]
    data["step"] = data.pop("steps")
    drawn = charts.bands(data, x="step", y="mean", low="low", high="high", series="setting")
    caption = "Mean over seeds at the steps that all of them told; band: ± one standard error."
    from_there = f" From step {count(begin)} on: the steep beginning is left out." if begin else ""
    return figure(drawn, caption + from_there)


def _begin(curves: list[Found]) -> int:
    """The first step that is drawn: the steep beginning would flatten all that comes after it."""
    if min(len(curve["steps"]) for curve in curves) < _MANY_POINTS:
        return 0
    return int(max(curve["steps"][-1] for curve in curves) * _BEGINNING)


def _runs(found: Found) -> Markup:
    rows = [
        [
            group["name"] if index == 0 else "",
            "–" if seed is None else str(seed),
            f"{value:.{_DIGITS}f}",
            code(run),
        ]
        for group in found["groups"]
        for index, (seed, value, run) in enumerate(
            zip(group["seeds"], group["values"], group["runs"], strict=True)
        )
    ]
    return table(["setting", "seed", found["metric"], "folder"], rows, numbers=[1, 2])


def _compared(found: Found) -> Content:
    groups = found["groups"]
    settings = [
        (key, bullets([told(group["setting"][key], key) for group in groups]))
        for key in groups[0]["setting"]
    ]
    marks = [f"{group['name']}: {mark}" for group in groups for mark in group["marks"]]
    return [
        paragraph(
            "Runs were set beside each other only after everything that can change a result "
            "(settings, code, data, tokenizer, rules, packages, device) was found equal, but for "
            "what is named here."
        ),
        facts(settings),
        more("Every run", _runs(found)),
        [tag("h3", "Marked: differences that nobody named"), bullets(marks)] if marks else None,
    ]
