"""The guard: what differs between runs, and whether it was named.

::

    a difference is  ─┬─ named (vary)     it is what is compared: it makes the groups
                      ├─ allowed (allow)  it may be there, and is told in a note
                      ├─ implied          it follows from what was named, and is one within a group
                      └─ none of these    the comparison is refused, or marked

What follows from what: other data or another split make another tokenizer; how many rows a
step takes follows from how the training is set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from domainformer.errors import ComparisonError, nearest
from domainformer.evaluation.comparisons.labels import told
from domainformer.evaluation.comparisons.runs import PARTS, RunEntry, called, matches, values_at

# A part, and the beginnings of what it follows from.
_FOLLOWS = {
    "data": ("data",),
    "tokenizer": ("data", "tokenizer", "split", "model_name"),
    "plan": ("data", "tokenizer", "split", "model_name", "training"),
}
_MOST_TOLD = 12


@dataclass(frozen=True)
class Differences:
    """What differs between runs, by how it is to be understood.

    Args:
        named: Keys that are compared.
        allowed: Keys that may differ.
        implied: Keys that follow from what was named.
        unnamed: Keys that nobody named.
        same: Names that were given, and are equal in all runs.
    """

    named: tuple[str, ...]
    allowed: tuple[str, ...]
    implied: tuple[str, ...]
    unnamed: tuple[str, ...]
    same: tuple[str, ...]


def find_differences(
    entries: Sequence[RunEntry], vary: Sequence[str], allow: Sequence[str]
) -> Differences:
    """Sort all differences between runs.

    Args:
        entries: The runs.
        vary: Names of what is compared: dotted keys, sections of keys, or parts.
        allow: Names of what else may differ.

    Raises:
        ComparisonError: A name is no key and no part of any run.
    """
    keys = sorted({key for entry in entries for key in entry.view})
    vary, allow = list(map(called, vary)), list(map(called, allow))
    _check_names([*vary, *allow], keys)
    different = [key for key in keys if len(values_at(entries, key)) > 1]
    named = [key for key in different if _any(vary, key)]
    others = [key for key in different if key not in named]
    allowed = [key for key in others if _any(allow, key)]
    rest = [key for key in others if key not in allowed]
    implied = [key for key in rest if _follows(key, named)]
    return Differences(
        named=tuple(named),
        allowed=tuple(allowed),
        implied=tuple(implied),
        unnamed=tuple(key for key in rest if key not in implied),
        same=tuple(name for name in vary if not any(matches(name, key) for key in named)),
    )


def groups_of(entries: Sequence[RunEntry], keys: Sequence[str]) -> list[list[RunEntry]]:
    """Runs with equal values of all keys, in the order in which they were given."""
    groups: list[list[RunEntry]] = []
    for entry in entries:
        for group in groups:
            if all(group[0].view.get(key) == entry.view.get(key) for key in keys):
                group.append(entry)
                break
        else:
            groups.append([entry])
    return groups


def split_within(groups: Sequence[Sequence[RunEntry]], implied: Sequence[str]) -> tuple[str, ...]:
    """Keys that should follow from what was named, and differ although it is equal."""
    return tuple(key for key in implied if any(len(values_at(group, key)) > 1 for group in groups))


def refuse(entries: Sequence[RunEntry], keys: Sequence[str], vary: Sequence[str]) -> None:
    """Raise the error that tells every difference that nobody named.

    Raises:
        ComparisonError: Always.
    """
    shown = list(keys)[:_MOST_TOLD]
    lines = [describe(entries, key) for key in shown]
    if len(keys) > len(shown):
        lines.append(f"… and {len(keys) - len(shown)} more")
    names = " ".join(f"--vary {name}" for name in dict.fromkeys([*vary, _name_of(shown[0])]))
    raise ComparisonError(
        "these runs differ in more than what is compared",
        why="\n         ".join(lines),
        next_step=(
            f"name what shall be compared ({names}), let the rest differ (--allow NAME), or see "
            "it marked (--mark)"
        ),
    )


def describe(entries: Sequence[RunEntry], key: str) -> str:
    """One difference in words: each value with the runs that have it."""
    parts = []
    for value in values_at(entries, key):
        owners = [entry.folder.name for entry in entries if entry.view.get(key) == value]
        more = f" and {len(owners) - 2} more" if len(owners) > 2 else ""
        parts.append(f"{told(value, key)} in {', '.join(owners[:2])}{more}")
    return f"{key}: {'; '.join(parts)}"


def check_repetitions(groups: Sequence[Sequence[RunEntry]]) -> None:
    """Make sure that the runs of a group are repetitions: each seed once.

    Raises:
        ComparisonError: Two runs with the same settings have the same seed.
    """
    for group in groups:
        taken: dict[Any, RunEntry] = {}
        for entry in group:
            if entry.seed is None:
                continue
            other = taken.setdefault(entry.seed, entry)
            if other is not entry:
                raise ComparisonError(
                    "two runs are one experiment done twice",
                    where=f"{other.folder} and {entry.folder}",
                    why=f"settings and seed ({entry.seed}) are equal, so that the second says "
                    "nothing new, and would make the mean look surer than it is",
                    next_step="leave one of them out, or train with another seed",
                )


def _check_names(names: Sequence[str], keys: Sequence[str]) -> None:
    for name in names:
        if name in PARTS or any(matches(name, key) for key in keys):
            continue
        raise ComparisonError(
            f"no run has a setting or part {name!r}", next_step=nearest(name, [*PARTS, *keys])
        )


def _name_of(key: str) -> str:
    """What a user would call a difference: ``environment`` rather than one of its packages."""
    section = key.partition(".")[0]
    return section if section in PARTS else key


def _any(names: Sequence[str], key: str) -> bool:
    return any(matches(name, key) for name in names)


def _follows(key: str, named: Sequence[str]) -> bool:
    sources = _FOLLOWS.get(key.partition(".")[0] if key.startswith("plan.") else key, ())
    return any(matches(source, name) for source in sources for name in named)
