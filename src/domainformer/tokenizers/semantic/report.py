"""How good semantic ids are: usage, collisions, reconstruction, neighbours; and when they are not.

A level whose codes are hardly used tells nothing apart: the ids have collapsed. That is an error
with advice, because a model trained on such ids trains without complaint and learns little.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from domainformer.errors import TokenizerError
from domainformer.tokenizers.semantic.quantizer import Floats, Int32s, collision_rate, usage

LEAST_USAGE = 0.8
_NEIGHBOURS = 3
_SAMPLE = 256


@dataclass(frozen=True)
class Neighbours:
    """An example entity and those whose features are most like its own.

    Args:
        entity: The example.
        codes: Its codes.
        nearest: Others, nearest first: name, codes, cosine of the features.
    """

    entity: str
    codes: tuple[int, ...]
    nearest: tuple[tuple[str, tuple[int, ...], float], ...]


@dataclass(frozen=True)
class SemanticReport:
    """What a fit of semantic ids has reached.

    Args:
        field: Name of the field.
        method: ``"rqvae"`` or ``"kmeans"``.
        entities: Number of entities.
        codes: Codes of a level.
        features: Dimensions of each kind of feature.
        usage: Per level, the share of codes that some entity has.
        perplexity: Per level, how many codes there would be if all were used alike.
        collision_rate: 1 − distinct codes / entities, before the number tells them apart.
        largest_group: Most entities with the same codes.
        unexplained: Squared reconstruction error as a share of the features' variance.
        neighbours_share_first: How often an entity and the one most like it share the first code.
        neighbours: Examples.
    """

    field: str
    method: str
    entities: int
    codes: int
    features: dict[str, int]
    usage: tuple[float, ...]
    perplexity: tuple[float, ...]
    collision_rate: float
    largest_group: int
    unexplained: float
    neighbours_share_first: float
    neighbours: tuple[Neighbours, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        plain: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return plain

    def render(self) -> Group:
        """Tables for a terminal."""
        levels = Table(title=f"semantic ids of {self.field!r} ({self.method})")
        for title in ("level", "usage", "perplexity"):
            levels.add_column(title, justify="right")
        for level, (used, spread) in enumerate(zip(self.usage, self.perplexity, strict=True), 1):
            levels.add_row(str(level), f"{used:.1%}", f"{spread:.0f} of {self.codes}")
        kinds = ", ".join(f"{kind} {size}" for kind, size in self.features.items())
        facts = Text(
            f"{self.entities:,} entities, features: {kinds}\n"
            f"collision rate before the number {self.collision_rate:.2%}, "
            f"largest group {self.largest_group}\n"
            f"reconstruction leaves {self.unexplained:.1%} of the variance\n"
            f"an entity and its nearest share the first code in {self.neighbours_share_first:.0%}"
        )
        near = Table("entity", "codes", "nearest by features", "codes", "cosine")
        for example in self.neighbours:
            for row, (name, codes, cosine) in enumerate(example.nearest):
                first = (example.entity, _spelt(example.codes)) if row == 0 else ("", "")
                near.add_row(*(Text(x) for x in (*first, name, _spelt(codes), f"{cosine:.2f}")))
        return Group(levels, facts, near)


def make_report(
    *,
    field: str,
    method: str,
    names: Sequence[str],
    features: Floats,
    codes: Int32s,
    n_codes: int,
    kinds: dict[str, int],
    unexplained: float,
    examples: int,
) -> SemanticReport:
    """Measure codes against the features that they came from.

    Args:
        field: Name of the field.
        method: How the codes were found.
        names: Entities, ``[n]``.
        features: ``[n, D]``.
        codes: ``[n, levels]``.
        n_codes: Codes of a level.
        kinds: Dimensions of each kind of feature.
        unexplained: Reconstruction error over variance.
        examples: How many entities are shown with their nearest.
    """
    counts = np.unique(codes, axis=0, return_counts=True)[1]
    sample = np.unique(np.linspace(0, len(names) - 1, min(_SAMPLE, len(names))).astype(np.int64))
    near, cosine = _nearest(features, sample)
    shown = np.unique(np.linspace(0, len(sample) - 1, min(examples, len(sample))).astype(np.int64))

    def of(row: int) -> tuple[int, ...]:
        return tuple(codes[row].tolist())

    return SemanticReport(
        field=field,
        method=method,
        entities=len(names),
        codes=n_codes,
        features=kinds,
        usage=tuple(usage(codes, n_codes)),
        perplexity=tuple(_perplexity(column) for column in codes.T),
        collision_rate=collision_rate(codes),
        largest_group=int(counts.max()),
        unexplained=unexplained,
        neighbours_share_first=float((codes[sample, 0] == codes[near[:, 0], 0]).mean()),
        neighbours=tuple(
            Neighbours(
                names[int(sample[i])],
                of(int(sample[i])),
                tuple(
                    (names[row], of(row), round(float(value), 4))
                    for row, value in zip(near[i].tolist(), cosine[i].tolist(), strict=True)
                ),
            )
            for i in shown.tolist()
        ),
    )


def check_collapse(report: SemanticReport, *, least_usage: float = LEAST_USAGE) -> None:
    """Refuse ids of which a level is hardly used.

    Raises:
        TokenizerError: Less than ``least_usage`` of a level's codes are used; says what to change.
    """
    level = int(np.argmin(report.usage))
    used = report.usage[level]
    if used >= least_usage:
        return
    if report.entities < 4 * report.codes:
        fitting = max(2, 1 << (max(report.entities // 4, 2).bit_length() - 1))
        advice = (
            f"{report.entities:,} entities are few for {report.codes} codes a level: set "
            f"semantic_codes to {fitting} or fewer, and fewer semantic_levels"
        )
    elif report.method == "rqvae":
        advice = (
            "train longer (epochs), move unused codes more often (reset_every), or use "
            "method='kmeans'; features that hardly differ (see their kinds and weights) collapse"
        )
    else:
        advice = "give features that tell entities apart (text, sets, histories), or fewer codes"
    raise TokenizerError(
        f"the semantic ids of field {report.field!r} have collapsed",
        where=f"level {level + 1} of {len(report.usage)}",
        why=f"{round(used * report.codes)} of its {report.codes} codes are used, and "
        f"{least_usage:.0%} have to be",
        next_step=advice,
    )


def _nearest(features: Floats, rows: np.ndarray) -> tuple[np.ndarray, Floats]:
    """The nearest other entities of some, by cosine: indices and cosines, ``[rows, ≤ 3]``."""
    lengths = np.sqrt((features**2).sum(axis=1))
    unit = features / np.maximum(lengths, 1e-12)[:, None]
    cosine = unit[rows] @ unit.T
    cosine[np.arange(len(rows)), rows] = -np.inf
    count = max(1, min(_NEIGHBOURS, len(features) - 1))
    near = np.argsort(-cosine, axis=1, kind="stable")[:, :count]
    return near, np.take_along_axis(cosine, near, axis=1)


def _perplexity(column: np.ndarray) -> float:
    shares = np.unique(column, return_counts=True)[1] / len(column)
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _spelt(codes: tuple[int, ...]) -> str:
    return " ".join(map(str, codes))
