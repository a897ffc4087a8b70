"""The model, where it comes from, and the learning rules that it was trained with."""

from __future__ import annotations

import json
from typing import Any

from domainformer.errors import DomainformerError
from domainformer.reports.language_run import LanguageRun
from domainformer.reports.markup import Content, Markup, code, facts, paragraph, table, tag
from domainformer.reports.numbers import compact, count
from domainformer.training.rules.table import rule_class

# What families call the same thing in their config.json, and what people are told.
_SIZES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("layers", ("num_hidden_layers", "n_layer")),
    ("width", ("hidden_size", "n_embd")),
    ("attention heads", ("num_attention_heads", "n_head")),
    ("heads of keys and values", ("num_key_value_heads",)),
    ("width of the MLP", ("intermediate_size", "n_inner")),
    ("nonlinearity", ("mlp", "hidden_act", "activation_function")),
    ("norm", ("norm",)),
    ("positions", ("position_encoding",)),
    ("longest context", ("max_position_embeddings", "n_positions")),
    ("dropout", ("dropout",)),
)


def model_section(run: LanguageRun) -> Markup:
    """The section, as far as the run got."""
    rows = [*_origin(run), *_sizes(run.model)]
    return tag(
        "section",
        tag("h2", "Model"),
        facts(rows) if any(value for _, value in rows) else paragraph("Not built yet.", quiet=True),
        tag("h3", "Learning rules"),
        _rules(run),
        id="model",
    )


def _origin(run: LanguageRun) -> list[tuple[Content, Content]]:
    resolved = run.resolved
    parent: dict[str, Any] = resolved.get("parent") or {}
    name = run.record.config.get("model_name")
    size = f"{run.model_bytes / 1e6:,.1f} MB" if run.model_bytes else None
    made = "trained further" if name else "new, from random weights"
    return [
        ("made", made if resolved else None),
        ("parent", parent.get("model_name") or name),
        ("parent’s id", code(parent["model_id"]) if parent.get("model_id") else None),
        ("published as", run.settings("registry").get("publish")),
        ("architecture", resolved.get("architecture")),
        ("preset", None if name else run.settings("model").get("preset")),
        ("parameters", compact(resolved["parameters"]) if "parameters" in resolved else None),
        ("weights on disk", size),
    ]


def _sizes(model: dict[str, Any]) -> list[tuple[Content, Content]]:
    rows: list[tuple[Content, Content]] = []
    for title, keys in _SIZES:
        value = next((model[key] for key in keys if model.get(key) is not None), None)
        rows.append((title, count(value) if isinstance(value, int) else value))
    if "tie_word_embeddings" in model:
        rows.append(("output layer", "tied" if model["tie_word_embeddings"] else "of its own"))
    return rows


def _rules(run: LanguageRun) -> Content:
    """One line for each rule, in the order in which they act."""
    told = _told(run)
    if not told:
        return paragraph("None: plain training, with AdamW.", quiet=True)
    own = run.record.rule_sources
    rows = [[code(name), _purpose(name), _settings(settings)] for name, settings in told]
    return [
        table(
            ["rule", "what it does", "settings"], rows, caption="In the order in which they act."
        ),
        facts((f"source of {name}", code(value)) for name, value in own.items()),
    ]


def _told(run: LanguageRun) -> list[tuple[str, dict[str, Any]]]:
    """Names and settings: with all defaults where the run got so far, else as they were given."""
    attached = run.resolved.get("rule_settings")
    if attached is not None:
        return [(key.partition(":")[2], settings) for key, settings in attached.items()]
    given = run.record.config.get("rules") or []
    return [
        (item, {}) if isinstance(item, str) else (next(iter(item)), next(iter(item.values())) or {})
        for item in given
    ]


def _purpose(name: str) -> str:
    """The first line of a built-in rule's documentation; of others nothing is known."""
    try:
        line = (rule_class(name).__doc__ or "").strip().splitlines()[0]
    except (DomainformerError, IndexError):
        return "a rule of your own"
    return line.replace("``", "")


def _settings(settings: dict[str, Any]) -> Content:
    parts: list[Content] = []
    for key, value in settings.items():
        if value is None or value == []:
            continue  # the rule's own choice
        shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        parts += [", " if parts else "", f"{key} ", code(shown)]
    return parts or "–"
