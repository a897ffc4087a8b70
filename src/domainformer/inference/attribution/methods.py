"""Two ways of attributing a score, on the same rows.

::

    integrated gradients    a_t = Σ_k w_k · ∂f/∂g_t (all gates at α_k)        sums to f(x) − f(x')
    occlusion               a_u = f(x) − f(x with the unit's MISSING, or without the event)

Integrated gradients cost as many forward and backward passes as there are steps, whatever the
length of the history, and sum to the difference that they explain. Occlusion costs one forward
pass per unit; it needs no gradient and is exact for what it says, one unit at a time: where two
units tell the same, neither is missed when only it is taken away.

Sources: Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", arXiv 1703.01365,
section 3; Zeiler and Fergus, arXiv 1311.2901, section 4.2 (occlusion).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from domainformer.errors import InputError
from domainformer.inference.attribution.baselines import Baseline, MeanBaseline, MissingBaseline
from domainformer.inference.attribution.engine import Engine, Floats, Progress, Variant
from domainformer.inference.attribution.rows import EMPTY, Ints

BaselineName = Literal["missing", "mean"]
Leave = Literal["field", "event"]


@dataclass(frozen=True, eq=False)
class Attributed:
    """Attributions, example by example.

    Args:
        units: Of each example's units (of its events, where ``by_event``), [units].
        tokens: Of its tokens [n]; None where the method has none.
        features: Of its tabular features [F + C].
        baseline: f(x') of each example.
        by_event: Whether ``units`` are whole events.
    """

    units: list[Floats]
    tokens: list[Floats] | None
    features: list[Floats]
    baseline: Floats
    by_event: bool = False


@dataclass(frozen=True)
class IntegratedGradients:
    """Gradients along the straight line from the baseline's embeddings to the row's own.

    Args:
        steps: Points of the Gauss–Legendre rule along the line. Watch
            :attr:`Explanation.convergence`: where the gap is too large, take more.
        baseline: ``missing``: every token says MISSING, what occlusion puts there, too; ``mean``:
            every token is the average of its slot over the examples, which is the better
            question about fields that are never null (their MISSING was never trained).

    Raises:
        InputError: A setting is out of range.
    """

    steps: int = 32
    baseline: BaselineName = "missing"
    name: ClassVar[str] = "integrated-gradients"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(f"steps must be 1 or more, not {self.steps}")
        _check("baseline", self.baseline, get_args(BaselineName))

    @property
    def settings(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def attribute(
        self, engine: Engine, choice: Ints, scores: Floats, progress: Progress | None
    ) -> Attributed:
        """Attribute the score of every example."""
        baseline = self._baseline(engine)
        points, weights = np.polynomial.legendre.leggauss(self.steps)
        levels, weights = (points + 1) / 2, weights / 2
        n = len(engine.rows)
        owners = np.repeat(np.arange(n), self.steps)
        variants = [Variant(int(i)) for i in owners]
        tokens = [np.zeros(len(row.ids)) for row in engine.rows]
        features = [np.zeros(engine.n_features) for _ in range(n)]
        slopes = engine.slopes(variants, np.tile(levels, n), choice, baseline)
        for done, (number, of_tokens, of_features, _) in enumerate(slopes, 1):
            weight = float(weights[number % self.steps])
            tokens[owners[number]] += weight * of_tokens
            features[owners[number]] += weight * of_features
            if progress is not None:
                progress(done, len(variants))
        units = [
            np.bincount(row.unit[row.free], found[row.free], len(row.starts)).astype(np.float64)
            for row, found in zip(engine.rows, tokens, strict=True)
        ]
        # All gates shut is one more point on the line; its slopes are not asked for.
        closed = np.zeros(n)
        each = [Variant(i) for i in range(n)]
        for number, _, _, value in engine.slopes(each, np.zeros(n), choice, baseline):
            closed[number] = value
        return Attributed(units, tokens, features, closed)

    def _baseline(self, engine: Engine) -> Baseline:
        if self.baseline == "mean" and engine.reader is not None:
            return MeanBaseline(engine.reader, engine.rows)
        return MissingBaseline()


@dataclass(frozen=True)
class Occlusion:
    """The score's change when something is taken away, all else as it is.

    Args:
        leave: ``field``: each field of each event is made missing in turn (an optional field is
            left out, as the tokenizer would); ``event``: each whole event is left out, which
            costs less and tells no fields. Elapsed times of the event after it stay as they are.

    Raises:
        InputError: There is no such thing to leave.
    """

    leave: Leave = "field"
    name: ClassVar[str] = "occlusion"

    def __post_init__(self) -> None:
        _check("leave", self.leave, get_args(Leave))

    @property
    def settings(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def attribute(
        self, engine: Engine, choice: Ints, scores: Floats, progress: Progress | None
    ) -> Attributed:
        """Attribute the score of every example."""
        variants = [v for i in range(len(engine.rows)) for v in self._variants(engine, i)]
        values = engine.values(variants, choice, progress=progress)
        owners = np.array([v.example for v in variants], np.int64)
        changes = scores[owners] - values
        units, features = [], []
        for i, row in enumerate(engine.rows):
            own = changes[owners == i]
            last = len(own) - engine.n_features - 1
            units.append(own[:last])
            features.append(own[last : last + engine.n_features])
            if self.leave == "event":  # the event that is asked about stays
                units[-1] = np.append(units[-1], [0.0] * (row.n_events - len(units[-1])))
        closed = values[np.flatnonzero(np.diff(owners, append=len(engine.rows)))]
        return Attributed(units, None, features, closed, by_event=self.leave == "event")

    def _variants(self, engine: Engine, example: int) -> list[Variant]:
        """The example's row without each unit, without each feature, and without anything."""
        row, reader = engine.rows[example], engine.reader
        variants: list[Variant] = []
        if reader is not None:
            if self.leave == "field":
                taken = [reader.without(row, unit) for unit in range(len(row.starts))]
            else:
                events = row.n_events - (1 if row.scored else 0)
                taken = [row.without_event(event) for event in range(events)]
            variants = [Variant(example, ids) for ids in taken]
        numbers, codes = _absent_features(engine, example)
        variants += numbers
        everything = (
            EMPTY.ids
            if reader is None
            else row.splice({unit: reader.absent(row, unit) for unit in range(len(row.starts))})
        )
        return [*variants, Variant(example, everything, *codes)]


def _absent_features(
    engine: Engine, example: int
) -> tuple[list[Variant], tuple[Floats | None, Ints | None]]:
    """The example without each of its features in turn, and the values of none of them."""
    if engine.tabular is None:
        return [], (None, None)
    numbers, codes = engine.tabular.numbers[example], engine.tabular.codes[example]
    variants = []
    for place in range(len(numbers)):
        changed = numbers.copy()
        changed[place] = np.nan
        variants.append(Variant(example, numbers=changed))
    for place in range(len(codes)):
        other = codes.copy()
        other[place] = 0
        variants.append(Variant(example, codes=other))
    return variants, (np.full_like(numbers, np.nan), np.zeros_like(codes))


def _check(what: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise InputError(
            f"there is no {what} {given!r}", next_step=f"choose one of: {', '.join(known)}"
        )


METHODS = {method.name: method for method in (IntegratedGradients, Occlusion)}
"""The methods by name."""
