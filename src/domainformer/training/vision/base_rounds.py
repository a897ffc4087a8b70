"""The curriculum of the experiment's base model: which grids, which questions, how fast."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from torch.utils.data import IterableDataset

from domainformer.data.tile_questions import KINDS, TileQuestions
from domainformer.data.tile_scenes import DOT_LEAD
from domainformer.errors import ConfigError
from domainformer.training.vision.packed_questions import Group


@dataclass(frozen=True)
class BaseStage:
    """Steps on one grid.

    Args:
        side: tiles along the longer side of the grid.
        steps: optimiser steps.
        scenes: per step.
        questions: per scene.
        short: tiles along the shorter side, upright and lying in turn; None: a square. Words
            stand after an image as far as its longer side is long, so that a strip teaches at a
            fraction of the cost what a larger square changes.
        lead: of the commonest dot, see ``TileQuestions``.
    """

    side: int
    steps: int
    scenes: int = 8
    questions: int = 7
    short: int | None = None
    lead: float = DOT_LEAD

    @property
    def grids(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns that its steps take in turn."""
        if self.short is None:
            return ((self.side, self.side),)
        return (self.side, self.short), (self.short, self.side)


@dataclass(frozen=True)
class BaseRound:
    """Stages that share an optimiser.

    Args:
        stages: the grids, in order.
        kinds: the kinds of question, in turn; one named twice is asked twice as often.
        learning_rate: at the first step.
        final_rate: at the last one, falling linearly.
    """

    stages: tuple[BaseStage, ...]
    kinds: tuple[str, ...]
    learning_rate: float
    final_rate: float

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)


_SUMS_TWICE: Final = (*KINDS, "count", "global")

CURRICULUM: Final = (
    # Places are the slowest to learn: cells are asked twice. Dots are compared only once they
    # were seen to differ widely.
    BaseRound(
        (BaseStage(4, 600, lead=0.4), BaseStage(8, 2400, lead=0.4)), ("cell", *KINDS), 2e-3, 3.6e-4
    ),
    BaseRound((BaseStage(8, 1800, scenes=7, questions=8),), _SUMS_TWICE, 1e-3, 5e-5),
    BaseRound(
        (BaseStage(12, 900, scenes=6, short=4), BaseStage(12, 1800, scenes=4, questions=14)),
        (*KINDS, "neighbour"),
        6e-4,
        5e-5,
    ),
    BaseRound(
        (BaseStage(24, 900, scenes=5, short=4), BaseStage(24, 420, scenes=3, questions=28)),
        ("cell", *KINDS),
        8e-4,
        5e-5,
    ),
)
"""To find one tile and to weigh all, on 16 tokens and then 64; then 144; then 576."""


def rounds_until(tokens: int) -> tuple[BaseRound, ...]:
    """The rounds of the curriculum up to the last one on images of so many tokens.

    Raises:
        ConfigError: no round ends with such images.

    Example:
        >>> len(rounds_until(64)), len(rounds_until(576))
        (2, 4)
    """
    ends = {each.stages[-1].side ** 2: number for number, each in enumerate(CURRICULUM, start=1)}
    if tokens not in ends:
        raise ConfigError(
            f"the curriculum has no images of {tokens} tokens",
            next_step=f"choose one of {', '.join(map(str, ends))}",
        )
    return CURRICULUM[: ends[tokens]]


class RoundSteps(IterableDataset[list[Group]]):
    """The scenes of each step, stage after stage."""

    def __init__(self, wanted: BaseRound, seed: int) -> None:
        self.wanted, self.seed = wanted, seed

    def __iter__(self) -> Iterator[list[Group]]:
        for stage in self.wanted.stages:
            drawn = [self._drawn(stage, rows, columns) for rows, columns in stage.grids]
            for step in range(stage.steps):
                first = step * stage.scenes
                questions = drawn[step % len(drawn)]
                yield [questions.group(scene) for scene in range(first, first + stage.scenes)]

    def _drawn(self, stage: BaseStage, rows: int, columns: int) -> TileQuestions:
        return TileQuestions(
            stage.steps * stage.scenes * stage.questions,
            rows=rows,
            columns=columns,
            kinds=self.wanted.kinds,
            seed=self.seed,
            questions_per_scene=stage.questions,
            lead=stage.lead,
        )
