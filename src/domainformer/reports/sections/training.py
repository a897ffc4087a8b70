"""Training: curves of loss, throughput and learning rate, and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domainformer.reports import charts
from domainformer.reports.collect import Collected
from domainformer.reports.markup import Content, Markup, facts, figure, paragraph, tag
from domainformer.reports.numbers import compact, count, duration

_MOST_POINTS = 300
Rows = Sequence[dict[str, float]]


def training_section(run: Collected) -> Markup:
    """The section; one line before the first metrics."""
    body: Content = (
        [_curves(run.metrics)]
        if run.metrics
        else paragraph("There are no metrics yet: the training has not logged a step.", quiet=True)
    )
    return tag("section", tag("h2", "Training"), facts(_facts(run)), body, id="training")


def _facts(run: Collected) -> list[tuple[Content, Content]]:
    resolved, results = run.record.resolved, run.record.results or {}
    plan: dict[str, Any] = resolved.get("plan") or {}
    config: dict[str, Any] = run.record.config.get("training") or {}
    rows: list[tuple[Content, Content]] = [
        ("model", (run.record.config.get("model") or {}).get("preset")),
        ("parameters", compact(resolved["parameters"]) if "parameters" in resolved else None),
        ("context", f"{config['context']:,} tokens" if config.get("context") else None),
    ]
    if plan:
        per_step = plan["rows"] * plan["accumulation"]
        steps = results.get("steps")
        rows += [
            (
                "steps",
                f"{count(steps)} of {count(plan['steps'])}" if steps else count(plan["steps"]),
            ),
            ("rows per step", count(per_step)),
            ("learning rate", f"{plan['learning_rate']:g} peak, cosine with warm-up"),
            ("precision", "bf16 autocast" if plan.get("bf16") else "fp32"),
        ]
    rows += [
        ("device", device_of(resolved)),
        ("tokens seen", compact(results["tokens"]) if "tokens" in results else None),
        ("time", duration(results["seconds"]) if "seconds" in results else None),
        (
            "throughput",
            f"{count(results['tokens_per_second'])} tokens/s"
            if results.get("tokens_per_second")
            else None,
        ),
        (
            "best validation loss",
            f"{results['eval_loss']:.4f} at step {count(results.get('best_step'))}"
            if results.get("eval_loss") is not None
            else None,
        ),
    ]
    return rows


def device_of(resolved: dict[str, Any]) -> str | None:
    """Where a run was trained, in words; None before it is known."""
    if "device" not in resolved:
        return None
    threads = resolved.get("threads")
    if not threads:
        return str(resolved["device"])
    return f"{resolved['device']}, {threads} thread{'s' if threads > 1 else ''}"


def _curves(metrics: Rows) -> Markup:
    trained = thinned([row for row in metrics if "loss" in row])
    judged = thinned([row for row in metrics if "eval_loss" in row])
    drawn = [_losses(trained, judged)]
    for key, title in (("tokens_per_second", "Tokens per second"), ("lr", "Learning rate")):
        rows = [row for row in trained if key in row]
        if rows:
            data: charts.Columns = {
                "step": [row["step"] for row in rows],
                "value": [row[key] for row in rows],
            }
            drawn.append(figure(charts.lines(data, x="step", y="value", title=title)))
    return tag("div", [tag("div", one, _class="card") for one in drawn], _class="grid")


def _losses(trained: Rows, judged: Rows) -> Markup:
    curves = [("training", row, row["loss"]) for row in trained]
    curves += [("validation", row, row["eval_loss"]) for row in judged]
    data: charts.Columns = {
        "step": [row["step"] for _, row, _ in curves],
        "loss": [loss for _, _, loss in curves],
        "curve": [name for name, _, _ in curves],
    }
    drawn = charts.lines(data, x="step", y="loss", series="curve", title="Loss")
    return figure(drawn, "Nats per token; training as logged, validation on held-out events.")


def thinned(rows: Rows) -> Rows:
    """Evenly chosen rows, the last always among them."""
    if len(rows) <= _MOST_POINTS:
        return rows
    step = (len(rows) - 1) / (_MOST_POINTS - 1)
    return [rows[round(index * step)] for index in range(_MOST_POINTS)]
