"""Evaluation: the next event per position, the model against what needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domainformer.reports import charts
from domainformer.reports.collect import Collected
from domainformer.reports.markup import (
    Content,
    Markup,
    badge,
    bullets,
    code,
    distinct,
    figure,
    more,
    paragraph,
    shorten,
    table,
    tag,
)
from domainformer.reports.numbers import count, signed
from domainformer.reports.verdicts import (
    ASKED,
    FREQUENCY,
    LOWER_IS_BETTER,
    MODEL,
    POPULAR,
    REPEAT,
    slot_difference,
    slot_name,
    slots_of,
    verdict,
)

Slots = Sequence[dict[str, Any]]

_CONTESTANTS = {
    MODEL: "model",
    POPULAR: "most popular",
    REPEAT: "repeat last",
    FREQUENCY: "own frequency",
}
_VIEWS = {
    "history_only": (
        "From the history alone",
        "Model and baselines know the entity's history and nothing of the event itself. "
        "This is the fair contest, and the headline.",
    ),
    "within_event": (
        "Within the event",
        "The model reads an event field by field, so a later field may look at earlier fields of "
        "the same event. No baseline can do that: the view shows how the model divides its work, "
        "not who wins.",
    ),
}
_METRICS = {
    "accuracy": "Accuracy (share of right guesses; higher is better)",
    "log_loss": "Log-loss (nats; lower is better)",
}
_BADGES = {"ahead": "good", "even": "even", "behind": "bad"}


def contest_section(run: Collected) -> Markup:
    """The section; without an evaluation the command that makes one."""
    if run.evaluation is None:
        body: Content = paragraph(
            "The model was not evaluated yet: ", code(f"domainformer evaluate {run.folder}"), "."
        )
        return tag("section", tag("h2", "Evaluation"), body, id="evaluation")
    found = run.evaluation["next_event"]
    return tag(
        "section",
        tag("h2", "Evaluation: the next event"),
        _method(found),
        [_view(view, slots_of(run.evaluation, view)) for view in _VIEWS],
        _texts(found.get("text") or []),
        bullets(run.evaluation.get("notes") or []),
        id="evaluation",
    )


def _method(found: dict[str, Any]) -> Content:
    nats = found["event_log_loss"]
    whole = "" if nats is None else f"; one whole event costs the model {nats:.2f} nats"
    return [
        paragraph(
            f"{count(found['events'])} of {count(found['candidates'])} {found['role']} events of "
            f"{count(found['entities'])} entities{whole}.",
        ),
        paragraph(
            "Most popular: the frequencies of training events. Repeat last: the entity's previous "
            "event again. Own frequency: the entity's own past, smoothed; a third baseline, often "
            "the strongest. Differences are model minus the better of the first two, on the same "
            "events, with a 95 % interval over entities; a verdict is given only where that "
            "interval leaves zero out.",
            quiet=True,
        ),
    ]


def _view(view: str, slots: Slots) -> Content:
    if not slots:
        return None
    title, meaning = _VIEWS[view]
    names = distinct([shorten(slot_name(slot), 30) for slot in slots])
    tables = [_table(slots, metric) for metric in _METRICS]
    charts_row = [_accuracies(slots, names)]
    charts_row += [_differences(slots, names, metric) for metric in _METRICS]
    return [
        tag("h3", title),
        paragraph(meaning),
        tag("div", [tag("div", one, _class="card") for one in charts_row], _class="grid"),
        tables if view == "history_only" else more("figures per position", *tables),
    ]


def _accuracies(slots: Slots, names: list[str]) -> Markup:
    rows = [
        (name, _CONTESTANTS[who], slot["accuracy"][who])
        for name, slot in zip(names, slots, strict=True)
        for who in _CONTESTANTS
        if who in slot["accuracy"]
    ]
    data = dict(zip(("position", "contestant", "accuracy"), zip(*rows, strict=True), strict=True))
    return figure(
        charts.grouped_bars(data, x="accuracy", y="position", series="contestant", title="Accuracy")
    )


def _differences(slots: Slots, names: list[str], metric: str) -> Markup:
    gains = [slot_difference(slot, metric) for slot in slots]
    data: dict[str, list[Any]] = {
        "position": names,
        **{key: [gain[key] for gain in gains] for key in ("value", "low", "high")},
        "verdict": [verdict(gain, metric) for gain in gains],
    }
    better = "left" if metric in LOWER_IS_BETTER else "right"
    label = "log-loss (nats)" if metric == "log_loss" else metric
    drawn = charts.intervals(
        data,
        x="value",
        low="low",
        high="high",
        y="position",
        verdict="verdict",
        title=f"Difference in {label}",
    )
    return figure(drawn, f"Model minus the better baseline, 95 % interval; {better} is better.")


def _table(slots: Slots, metric: str) -> Markup:
    rows = []
    for slot in slots:
        gain = slot_difference(slot, metric)
        decided = verdict(gain, metric)
        rows.append(
            [
                tag("strong", slot_name(slot)),
                count(slot["ids"]),
                *(_figure_of(slot, metric, who) for who in _CONTESTANTS),
                signed(gain),
                badge(decided, _BADGES[decided]),
            ]
        )
    head = ["position", "ids", *_CONTESTANTS.values(), "difference [95 %]", ""]
    return table(head, rows, numbers=range(1, 7), caption=_METRICS[metric])


def _figure_of(slot: dict[str, Any], metric: str, who: str) -> Content:
    """A figure, bold where no other contestant of the asked-for three does better."""
    values = slot[metric]
    if who not in values:
        return ""
    best = (min if metric in LOWER_IS_BETTER else max)(values[one] for one in (MODEL, *ASKED))
    text = f"{values[who]:.3f}"
    return tag("strong", text) if who != FREQUENCY and values[who] == best else text


def _texts(texts: Slots) -> Content:
    if not texts:
        return None
    rows = [
        [
            tag("strong", text["field"]),
            count(text["tokens"]),
            f"{text['log_loss'][MODEL]:.3f}",
            f"{text['log_loss'][POPULAR]:.3f}",
        ]
        for text in texts
    ]
    return [
        tag("h3", "Text"),
        paragraph(
            "Nats per text token, given all that stands before it; most popular knows the "
            "frequency of tokens in training texts."
        ),
        table(["field", "tokens", "model", "most popular"], rows, numbers=(1, 2, 3)),
    ]
