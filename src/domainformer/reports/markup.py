"""HTML as values: whatever is not already markup is escaped, so no text of a user can act.

A category named ``<script>`` becomes the eight letters of it. Only :class:`Markup` passes as it is,
and only this module and ``charts.py`` (through :func:`trusted`) make it.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

_WIDE = 5  # columns from which a table rather scrolls than squeezes its cells
_VOID = frozenset({"meta", "br", "hr", "link", "img"})
# Controls would vanish or turn the direction of what follows; a visible sign is honest.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Content = Any


def trusted(source: str) -> Markup:
    """Declare that a text is safe HTML: drawn by ``charts.py``, or written in this package."""
    return Markup(source)


def escape(content: Content) -> Markup:
    """Content as HTML: markup as it is, sequences joined, None as nothing, the rest escaped.

    Example:
        >>> escape("a < b & c")
        'a &lt; b &amp; c'
        >>> escape(["one ", Markup("<b>two</b>"), None])
        'one <b>two</b>'
    """
    if isinstance(content, Markup):
        return content
    if content is None:
        return Markup("")
    if isinstance(content, (list, tuple)):
        return Markup("".join(escape(part) for part in content))
    return Markup(html.escape(_UNSEEN.sub("\ufffd", str(content)), quote=True))


def tag(name: str, /, *content: Content, **attributes: Any) -> Markup:
    """One element; ``_class`` stands for ``class``, None and False leave an attribute out.

    Example:
        >>> tag("a", "x > y", href="#top", _class="quiet")
        '<a href="#top" class="quiet">x &gt; y</a>'
        >>> tag("details", tag("summary", "more"), open=True)
        '<details open><summary>more</summary></details>'
    """
    parts = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.lstrip("_").replace("_", "-")
        parts.append(f" {label}" if value is True else f' {label}="{escape(value)}"')
    opening = f"<{name}{''.join(parts)}>"
    return Markup(opening if name in _VOID else f"{opening}{escape(content)}</{name}>")


def paragraph(*content: Content, quiet: bool = False) -> Markup:
    """A paragraph; a quiet one is a remark."""
    return tag("p", *content, _class="quiet" if quiet else None)


def code(text: Content) -> Markup:
    """Something to type or to search for."""
    return tag("code", text)


def bullets(items: Iterable[Content]) -> Markup:
    """A list; nothing where there are no items."""
    lines = [tag("li", item) for item in items]
    return tag("ul", lines) if lines else Markup("")


def facts(rows: Iterable[tuple[Content, Content]]) -> Markup:
    """Names and values; rows without a value are left out."""
    return tag(
        "dl",
        [
            tag("div", tag("dt", name), tag("dd", value))
            for name, value in rows
            if value is not None and value != ""
        ],
    )


def table(
    head: Sequence[Content],
    rows: Iterable[Sequence[Content]],
    *,
    numbers: Sequence[int] = (),
    caption: Content = None,
) -> Markup:
    """A table that scrolls sideways on narrow screens.

    Args:
        head: Titles of the columns.
        rows: Cells.
        numbers: Columns with figures, aligned to the right.
        caption: What the table shows.
    """

    def cells(name: str, row: Sequence[Content]) -> list[Markup]:
        return [
            tag(name, cell, _class="number" if index in numbers else None)
            for index, cell in enumerate(row)
        ]

    body = [tag("tr", cells("td", row)) for row in rows]
    # The sentence stands outside of what scrolls, so that it is read without scrolling.
    remark = tag("p", caption, _class="caption") if caption is not None else None
    drawn = tag(
        "table",
        tag("thead", tag("tr", cells("th", head))),
        tag("tbody", body),
        _class="wide" if len(head) >= _WIDE else None,
    )
    return escape([remark, tag("div", drawn, _class="scroll")])


def figure(svg: Markup, caption: Content = None) -> Markup:
    """A chart with the sentence that says how to read it."""
    return tag("figure", svg, tag("figcaption", caption) if caption is not None else None)


def more(title: Content, *content: Content, opened: bool = False) -> Markup:
    """Something that is folded away until it is asked for."""
    return tag("details", tag("summary", title), *content, open=opened)


def badge(text: str, kind: str) -> Markup:
    """A word with a colour: ``good``, ``bad`` or ``even``."""
    return tag("span", text, _class=f"badge {kind}")


def shorten(text: Any, limit: int = 32) -> str:
    """A text on one line, at most ``limit`` characters, cut off with an ellipsis.

    Example:
        >>> shorten("a very long description of a purchase", 12)
        'a very long…'
    """
    line = " ".join(_UNSEEN.sub("\ufffd", str(text)).split())
    if len(line) <= limit:
        return line
    cut = line[: limit - 1].rstrip()
    while cut and unicodedata.combining(cut[-1]):
        cut = cut[:-1]
    return cut + "…"


def distinct(texts: Sequence[str]) -> list[str]:
    """Texts with a number behind those that occurred before: charts merge equal names.

    Example:
        >>> distinct(["a…", "b", "a…"])
        ['a…', 'b', 'a… (2)']
    """
    taken: dict[str, None] = {}
    for text in texts:
        name, times = text, 1
        while name in taken:
            times += 1
            name = f"{text} ({times})"
        taken[name] = None
    return list(taken)
