"""Which characters a text may hold: policies, and bringing a text into one of them.

What a policy does not admit is an error, is replaced by ``?`` or dropped, and each change is
counted::

    policy                   characters                          changes before
    printable                U+0020 … U+007E                     line ends, tabs ─▶ one blank each
    printable+newline+tab    the same, newline and tab           CR LF, CR ─▶ newline
    strict                   all of ASCII                        none; all else is an error
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from domainformer.errors import ConfigError, DataError, nearest

Policy = Literal["printable", "printable+newline+tab", "strict"]
Unknown = Literal["error", "replace", "drop"]

REPLACEMENT = "?"
"""What stands for a character that is replaced."""

_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
_CHARACTERS: dict[str, str] = {
    "printable": _PRINTABLE,
    "printable+newline+tab": "\t\n" + _PRINTABLE,
    "strict": "".join(map(chr, range(0x80))),
}


@dataclass(frozen=True)
class TextReport:
    r"""What normalisation changed; reports of several texts add up.

    Args:
        characters: Characters before.
        line_ends: Carriage returns that became a newline, alone or with the one behind them.
        blanks: Newlines and tabs that became a blank.
        replaced: How often each character was replaced by ``?``.
        dropped: How often each character was dropped.

    Example:
        >>> _, report = normalise("café\r\n", unknown="replace")
        >>> print(report.render())
        6 characters: 1 line end, 1 replaced ('é' U+00E9 LATIN SMALL LETTER E WITH ACUTE: 1)
    """

    characters: int = 0
    line_ends: int = 0
    blanks: int = 0
    replaced: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    @property
    def changes(self) -> int:
        """All changes together."""
        unknown = sum(self.replaced.values()) + sum(self.dropped.values())
        return self.line_ends + self.blanks + unknown

    def __add__(self, other: TextReport) -> TextReport:
        return TextReport(
            self.characters + other.characters,
            self.line_ends + other.line_ends,
            self.blanks + other.blanks,
            dict(Counter(self.replaced) + Counter(other.replaced)),
            dict(Counter(self.dropped) + Counter(other.dropped)),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the record of a run."""
        return {
            "characters": self.characters,
            "line_ends": self.line_ends,
            "blanks": self.blanks,
            "replaced": dict(self.replaced),
            "dropped": dict(self.dropped),
        }

    def render(self) -> str:
        """One line to print, with the five most frequent unknown characters."""
        parts = [_count(self.line_ends, "line end"), _count(self.blanks, "blank")]
        for word, counts in (("replaced", self.replaced), ("dropped", self.dropped)):
            ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            named = [f"{describe_character(char)}: {count:,}" for char, count in ranked[:5]]
            more = ["…"] if len(ranked) > 5 else []
            if ranked:
                parts.append(f"{sum(counts.values()):,} {word} ({', '.join(named + more)})")
        told = ", ".join(part for part in parts if part) or "nothing changed"
        return f"{_count(self.characters, 'character') or 'no characters'}: {told}"


def policy_characters(policy: str) -> str:
    r"""The characters that a policy admits, in the order of their code points.

    Raises:
        ConfigError: There is no such policy.

    Example:
        >>> len(policy_characters("printable")), policy_characters("printable+newline+tab")[:4]
        (95, '\t\n !')
    """
    if policy not in _CHARACTERS:
        raise ConfigError(
            f"there is no text policy {policy!r}", next_step=nearest(policy, _CHARACTERS)
        )
    return _CHARACTERS[policy]


def normalise(
    text: str,
    policy: Policy = "printable+newline+tab",
    unknown: Unknown = "error",
    *,
    name: str | None = None,
) -> tuple[str, TextReport]:
    r"""Bring a text into the characters of a policy, and tell what was changed.

    Args:
        text: Any text.
        policy: Which characters it may hold; see the head of this module.
        unknown: What happens to others: ``error``, ``replace`` (by ``?``) or ``drop``.
        name: Names the text in errors.

    Raises:
        DataError: The text holds another character, and these are errors; it is named with its
            line and column, both counted from 1.
        ConfigError: No such policy or treatment, or ``strict`` with another than ``error``.

    Example:
        >>> normalise("to be,\r\nor not", "printable")[0]
        'to be, or not'
        >>> normalise("naïve", unknown="drop")[0]
        'nave'
    """
    admitted = policy_characters(policy)
    check_unknown(unknown)
    if policy == "strict" and unknown != "error":
        raise ConfigError(
            f"the policy strict and unknown={unknown!r} exclude each other",
            why="strict changes nothing",
            next_step="take another policy, or leave unknown at 'error'",
        )
    characters, line_ends, blanks = len(text), 0, 0
    if policy != "strict":
        line_ends = text.count("\r")
        if line_ends:
            text = text.replace("\r\n", "\n").replace("\r", "\n")
    spaces = "" if "\n" in admitted else "\n\t"
    foreign = foreign_characters(text, admitted + spaces)
    if foreign and unknown == "error":
        where, char = locate(text, foreign, name=name)
        raise DataError(
            f"the text holds {describe_character(char)}",
            where=where,
            why=f"the policy {policy} does not admit it"
            + (f"; the text has {len(foreign)} such characters" if len(foreign) > 1 else ""),
            next_step="correct the text, or set unknown to 'replace' or 'drop'"
            + (" with another policy" if policy == "strict" else ""),
        )
    counts = {char: text.count(char) for char in sorted(foreign)}
    if spaces:
        blanks = sum(text.count(char) for char in spaces)
    table = {ord(char): REPLACEMENT if unknown == "replace" else None for char in foreign}
    changed = table | ({ord(char): " " for char in spaces} if blanks else {})
    report = TextReport(
        characters,
        line_ends,
        blanks,
        replaced=counts if unknown == "replace" else {},
        dropped=counts if unknown == "drop" else {},
    )
    return (text.translate(changed) if changed else text), report


def foreign_characters(text: str, admitted: str) -> set[str]:
    """The characters of a text beside those that are admitted.

    Args:
        text: Any text; ASCII takes about a nanosecond per character.
        admitted: ASCII characters.

    Example:
        >>> sorted(foreign_characters("café!", "abcdefg"))
        ['!', 'é']
    """
    if not text.isascii():
        return set(text) - set(admitted)
    rest = text.encode("ascii").translate(None, admitted.encode("ascii"))
    return set(rest.decode("ascii"))


def locate(text: str, characters: Iterable[str], *, name: str | None = None) -> tuple[str, str]:
    """Where a text first holds one of some characters (``poem.txt, line 2, column 7``), and which.

    Args:
        text: Holds at least one of them.
        characters: What to look for.
        name: Of the text; left out where None.
    """
    place = min(place for char in characters if (place := text.find(char)) >= 0)
    line, column = text.count("\n", 0, place) + 1, place - text.rfind("\n", 0, place)
    where = [name] if name else []
    return ", ".join([*where, f"line {line}", f"column {column}"]), text[place]


def describe_character(char: str) -> str:
    """A character, its code point and its Unicode name.

    Example:
        >>> describe_character("’")
        "'’' U+2019 RIGHT SINGLE QUOTATION MARK"
    """
    name = unicodedata.name(char, "")
    return f"{char!r} U+{ord(char):04X}" + (f" {name}" if name else "")


def check_unknown(unknown: str) -> None:
    """Refuse a treatment of unknown characters that does not exist."""
    if unknown not in get_args(Unknown):
        raise ConfigError(
            f"unknown characters cannot be treated by {unknown!r}",
            next_step=nearest(unknown, get_args(Unknown)),
        )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}" if number else ""
