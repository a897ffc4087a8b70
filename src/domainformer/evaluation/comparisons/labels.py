"""Settings in words: short enough for a legend, and different where the settings are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from domainformer.artifacts import fingerprint

_LONGEST = 48
_HASHES = ("code", "data", "tokenizer", "model_name")
_SHOWN = 8  # digits of a hash that people are shown


def told(value: Any, key: str = "") -> str:
    """A value in a few words.

    Args:
        value: Plain data.
        key: What it is the value of: hashes are shortened, rules told by their names.

    Example:
        >>> told(0.001), told(None), told("0123456789abcdef", "code")
        ('0.001', 'none', '01234567')
        >>> told([{"name": "lion"}, {"name": "clip", "norm": 1.0}])
        'lion + clip(norm=1.0)'
    """
    if key == "rules" and isinstance(value, Mapping):
        return _rules(value)
    if value is None or value == [] or value == {}:
        return "none"
    if key in _HASHES and isinstance(value, str):
        return "+".join(part[:_SHOWN] for part in value.split("+"))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _short(" + ".join(_item(item) for item in value))
    if isinstance(value, Mapping):
        return _short(_item(value))
    return _short(str(value))


def setting(keys: Sequence[str], view: Mapping[str, Any]) -> str:
    """What a group is called: the values of all that is compared.

    Example:
        >>> setting(["training.seed", "code"], {"training.seed": 1, "code": "ab"})
        'seed=1, code=ab'
    """
    short = {key: key.rpartition(".")[2] for key in keys}
    clear = len(set(short.values())) == len(keys)
    parts = [f"{short[key] if clear else key}={told(view.get(key), key)}" for key in keys]
    return ", ".join(parts)


def _rules(value: Mapping[str, Any]) -> str:
    """What the configuration asks for; where it says nothing, what was attached."""
    settings = value.get("settings") or {}
    asked = next(iter(settings.values())) if len(settings) == 1 else settings
    text = told(asked or value.get("attached"))
    sources = value.get("sources")
    return f"{text} @{fingerprint(sources)[:_SHOWN]}" if sources else text


def _item(item: Any) -> str:
    """A rule as ``name(setting=value)``; anything else as it is."""
    if not isinstance(item, Mapping):
        return str(item)
    if len(item) == 1 and "name" not in item:
        name, inside = next(iter(item.items()))
        if not isinstance(inside, Mapping):
            return f"{name}={inside}"
        item = {"name": name, **inside}
    name = item.get("name", "")
    rest = ", ".join(
        f"{key}={json.dumps(value) if isinstance(value, list | dict) else value}"
        for key, value in item.items()
        if key != "name"
    )
    return f"{name}({rest})" if rest else str(name)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1].rstrip() + "…"
