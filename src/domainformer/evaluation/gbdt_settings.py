"""Settings of LightGBM that a search tries: two that are known to serve, the rest drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Sensible ranges for tables of thousands to hundreds of thousands of rows; the first setting tried
# is the middle one, in wide tables the second extremely randomised trees; the rest are drawn.
_SPACE: Mapping[str, Sequence[float | bool]] = {
    "num_leaves": (6, 10, 15, 24, 40),
    "min_data_in_leaf": (10, 20, 40, 80),
    "feature_fraction": (0.08, 0.15, 0.3, 0.5),
    "bagging_fraction": (0.6, 0.75, 0.9),
    "lambda_l2": (0.1, 1.0, 5.0, 20.0),
    "lambda_l1": (0.0, 0.0, 1.0),
    "path_smooth": (0.0, 0.0, 5.0),
    "extra_trees": (False, False, True),
}
_START: Mapping[str, float | bool] = {
    "num_leaves": 15,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.3,
    "bagging_fraction": 0.75,
    "lambda_l2": 5.0,
    "lambda_l1": 0.0,
    "path_smooth": 0.0,
    "extra_trees": False,
}
# Where columns are many and say much the same, random thresholds of few columns generalise better.
_MANY = 100
_RANDOMISED: Mapping[str, float | bool] = {
    **_START,
    "num_leaves": 24,
    "min_data_in_leaf": 40,
    "feature_fraction": 0.05,
    "lambda_l2": 1.0,
    "extra_trees": True,
}


def settings_to_try(budget: int, seed: int, *, columns: int = 1) -> list[dict[str, Any]]:
    """So many different settings of LightGBM; the same for the same seed.

    Args:
        budget: How many.
        seed: Of those that are drawn.
        columns: Of the table.

    Example:
        >>> [one["extra_trees"] for one in settings_to_try(2, seed=0, columns=900)]
        [False, True]
    """
    rng = np.random.default_rng(seed)
    drawn: list[dict[str, Any]] = [dict(_START)]
    if columns > _MANY and budget > 1:
        drawn.append(dict(_RANDOMISED))
    while len(drawn) < budget:
        one = {name: values[int(rng.integers(len(values)))] for name, values in _SPACE.items()}
        if one not in drawn:
            drawn.append(one)
    return drawn
