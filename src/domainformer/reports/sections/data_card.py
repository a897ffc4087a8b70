"""The data card: source, size, time span, split, and what each column became and why."""

from __future__ import annotations

from typing import Any

import numpy as np

from domainformer.data.splits import ROLE_NAMES
from domainformer.reports.collect import Collected
from domainformer.reports.markup import (
    Content,
    Markup,
    bullets,
    facts,
    more,
    paragraph,
    shorten,
    table,
    tag,
)
from domainformer.reports.numbers import count, moment, share

_MOST_OPEN = 30


def data_section(run: Collected) -> Markup:
    """The section, as far as the run got."""
    return tag(
        "section",
        tag("h2", "Data"),
        facts(_source(run)),
        _split(run),
        _columns(run),
        _notes(run),
        id="data",
    )


def _source(run: Collected) -> list[tuple[Content, Content]]:
    data: dict[str, Any] = run.record.config.get("data") or {}
    rows: list[tuple[Content, Content]] = [
        ("source", data.get("path") or "a table given in memory"),
        ("entity column", data.get("entity")),
        ("time column", data.get("time") or "none: the order of the rows"),
        ("label column", data.get("label")),
    ]
    counts = run.counts
    if counts is None:
        return rows
    lengths = counts.entity_events
    rows += [
        ("events", count(int(counts.events.sum()))),
        ("entities", count(len(lengths))),
        (
            "events per entity",
            f"mean {lengths.mean():,.1f}, median {np.median(lengths):,.0f}, most {lengths.max():,}",
        ),
    ]
    if data.get("time") and counts.first_time is not None and counts.last_time is not None:
        ends = (moment(end, run.time_kind) for end in (counts.first_time, counts.last_time))
        rows.append(("time span", " to ".join(ends)))
    return rows


def _split(run: Collected) -> Content:
    record = run.record.split
    if record is None:
        return paragraph("The events were not split yet.", quiet=True)
    if record.get("kind") == "time":
        how = "Later time is held out: training ends where validation begins, and so on."
        starts = ["the first event", record.get("validation_from"), record.get("test_from")]
    else:
        how = f"Other entities are held out, drawn by a hash of their id (seed {record['seed']})."
        starts = [f"{part:.0%} of entities" for part in record.get("fractions", [])]
    starts += [""] * (3 - len(starts))
    events, entities = record.get("events", {}), record.get("entities", {})
    total = sum(events.values()) or 1
    rows = [
        [
            name,
            f"{count(events.get(name))} ({share(events.get(name, 0) / total)})",
            count(entities.get(name)),
            str(start),
        ]
        for name, start in zip(ROLE_NAMES, starts, strict=True)
    ]
    title = "from" if record.get("kind") == "time" else "share"
    return [
        tag("h3", "Split"),
        paragraph(how, " Bins, vocabularies and text pieces were fitted on training events only."),
        table(["part", "events", "entities", title], rows, numbers=(1, 2)),
    ]


def _columns(run: Collected) -> Content:
    if not run.columns:
        return None
    rows = [
        [
            tag("strong", shorten(row.column, 40)),
            row.dtype,
            row.found,
            [tag("div", line) for line in row.becomes] or f"({row.role})",
            row.reason,
        ]
        for row in run.columns
    ]
    found = any(row.found for row in run.columns)
    head = ["column", "type", "what is in it", "becomes", "because"]
    if not found:
        rows = [[row[0], row[3], row[4]] for row in rows]
        head = ["column", "becomes", "remark"]
    order = " → ".join(slot.field for slot in run.tokenizer.slots) if run.tokenizer else ""
    shown = table(head, rows)
    return [
        tag("h3", "Schema"),
        paragraph("One event: ", _order(order.split(" → ")), "."),
        shown if len(rows) <= _MOST_OPEN else more(f"All {len(rows)} columns", shown),
    ]


def _order(names: list[str]) -> str:
    return " → ".join(dict.fromkeys(names))


def _notes(run: Collected) -> Content:
    return [tag("h3", "Notes"), bullets(run.notes)] if run.notes else None
