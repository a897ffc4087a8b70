"""Explanation: which fields and events the scores lean on, and some histories in colour."""

from __future__ import annotations

from typing import Any

from domainformer.reports import charts
from domainformer.reports.collect import Collected
from domainformer.reports.markup import (
    Content,
    Markup,
    bullets,
    distinct,
    figure,
    more,
    paragraph,
    shorten,
    table,
    tag,
)
from domainformer.reports.numbers import count, share

# Blue speaks for, orange against: told apart in all common kinds of colour blindness, and every
# figure carries its sign besides.
_FOR, _AGAINST = "37, 99, 235", "234, 88, 12"
_DARKEST, _FAINTEST = 0.55, 0.04
_NEWEST = 8  # events that are shown at once; older ones are folded away
_MOST_FEATURES = 12
_ZERO = "0"


def explanation_section(run: Collected) -> Markup:
    """The section of a run; without an explanation it is left out."""
    return Markup("") if run.explanation is None else draw(run.explanation)


def draw(told: dict[str, Any]) -> Markup:
    """An explanation as a section.

    Args:
        told: As :func:`~domainformer.reports.explanations.tell` gives it.
    """
    return tag(
        "section",
        tag("h2", "Explanation: what the score leans on"),
        _what(told),
        _importances(told),
        _check(told),
        _histories(told["histories"]),
        _attention(told),
        bullets(told["notes"]),
        id="explanation",
    )


def _what(told: dict[str, Any]) -> Content:
    how = {
        "integrated-gradients": "integrated gradients on the embeddings",
        "occlusion": "occlusion (each value is taken away in turn)",
    }[told["method"]]
    baseline = told["settings"].get("baseline")
    against = {
        "missing": ", against the same history with every value missing",
        "mean": ", against the average value of every field",
    }.get(baseline or "", "")
    closing = ""
    if told["convergence"]:
        gap = told["convergence"]["relative_gap"]
        steps = int(told["convergence"]["steps"])
        closing = f" With {steps} steps the attributions miss {share(gap)} of what they sum up to."
    return [
        paragraph(
            "Explained: ",
            tag("strong", told["subject"]),
            f", of {count(told['n_examples'])} examples. {told['model']} Method: {how}{against}."
            + closing,
        ),
        paragraph(tag("strong", "What this is not. "), told["disclaimer"]),
    ]


def _importances(told: dict[str, Any]) -> Content:
    summary = told["summary"]
    if summary is None:
        return None
    fields = summary["fields"][:20]
    names = distinct([shorten(row["name"], 24) for row in fields])
    of_fields = charts.importances(
        {"name": names, **{key: [row[key] for row in fields] for key in _FIGURES}},
        **_AXES,
        y="name",
        title="Importance of each field",
    )
    cards = [
        figure(
            of_fields,
            "Mean over examples of Σ |attribution|, in units of the score, with bootstrap 95 % "
            "intervals.",
        )
    ]
    distances = summary["distances"]
    if distances:
        of_distances = charts.importances(
            {
                "back": [_back(row["distance"], told["asks_next"]) for row in distances],
                **{key: [row[key] for row in distances] for key in _FIGURES},
            },
            **_AXES,
            y="back",
            title="Importance by distance from the end",
        )
        cards.append(figure(of_distances, "The same, by how many events back the value stands."))
    return tag("div", [tag("div", card, _class="card") for card in cards], _class="grid")


_FIGURES = ("importance", "low", "high")
_AXES = {"x": "importance", "low": "low", "high": "high"}


def _check(told: dict[str, Any]) -> Content:
    permuted = told["permuted"]
    if not permuted or told["summary"] is None:
        return None
    shares = {(row["name"], row["kind"]): row["share"] for row in told["summary"]["fields"]}
    rows = [
        [
            tag("strong", shorten(row["name"], 30)),
            share(shares.get((row["name"], row["kind"]))),
            f"{row['moved']:.3f}",
            "–" if row["worse"] is None else f"{row['worse']:+.3f}",
        ]
        for row in permuted
    ]
    agreement = told["agreement"]
    said = (
        "" if agreement is None else f" The two rankings correlate by {agreement:.2f} (Spearman)."
    )
    caption = (
        "A check that uses no attribution: the values of one field are dealt out anew among all "
        "events; scores move by so much, and the mean loss (where the truth is known) rises by so "
        "much." + said
    )
    head = ["field", "share of importance", "scores move", "loss rises"]
    return [
        tag("h3", "Checked by permutation"),
        table(head, rows, numbers=(1, 2, 3), caption=caption),
    ]


def _histories(histories: list[dict[str, Any]]) -> Content:
    """All in one scale of colour, so that the weak reasons of one do not look like strong ones."""
    values = [
        abs(part["attribution"])
        for history in histories
        for part in (
            *(unit for event in history["events"] for unit in event["units"]),
            *history["features"],
        )
    ]
    largest = max(values, default=0.0) or 1.0
    return [_history(history, largest) for history in histories]


def _history(history: dict[str, Any], largest: float) -> Content:
    events = [_event(event, largest, history["asks_next"]) for event in history["events"]]
    newest, older = events[:_NEWEST], events[_NEWEST:]
    choice = f" ({shorten(history['choice'], 40)})" if history["choice"] is not None else ""
    features = [
        _unit(feature["feature"], "", feature["attribution"], largest)
        for feature in history["features"][:_MOST_FEATURES]
    ]
    return [
        tag("h3", f"Example {shorten(history['key'], 30)}"),
        paragraph(
            f"Score {history['score']:+.3f}{choice}; with nothing known "
            f"{history['baseline']:+.3f}. Newest event first. Blue (+) speaks for, orange (−) "
            "against; the deeper, the more.",
            quiet=True,
        ),
        _line(["tabular features"], features) if features else None,
        tag("div", newest, _class="example"),
        more(f"{len(older)} older events", tag("div", older, _class="example")) if older else None,
    ]


def _event(event: dict[str, Any], largest: float, asks_next: bool) -> Markup:
    total = sum(unit["attribution"] for unit in event["units"])
    units = [
        _unit(unit["field"] or "whole event", unit["value"] or "", unit["attribution"], largest)
        for unit in event["units"]
    ]
    return _line([_back(event["distance"], asks_next), tag("br"), tag("b", _signed(total))], units)


def _line(when: Content, units: Content) -> Markup:
    return tag("div", tag("span", when, _class="when"), tag("div", units), _class="event lined")


def _unit(name: str, value: str, attribution: float, largest: float) -> Markup:
    depth = _FAINTEST + (_DARKEST - _FAINTEST) * abs(attribution) / largest
    colour = _FOR if attribution >= 0 else _AGAINST
    seen = _signed(attribution)
    return tag(
        "span",
        tag("i", shorten(name, 24), " "),
        shorten(value, 40) if value else "",
        " ",
        tag("b", seen),
        _class="unit",
        style=f"background: rgba({colour}, {depth:.2f})" if seen != _ZERO else None,
    )


def _signed(value: float) -> str:
    """Two decimals with a sign; what rounds to nothing has none."""
    text = f"{value:+.2f}"
    return _ZERO if float(text) == 0 else text.replace("-", "−")


def _back(distance: int, asks_next: bool) -> str:
    if distance == 0:
        return "same event" if asks_next else "newest"
    return f"{distance} before"


def _attention(told: dict[str, Any]) -> Content:
    found = told.get("attention")
    if not found:
        return None
    rows = [
        [tag("strong", row["field"] or "BOS"), share(row["attention"])] for row in found["by_field"]
    ]
    caption = (
        f"Share of the last token's attention by field, mean over layers and heads, in the history "
        f"of {shorten(found['key'], 30)}."
    )
    return more(
        "attention (not an explanation)",
        paragraph(tag("strong", found["label"])),
        table(["field", "attention"], rows, numbers=(1,), caption=caption),
    )
