"""How a language model was trained: settings, what it took, and every curve that was logged."""

from __future__ import annotations

from typing import Any

from domainformer.reports import charts
from domainformer.reports.language_run import LanguageRun
from domainformer.reports.markup import (
    Content,
    Markup,
    facts,
    figure,
    more,
    paragraph,
    tag,
)
from domainformer.reports.numbers import compact, count, duration
from domainformer.reports.sections.training import Rows, device_of, thinned

_RULE = "rule_"
_TITLES = {
    "lr": "Learning rate",
    "tokens_per_second": "Tokens per second",
    "grad_norm": "Gradient norm",
}
_DRAWN = ("step", "tokens", "loss", "eval_loss")  # drawn together, or the axis itself
_MOST_CHARTS = 24
_TITLE = 40


def language_training_section(run: LanguageRun) -> Markup:
    """The section; one line before the first metrics."""
    body: Content = (
        [_losses(run.metrics, run.results.get("unigram_nats")), _others(run.metrics)]
        if any("loss" in row or "eval_loss" in row for row in run.metrics)
        else paragraph("There are no metrics yet: the training has not logged a step.", quiet=True)
    )
    return tag("section", tag("h2", "Training"), facts(_facts(run)), body, id="training")


def _facts(run: LanguageRun) -> list[tuple[Content, Content]]:
    resolved, results, settings = run.resolved, run.results, run.settings("training")
    plan: dict[str, Any] = resolved.get("plan") or {}
    seen = max((row["tokens"] for row in run.metrics if "tokens" in row), default=None)
    done = max((row["step"] for row in run.metrics if "step" in row), default=None)
    passes = seen / run.split["train_tokens"] if seen and run.split.get("train_tokens") else None
    context = settings.get("context")
    rows: list[tuple[Content, Content]] = []
    if plan:
        per_step = plan["rows"] * plan["accumulation"]
        rate = (
            f"{plan['learning_rate']:g} peak, warm-up {plan.get('warmup_ratio', 0):.0%}, down to "
        )
        rows = [
            ("steps", f"{count(done)} of {count(plan['steps'])}"),
            ("batch", f"{count(per_step)} rows of {count(context)} tokens"),
            ("learning rate", f"{rate}{plan.get('final_rate', 0):.0%}"),
            ("weight decay", f"{plan['weight_decay']:g}" if "weight_decay" in plan else None),
            ("precision", "bf16 autocast" if plan.get("bf16") else "fp32"),
            ("compiled", plan.get("compile")),
        ]
    return [
        *rows,
        ("device", device_of(resolved)),
        ("tokens seen", compact(seen) if seen else None),
        ("passes over the text", f"{passes:.2f}" if passes else None),
        ("time", duration(results["seconds"]) if "seconds" in results else None),
        (
            "throughput",
            f"{count(results['tokens_per_second'])} tokens/s"
            if results.get("tokens_per_second")
            else None,
        ),
        ("seed", str(settings["seed"]) if "seed" in settings else None),
    ]


def _losses(metrics: Rows, unigram: float | None) -> Markup:
    curves = [
        (name, row["step"], row[key])
        for name, key in (("training", "loss"), ("validation", "eval_loss"))
        for row in thinned([row for row in metrics if key in row])
    ]
    steps = [step for _, step, _ in curves]
    if unigram is not None:
        curves += [("frequencies alone", step, unigram) for step in (min(steps), max(steps))]
    data: charts.Columns = {
        "step": [step for _, step, _ in curves],
        "loss": [loss for _, _, loss in curves],
        "curve": [name for name, _, _ in curves],
    }
    drawn = charts.lines(data, x="step", y="loss", series="curve", title="Loss", wide=True)
    return figure(
        drawn,
        "Nats per token. Training as logged, with whatever rules and dropout do to it; validation "
        "on some windows of the held-out text, without.",
    )


def _others(metrics: Rows) -> Content:
    """Small charts of everything else that was logged; numbers of rules under a heading."""
    keys = list(dict.fromkeys(key for row in metrics for key in row if key not in _DRAWN))
    rules = [key for key in keys if key.startswith(_RULE)]
    plain = [key for key in [*_TITLES, *keys] if key in keys and key not in rules]
    told = list(dict.fromkeys(plain))[:_MOST_CHARTS]
    left = len(rules) - _MOST_CHARTS
    return [
        _grid(metrics, told),
        [tag("h3", "What the learning rules tell"), _grid(metrics, rules[:_MOST_CHARTS])]
        if rules
        else None,
        more(
            f"{count(left)} further numbers of rules",
            paragraph(", ".join(rules[_MOST_CHARTS:]) + ": in metrics.jsonl."),
        )
        if left > 0
        else None,
    ]


def _grid(metrics: Rows, keys: list[str]) -> Markup:
    return tag(
        "div", [tag("div", _chart(metrics, key), _class="card") for key in keys], _class="grid"
    )


def _chart(metrics: Rows, key: str) -> Markup:
    rows = thinned([row for row in metrics if key in row])
    data: charts.Columns = {
        "step": [row["step"] for row in rows],
        "value": [row[key] for row in rows],
    }
    name = key.removeprefix(_RULE)
    # The end of a long name tells the numbers of one rule apart.
    title = _TITLES.get(key, name if len(name) <= _TITLE else "…" + name[1 - _TITLE :])
    return figure(charts.lines(data, x="step", y="value", title=title))
