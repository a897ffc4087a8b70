"""What to try next, read off the figures of this very run."""

from __future__ import annotations

from domainformer.reports.collect import Collected
from domainformer.reports.markup import Content, Markup, bullets, code, paragraph, tag
from domainformer.reports.numbers import share
from domainformer.reports.verdicts import (
    headline_view,
    slot_difference,
    slot_name,
    slots_of,
    verdict,
)

_MUCH_UNKNOWN, _MUCH_CUT, _RISE, _SOME = 0.05, 0.2, 1.01, 4


def next_section(run: Collected) -> Markup:
    """The section; commands work as they stand, with the run's own folder."""
    advice = [*_training(run), *_weak_spots(run), *_vocabulary(run)]
    return tag(
        "section",
        tag("h2", "What to try next"),
        bullets(advice) if advice else None,
        paragraph("Commands for this run:"),
        tag("pre", "\n".join(_commands(run))),
        id="next",
    )


def _training(run: Collected) -> list[Content]:
    judged = [(row["step"], row["eval_loss"]) for row in run.metrics if "eval_loss" in row]
    if len(judged) < 3:
        return []
    step, best = min(judged, key=lambda pair: pair[1])
    last_step, last = judged[-1]
    if step == last_step:
        return [
            [
                "The validation loss was still falling at the end: train longer, with ",
                code("training.max_tokens"),
                " or ",
                code("training.epochs"),
                ".",
            ]
        ]
    if last > _RISE * best:
        return [
            f"The validation loss rose from {best:.3f} (step {step:,.0f}) to {last:.3f}: the model "
            "began to learn training events by heart. The weights of the best step were kept; more "
            "entities, more weight decay or a smaller model would help further."
        ]
    return ["The validation loss had levelled off: a larger model.preset is the next lever."]


def _weak_spots(run: Collected) -> list[Content]:
    slots = slots_of(run.evaluation, headline_view(run.evaluation))
    weak = [
        slot_name(slot)
        for slot in slots
        if verdict(slot_difference(slot, "log_loss"), "log_loss") == "behind"
    ]
    if not weak:
        return []
    named = ", ".join(weak[:_SOME]) + (
        f" and {len(weak) - _SOME} more" if len(weak) > _SOME else ""
    )
    return [
        f"The model is behind a baseline in log-loss on {named}. Before training longer, look "
        "under Tokens whether their training and test shares differ (drift)."
    ]


def _vocabulary(run: Collected) -> list[Content]:
    advice: list[Content] = []
    for one in run.slots:
        unknown = one.unknown.get("test")
        if unknown is not None and unknown > _MUCH_UNKNOWN:
            advice.append(
                [
                    f"{share(unknown)} of the test values of {one.slot.name} are unknown: lower ",
                    "its ",
                    code("min_frequency"),
                    ", or declare it as text.",
                ]
            )
    context = (run.record.config.get("training") or {}).get("context")
    if context and run.counts is not None:
        longer = float((run.counts.entity_tokens + 1 > context).mean())
        if longer > _MUCH_CUT:
            advice.append(
                [
                    f"{share(longer)} of the histories are longer than the context of {context:,} "
                    "tokens and were cut into windows: try a larger ",
                    code("training.context"),
                    ".",
                ]
            )
    return advice


def _commands(run: Collected) -> list[str]:
    folder = run.folder
    table = (run.record.config.get("data") or {}).get("path") or "TABLE"
    probe = run.probe or {}
    label = probe.get("label") or (run.record.config.get("data") or {}).get("label") or "COLUMN"
    lines = []
    if run.evaluation is None:
        lines.append(f"domainformer evaluate {folder}")
    if run.probe is None:
        lines.append(f"domainformer evaluate {folder} --label {label}")
    lines += [
        f"domainformer generate {folder} {table} --entities 3",
        f"domainformer embed {folder} {table} --output embeddings.parquet",
        f"domainformer finetune {folder} {table} --label {label}",
        f"domainformer report {folder}",
    ]
    return lines
