"""What the model wrote while it learned: the last texts first, then the way there."""

from __future__ import annotations

from typing import Any

from domainformer.reports.language_run import LanguageRun
from domainformer.reports.markup import Content, Markup, code, paragraph, shorten, tag
from domainformer.reports.numbers import count

_MOST = 12  # texts of one prompt on the way
_PROMPT = 60


def samples_section(run: LanguageRun) -> Markup:
    """The section; one line where the model has not written."""
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for one in run.samples:
        by_prompt.setdefault(str(one.get("prompt", "")), []).append(one)
    body: list[Content] = [_of_prompt(prompt, texts) for prompt, texts in by_prompt.items()]
    if not body:
        body = [paragraph(_why_none(run), quiet=True)]
    else:
        body.insert(0, paragraph(_drawn(run), quiet=True))
    return tag("section", tag("h2", "Samples"), body, id="samples")


def _why_none(run: LanguageRun) -> str:
    if run.settings("sampling").get("every") == 0:
        return "None: sampling.every is 0."
    return "The model has not written anything yet."


def _drawn(run: LanguageRun) -> str:
    settings = run.settings("sampling")
    how = [f"temperature {settings.get('temperature')}"]
    how += [
        f"{name} {settings[key]}"
        for key, name in (("top_k", "top-k"), ("top_p", "top-p"), ("seed", "seed"))
        if settings.get(key) is not None
    ]
    return f"Prompts are in bold, the rest was drawn: {', '.join(how)}."


def _of_prompt(prompt: str, texts: list[dict[str, Any]]) -> Content:
    *before, last = texts
    kept = before
    if len(before) > _MOST:
        step = (len(before) - 1) / (_MOST - 1)
        kept = [before[round(index * step)] for index in range(_MOST)]
    shown = shorten(prompt, _PROMPT)
    heading: Content = ["After ", code(shown)] if shown else "Without a prompt"
    return [
        tag("h3", heading),
        _sample(last, prompt),
        tag("div", [tag("div", _sample(one, prompt)) for one in kept], _class="grid"),
        paragraph(f"{len(kept)} of {len(before)} earlier texts.", quiet=True)
        if len(kept) < len(before)
        else None,
    ]


def _sample(one: dict[str, Any], prompt: str) -> Content:
    text = str(one.get("text", ""))
    head, rest = (prompt, text[len(prompt) :]) if text.startswith(prompt) else ("", text)
    # An element stands first, since browsers drop a newline right behind <pre>.
    written = tag("pre", tag("b", head), rest, _class="sample")
    return [tag("p", f"Step {count(one.get('step'))}", _class="caption"), written]
