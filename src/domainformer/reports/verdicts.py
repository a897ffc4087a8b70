"""Ahead, even or behind: what a difference with its interval allows to say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

Verdict = Literal["ahead", "even", "behind"]

LOWER_IS_BETTER = frozenset({"log_loss", "rmse"})
MODEL, POPULAR, REPEAT, FREQUENCY = "model", "most_popular", "repeat_last", "entity_frequency"
ASKED = (POPULAR, REPEAT)


def verdict(difference: Mapping[str, float], metric: str) -> Verdict:
    """The direction of a difference where its interval leaves zero out.

    Example:
        >>> verdict({"value": -0.2, "low": -0.3, "high": -0.1}, "log_loss")
        'ahead'
        >>> verdict({"value": 0.1, "low": -0.1, "high": 0.3}, "accuracy")
        'even'
    """
    sign = -1 if metric in LOWER_IS_BETTER else 1
    low, high = sorted((sign * difference["low"], sign * difference["high"]))
    if low > 0:
        return "ahead"
    return "behind" if high < 0 else "even"


def slot_name(slot: Mapping[str, Any]) -> str:
    """``field`` or ``field.part``, with its source where there are several."""
    own = f"{slot['field']}.{slot['part']}" if slot["part"] else str(slot["field"])
    return f"{slot['source']}: {own}" if slot.get("source") else own


def slot_difference(slot: Mapping[str, Any], metric: str) -> dict[str, float]:
    """Model minus the better of the two asked-for baselines."""
    difference: dict[str, float] = slot["differences"][slot["best"][metric]][metric]
    return difference


def slots_of(evaluation: Mapping[str, Any] | None, view: str) -> list[dict[str, Any]]:
    """The slots of one view, in the order of the event."""
    if evaluation is None:
        return []
    return [slot for slot in evaluation["next_event"]["slots"] if slot["view"] == view]


def headline_view(evaluation: Mapping[str, Any] | None) -> str:
    """The fair contest where it was held, else the other view."""
    return "history_only" if slots_of(evaluation, "history_only") else "within_event"


def ahead_in_figures(slot: Mapping[str, Any]) -> bool:
    """Whether the model's accuracy and log-loss are better than both asked-for baselines'."""
    accuracy, loss = slot["accuracy"], slot["log_loss"]
    return all(accuracy[MODEL] > accuracy[other] and loss[MODEL] < loss[other] for other in ASKED)
