"""Weights by pattern: globs and regular expressions over their names, ties counted once."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import nn

from domainformer.errors import SurgeryError, nearest
from domainformer.models.surgery.wrappers import described, inner_prefix, named_weights

Pattern = str | re.Pattern[str]
_REGEX = "re:"


@dataclass(frozen=True, eq=False)
class Weight:
    """A parameter with all of its names; tied ones have several.

    Args:
        names: Dotted names in the model.
        parameter: The tensor itself.
    """

    names: tuple[str, ...]
    parameter: nn.Parameter


def select(model: nn.Module, patterns: Sequence[Pattern]) -> tuple[Weight, ...]:
    r"""The weights that any of some patterns takes, each once, in the order of the model.

    ::

        "transformer.wte.weight"     the name itself
        "transformer.h.0"            everything in a part of the model
        "*.h.[01]"                   a glob; * crosses dots
        r"re:\.(0|1)\.attn\."        a regular expression, found anywhere in the name
        re.compile(r"bias$")         the same, compiled

    A weight with several names (an embedding that is tied to the head) is taken by any of them. In
    a wrapper (``BoundModel``, ``DistributedDataParallel``) the names of the wrapped model do, too.

    Args:
        model: Any module.
        patterns: Each must take something.

    Raises:
        SurgeryError: A pattern takes nothing, or is no regular expression.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> [weight.names[0] for weight in select(model, ["0", r"re:bias$"])]
        ['0.weight', '0.bias', '1.bias']
    """
    prefix = inner_prefix(model)
    weights = [Weight(names, weight) for weight, names in named_weights(model).values()]
    taken: set[int] = set()
    for pattern in patterns:
        found = {
            place
            for place, weight in enumerate(weights)
            if any(matches(name, pattern) for name in _spellings(weight.names, prefix))
        }
        if not found:
            raise _nothing(model, pattern, weights, prefix)
        taken |= found
    return tuple(weights[place] for place in sorted(taken))


def matches(name: str, pattern: Pattern) -> bool:
    """Whether a pattern takes the parameter of a name, or a part of the model that it lies in.

    Example:
        >>> matches("h.1.attn.weight", "h.1"), matches("h.10.attn.weight", "*.1")
        (True, False)
    """
    if not isinstance(pattern, (str, re.Pattern)):
        raise SurgeryError(
            f"{pattern!r} is no pattern",
            next_step="give strings, one by one: freeze(model, 'a', 'b')",
        )
    if isinstance(pattern, re.Pattern):
        return pattern.search(name) is not None
    if pattern.startswith(_REGEX):
        return _compiled(pattern).search(name) is not None
    return any(fnmatch.fnmatchcase(path, pattern) for path in _paths(name))


def _spellings(names: Iterable[str], prefix: str) -> list[str]:
    return [way for name in names for way in {name, name.removeprefix(prefix)}]


def _paths(name: str) -> list[str]:
    """A name and the parts of the model above it."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern.removeprefix(_REGEX))
    except re.error as error:
        raise SurgeryError(
            f"{pattern!r} is no regular expression",
            why=str(error),
            next_step=r"escape dots, as in re:layers\.0\., or use a glob: *.layers.0",
        ) from None


def _nothing(
    model: nn.Module, pattern: Pattern, weights: Iterable[Weight], prefix: str
) -> SurgeryError:
    text = pattern if isinstance(pattern, str) else pattern.pattern
    known = {
        path
        for weight in weights
        for name in weight.names
        for path in _paths(name.removeprefix(prefix))
    }
    return SurgeryError(
        f"the pattern {text!r} matches no parameter of {described(model)}",
        next_step=nearest(text.removeprefix(_REGEX), known),
    )
