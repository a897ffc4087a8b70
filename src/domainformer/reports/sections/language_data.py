"""The data card of a language model: the text, its split, what normalisation changed, the ids."""

from __future__ import annotations

from typing import Any

from domainformer.reports.language_run import LanguageRun
from domainformer.reports.markup import Content, Markup, code, facts, paragraph, table, tag
from domainformer.reports.numbers import count, share

_SHOWN = {"\n": "⏎", "\t": "⇥", " ": "␣"}
_OTHERS = {"error": "refused", "replace": "replaced by ?", "drop": "dropped"}
_MOST_CHANGES = 12


def text_section(run: LanguageRun) -> Markup:
    """The section, as far as the run got."""
    data = run.settings("data")
    source: list[tuple[Content, Content]] = [
        ("source", code(data["path"]) if data.get("path") else None),
        ("characters admitted", _admitted(run, data)),
        ("other characters", _OTHERS.get(data.get("unknown", ""))),
        ("windows run over ends of documents", "yes" if data.get("cross_documents") else None),
    ]
    return tag(
        "section",
        tag("h2", "Data"),
        facts(source),
        _split(run, data),
        _changes(run.split.get("changes") or {}),
        tag("h3", "Tokenizer"),
        facts(_tokenizer(run)),
        id="data",
    )


def _admitted(run: LanguageRun, data: dict[str, Any]) -> str | None:
    """The policy; ``auto`` depends on what reads the text."""
    if data.get("policy") != "auto":
        return data.get("policy")
    if not run.tokenizer:
        return None
    return "any" if run.alphabet is None else "printable ASCII, newline, tab"


def _split(run: LanguageRun, data: dict[str, Any]) -> Content:
    split = run.split
    if not split:
        return paragraph("The text was not read yet.", quiet=True)
    held = share(data.get("validation"))
    how = {
        "position": f"The last {held} of each document is held out for validation.",
        "document": f"{held} of the documents, drawn with seed {data.get('split_seed')}, are held "
        "out for validation.",
    }
    rows = []
    for name, part in (("training", "train"), ("validation", "validation")):
        sizes = [split.get(f"{part}_{what}") for what in ("documents", "characters", "tokens")]
        rows.append([name, *map(count, sizes)])
    return table(
        ["part", "documents", "characters", "tokens"],
        rows,
        numbers=[1, 2, 3],
        caption=[
            how.get(split.get("by", ""), ""),
            " Of the validation, the characters that are scored: what begins a document is not.",
        ],
    )


def _changes(changes: dict[str, Any]) -> Content:
    """What normalisation did; nothing where the text was taken as it is."""
    if not changes:
        return None
    parts = [
        f"{count(changes[key])} {name}"
        for key, name in (("line_ends", "line ends made one newline"), ("blanks", "made a blank"))
        if changes.get(key)
    ]
    for key in ("replaced", "dropped"):
        found: dict[str, int] = changes.get(key) or {}
        if found:
            most = sorted(found.items(), key=lambda pair: -pair[1])
            names = ", ".join(f"{char!r} {count(times)}" for char, times in most[:_MOST_CHANGES])
            more = ", …" if len(most) > _MOST_CHANGES else ""
            parts.append(f"{count(sum(found.values()))} {key} ({names}{more})")
    told = "; ".join(parts) or "nothing"
    return paragraph(
        f"Of {count(changes.get('characters'))} characters normalisation changed: {told}."
    )


def _tokenizer(run: LanguageRun) -> list[tuple[Content, Content]]:
    split, given = run.split, run.settings("tokenizer")
    characters, tokens = split.get("train_characters"), split.get("train_tokens")
    alphabet = run.alphabet
    kind = run.tokenizer.get("tokenizer_class")
    return [
        ("kind", "one token per character" if alphabet is not None else kind),
        ("from", code(given["path"]) if given.get("path") else run.record.config.get("model_name")),
        ("vocabulary", count(run.resolved["vocab_size"]) if "vocab_size" in run.resolved else None),
        ("characters per token", f"{characters / tokens:.2f}" if characters and tokens else None),
        (
            "alphabet",
            None
            if alphabet is None
            else code("".join(_SHOWN.get(character, character) for character in alphabet)),
        ),
    ]
