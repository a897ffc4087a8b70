"""Which weights learn: freeze and unfreeze by pattern."""

from __future__ import annotations

from torch import nn

from domainformer.models.surgery.patterns import Pattern, select


def freeze(model: nn.Module, *patterns: Pattern) -> tuple[str, ...]:
    """Let weights keep their values: they get no gradient and no optimizer touches them.

    A tied weight is one weight: freezing the head freezes the embedding that it shares.

    Args:
        model: Any module, changed in place.
        *patterns: Globs, ``re:`` expressions or compiled ones
            (see :func:`~domainformer.models.surgery.patterns.select`); none: everything.

    Returns:
        The names of all weights that were taken, tied ones under all of their names.

    Raises:
        SurgeryError: A pattern takes nothing.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        >>> freeze(model, "0")
        ('0.weight', '0.bias')
        >>> [weight.requires_grad for weight in model.parameters()]
        [False, False, True, True]
    """
    return _switch(model, patterns or ("*",), on=False)


def unfreeze(model: nn.Module, *patterns: Pattern) -> tuple[str, ...]:
    """Let weights learn (again).

    Args:
        model: Any module, changed in place.
        *patterns: As for :func:`freeze`; none: everything. Weights that cannot have a gradient
            (quantised ones) stay as they are.

    Returns:
        The names of all weights that were taken.

    Raises:
        SurgeryError: A pattern takes nothing.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> _ = freeze(model)
        >>> unfreeze(model, "bias")
        ('bias',)
    """
    return _switch(model, patterns or ("*",), on=True)


def _switch(model: nn.Module, patterns: tuple[Pattern, ...], *, on: bool) -> tuple[str, ...]:
    names: list[str] = []
    for weight in select(model, patterns):
        able = weight.parameter.is_floating_point() or weight.parameter.is_complex()
        if able:
            weight.parameter.requires_grad_(on)
            names += weight.names
            if not on:
                weight.parameter.grad = None  # an optimizer would still step on what is left over
    return tuple(names)
