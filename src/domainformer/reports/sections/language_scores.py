"""How good a language model is on text that it was not trained on, beside honest yardsticks."""

from __future__ import annotations

import math

from domainformer.reports.language_run import LanguageRun
from domainformer.reports.markup import Content, Markup, facts, paragraph, table, tag
from domainformer.reports.numbers import count

_LAST_LOSSES = 10


def scores_section(run: LanguageRun) -> Markup:
    """The section; what is known so far where the run is not finished."""
    return tag(
        "section",
        tag("h2", "Scores"),
        _table(run) if "nats" in run.results else _unfinished(run),
        facts(_facts(run)),
        id="scores",
    )


def yardsticks(run: LanguageRun) -> list[tuple[str, float]]:
    """What takes no model: names and nats per token, the best first."""
    found: list[tuple[str, float]] = []
    if run.results.get("unigram_nats") is not None:
        what = "character" if run.alphabet is not None else "token"
        found.append((f"frequencies of {what}s alone", run.results["unigram_nats"]))
    if run.resolved.get("vocab_size"):
        size = run.resolved["vocab_size"]
        found.append((f"a uniform guess among {count(size)}", math.log(size)))
    return found


def bits_per_character(run: LanguageRun, nats: float) -> float:
    """Nats per token of the validation text as bits per character."""
    # The run's own figures hold the tokens of a character.
    return nats * float(run.results["bits_per_character"]) / float(run.results["nats"])


def best_validation(run: LanguageRun) -> tuple[float, int] | None:
    """The best validation loss while training, and its step."""
    judged = [(row["eval_loss"], int(row["step"])) for row in run.metrics if "eval_loss" in row]
    return min(judged) if judged else None


def _table(run: LanguageRun) -> Content:
    results = run.results
    lines = [("this model", results["nats"]), *yardsticks(run)]
    rows: list[list[Content]] = [
        [name, f"{nats:.4f}", f"{bits_per_character(run, nats):.4f}", f"{math.exp(nats):,.2f}"]
        for name, nats in lines
    ]
    rows[0] = [tag("strong", cell) for cell in rows[0]]
    history = run.settings("evaluation").get("history")
    sees = f", at least {count(history)} of them" if history else ""
    context = count(run.settings("training").get("context"))
    return [
        table(
            ["guess", "nats per token", "bits per character", "perplexity"], rows, numbers=[1, 2, 3]
        ),
        paragraph(
            f"Over the whole validation text, each token once, without dropout and in float32; the "
            f"model sees up to {context} tokens before it{sees}. Bits per character compare models "
            "with different tokenizers; nats and perplexity do not.",
            quiet=True,
        ),
    ]


def _unfinished(run: LanguageRun) -> Content:
    best = best_validation(run)
    so_far = (
        f" Best validation loss so far: {best[0]:.4f} at step {count(best[1])}." if best else ""
    )
    return paragraph(
        "The whole validation text is scored when the training ends, which has not happened."
        + so_far,
        quiet=True,
    )


def _facts(run: LanguageRun) -> list[tuple[Content, Content]]:
    results, best = run.results, best_validation(run)
    losses = [row["loss"] for row in run.metrics if "loss" in row][-_LAST_LOSSES:]
    last = (
        f"{sum(losses) / len(losses):.4f}, mean of the last {len(losses)} logged"
        if losses
        else None
    )
    scored = results.get("scored_tokens")
    return [
        ("tokens scored", count(scored) if scored else None),
        (
            "characters they stand for",
            count(results["scored_characters"]) if "scored_characters" in results else None,
        ),
        (
            "best validation loss while training",
            f"{best[0]:.4f} at step {count(best[1])}" if best else None,
        ),
        ("training loss at the end", last),
    ]
