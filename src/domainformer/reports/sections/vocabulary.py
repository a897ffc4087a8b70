"""Tokens: how each position of an event uses its vocabulary, and how long histories are."""

from __future__ import annotations

from typing import Any

import numpy as np

from domainformer.reports import charts
from domainformer.reports.collect import Collected
from domainformer.reports.example import ExampleToken
from domainformer.reports.markup import (
    Content,
    Markup,
    distinct,
    facts,
    figure,
    more,
    paragraph,
    shorten,
    table,
    tag,
)
from domainformer.reports.numbers import count, share
from domainformer.reports.tokens import SlotStatistics, StoreCounts, log_histogram

_MOST_ROWS, _MOST_PLAIN, _SHORT = 26, 2, 4
_TRAIN, _TEST = "training", "test"


def vocabulary_section(run: Collected) -> Markup:
    """The section; empty before the events were tokenized."""
    if run.tokenizer is None or run.counts is None:
        return Markup("")
    return tag(
        "section",
        tag("h2", "Tokens"),
        _example(run),
        tag("h3", "Positions of an event"),
        _slot_table(run),
        tag("h3", "Token shares"),
        paragraph(
            "Share of events with each token. Bars: training events, on which bins and "
            "vocabularies were fitted. Amber marks: test events; far from the bar means drift.",
            quiet=True,
        ),
        tag(
            "div", [_slot_chart(slot) for slot in run.slots if not slot.slot.ragged], _class="grid"
        ),
        tag("h3", "Lengths"),
        _lengths(run, run.counts),
        id="tokens",
    )


def _example(run: Collected) -> Content:
    if not run.example:
        return None
    assert run.tokenizer is not None
    fields = list(dict.fromkeys(slot.field for slot in run.tokenizer.slots))
    events = [
        tag("div", [_chip(token, fields.index(token.field)) for token in event], _class="event")
        for event in run.example
    ]
    return [
        tag("h3", "What the model reads"),
        paragraph("Three consecutive training events of one entity, token by token."),
        tag("div", events, _class="example"),
    ]


def _chip(token: ExampleToken, colour: int) -> Markup:
    """A token in the colour of its field; a text stands for its pieces."""
    pieces = f", {token.pieces} tokens" if token.pieces else ""
    return tag(
        "span",
        shorten(token.text, 60),
        _class=f"token t{colour % 6}" + (" raw" if token.pieces else ""),
        title=token.slot + pieces,
    )


def _slot_table(run: Collected) -> Markup:
    rows = []
    for one in run.slots:
        slot = one.slot
        rows.append(
            [
                tag("strong", slot.name),
                str(slot.kind).replace("_", " "),
                count(slot.width),
                count(one.used),
                share(one.missing["train"]),
                share(one.missing["test"]),
                share(one.unknown["train"]) if one.has_unknown else "",
                share(one.unknown["test"]) if one.has_unknown else "",
            ]
        )
    head = [
        "position",
        "kind",
        "tokens",
        "used",
        "missing, train",
        "test",
        "unknown, train",
        "test",
    ]
    caption = (
        "Used: tokens that occur in training events. Unknown: values outside the vocabulary "
        "(UNK and hash buckets of the tail)."
    )
    pieces = _pieces(run)
    return Markup(table(head, rows, numbers=range(2, 8), caption=caption) + (pieces or ""))


def _pieces(run: Collected) -> Markup | None:
    """The text pieces, which all text fields share."""
    assert run.tokenizer is not None
    assert run.counts is not None
    ids = run.tokenizer.bpe_ids
    if not len(ids):
        return None
    used = run.counts.by_id[0, ids]
    top = np.argsort(-used, kind="stable")[:20]
    vocab = run.tokenizer.vocab
    shown = " · ".join(vocab[ids[i]].replace("Ġ", "␣") for i in top if used[i])
    per_event = used.sum() / max(1, int(run.counts.events[0]))
    return paragraph(
        f"Text: {len(ids):,} byte-pair tokens, {int((used > 0).sum()):,} of them used, "
        f"{per_event:.1f} per training event. Most frequent: ",
        tag("code", shown),
    )


def _slot_chart(one: SlotStatistics) -> Markup:
    tokens = one.tokens
    if not tokens:
        return Markup("")
    title = shorten(one.slot.name, 40)
    upright = one.ordered and _is_upright(one)
    labels = distinct(
        [_short(token.label) if upright else shorten(token.label, 30) for token in tokens]
    )
    data: dict[str, list[Any]] = {"label": labels, _TRAIN: [token.train for token in tokens]}
    has_test = tokens[0].test is not None
    if has_test:
        data[_TEST] = [token.test for token in tokens]
    draw = charts.share_columns if upright else charts.shares
    drawn = draw(data, label="label", train=_TRAIN, test=_TEST if has_test else None, title=title)
    caption = None
    if one.hidden:
        caption = f"and {one.hidden:,} more tokens with {share(one.hidden_share)} of the events"
    binned = sum(token.kind == "bin" for token in tokens) > _MOST_PLAIN
    listed = _all_tokens(one) if binned else None
    return tag("div", figure(drawn, caption), listed, _class="card")


def _is_upright(one: SlotStatistics) -> bool:
    """Short labels stand well under columns; many bins fit no other way."""
    longest = max((len(t.label) for t in one.tokens if t.kind != "missing"), default=0)
    return len(one.tokens) > _MOST_ROWS or (longest <= _SHORT and len(one.tokens) > _MOST_PLAIN)


def _short(label: str) -> str:
    """The lower end of an interval; other labels as they are."""
    if label[:1] in "[(" and "," in label:
        return label[1:].split(",")[0]
    return {"missing": "∅", "unknown (UNK)": "UNK"}.get(label, label.split(" – ")[0])


def _all_tokens(one: SlotStatistics) -> Markup:
    rows = [
        [token.token, token.label, share(token.train), share(token.test)] for token in one.tokens
    ]
    return more(
        "all bins", table(["token", "stands for", "training", "test"], rows, numbers=(2, 3))
    )


def _lengths(run: Collected, counts: StoreCounts) -> Content:
    context = (run.record.config.get("training") or {}).get("context")
    per_event = counts.event_tokens
    widths = np.flatnonzero(per_event)
    mean = float((per_event * np.arange(len(per_event))).sum() / max(1, per_event.sum()))
    rows: list[tuple[Content, Content]] = [
        ("tokens", count(counts.n_tokens)),
        ("tokens per event", f"mean {mean:.1f}, {widths.min()} to {widths.max()}"),
        ("tokens per entity", _quantiles(counts.entity_tokens)),
    ]
    if context:
        longer = float((counts.entity_tokens + 1 > context).mean())
        rows.append(("context", f"{context:,} tokens; {share(longer)} of histories are longer"))
    events = log_histogram(counts.entity_events)
    tokens = log_histogram(counts.entity_tokens)
    drawn = [
        figure(
            charts.columns(
                {"events per entity": events["label"], "entities": events["count"]},
                x="events per entity",
                y="entities",
                title="Entities by their number of events",
            )
        ),
        figure(
            charts.columns(
                {"tokens per entity": tokens["label"], "entities": tokens["count"]},
                x="tokens per entity",
                y="entities",
                title="Entities by their number of tokens",
            )
        ),
    ]
    if len(widths) > 1:
        drawn.append(
            figure(
                charts.columns(
                    {
                        "tokens per event": [str(width) for width in widths],
                        "events": per_event[widths].tolist(),
                    },
                    x="tokens per event",
                    y="events",
                    title="Events by their number of tokens",
                )
            )
        )
    cards = [tag("div", one, _class="card") for one in drawn]
    return [facts(rows), tag("div", cards, _class="grid")]


def _quantiles(values: Any) -> str:
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9])
    return (
        f"median {middle:,.0f}, 80 % between {low:,.0f} and {high:,.0f}, most {int(values.max()):,}"
    )
