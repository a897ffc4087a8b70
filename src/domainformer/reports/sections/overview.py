"""The top of the page: which run this is, and its result in one sentence and a row of figures."""

from __future__ import annotations

from collections.abc import Sequence

from domainformer.reports.collect import Collected
from domainformer.reports.markup import Content, Markup, badge, bullets, tag
from domainformer.reports.numbers import bracketed, compact, count
from domainformer.reports.verdicts import ahead_in_figures, headline_view, slots_of
from domainformer.run import RunRecord

_STATUS = {"finished": "good", "failed": "bad", "interrupted": "bad"}


def overview(run: Collected) -> Markup:
    """Title, status, figures, headline."""
    return heading(run.record, _tiles(run), _headlines(run))


def heading(
    record: RunRecord, tiles: Sequence[tuple[str, str, str]], lines: Sequence[Content]
) -> Markup:
    """The top of a page about a run.

    Args:
        record: Its identity.
        tiles: Figures: name, value, remark.
        lines: What to know first.
    """
    version = record.code_version.get("domainformer")
    line = f"{record.kind} · {record.created.replace('T', ' ')[:16]} UTC · domainformer {version}"
    return tag(
        "header",
        tag("p", "domainformer run report", _class="kicker"),
        tag("h1", record.name, " ", badge(record.status, _STATUS.get(record.status, "even"))),
        tag("p", line, " · run ", tag("code", record.id), _class="quiet"),
        tag("p", record.error, _class="alarm") if record.error else None,
        tag("div", [_tile(name, value, note) for name, value, note in tiles], _class="tiles"),
        bullets(lines),
    )


def _tile(name: str, value: str, note: str) -> Markup:
    return tag(
        "div",
        tag("span", name, _class="name"),
        tag("strong", value),
        tag("span", note, _class="note"),
        _class="tile",
    )


def _tiles(run: Collected) -> list[tuple[str, str, str]]:
    tiles = []
    if run.counts is not None:
        events = int(run.counts.events.sum())
        tiles.append(
            ("events", compact(events), f"{count(len(run.counts.entity_events))} entities")
        )
    if run.tokenizer is not None:
        positions = f"{len(run.tokenizer.slots)} positions per event"
        tiles.append(("vocabulary", compact(run.tokenizer.vocab_size), positions))
    if "parameters" in run.record.resolved:
        preset = (run.record.config.get("model") or {}).get("preset", "")
        tiles.append(("parameters", compact(run.record.resolved["parameters"]), str(preset)))
    results = run.record.results or {}
    if results.get("eval_loss") is not None:
        steps = f"nats per token, step {count(results.get('best_step'))}"
        tiles.append(("validation loss", f"{results['eval_loss']:.3f}", steps))
    slots = slots_of(run.evaluation, headline_view(run.evaluation))
    if slots:
        won = sum(map(ahead_in_figures, slots))
        tiles.append(("beats both baselines", f"{won} of {len(slots)}", "positions of an event"))
    if run.probe is not None:
        metric, cells = _first_figure(run.probe)
        best = cells.get("both") or cells["embeddings"]
        shown = "both" if "both" in cells else "embeddings"
        tiles.append((f"probe {metric}", f"{best['value']:.3f}", f"features: {shown}"))
    return tiles


def _headlines(run: Collected) -> list[Content]:
    lines: list[Content] = []
    slots = slots_of(run.evaluation, headline_view(run.evaluation))
    if slots:
        won = sum(map(ahead_in_figures, slots))
        given = (
            "given the history alone"
            if headline_view(run.evaluation) == "history_only"
            else "given the history and earlier fields of the event"
        )
        lines.append(
            f"On held-out events the model is ahead of both baselines (most popular and repeat "
            f"last) in accuracy and in log-loss on {won} of {len(slots)} positions, {given}."
        )
    if run.probe is not None:
        metric, cells = _first_figure(run.probe)
        told = ", ".join(f"{name} {bracketed(cell)}" for name, cell in cells.items())
        lines.append(f"Probe of {run.probe['label']!r}, {metric} with 95 % interval: {told}.")
    return lines


def _first_figure(
    probe: dict[str, dict[str, dict[str, dict[str, float]]]],
) -> tuple[str, dict[str, dict[str, float]]]:
    figures = probe["figures"]
    metric = next(iter(next(iter(figures.values()))))
    return _title(metric), {name: row[metric] for name, row in figures.items()}


def _title(metric: str) -> str:
    return {"auroc": "AUROC", "auprc": "AUPRC", "r_squared": "R²", "rmse": "RMSE"}.get(
        metric, metric.replace("_", "-")
    )
