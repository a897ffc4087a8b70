"""Tier 1, seconds: does the model compute what it says, and can it learn at all?

``invariants.py`` asks the probes of ``models/universal``; ``initialisation.py``, ``stability.py``,
``overfitting.py`` and ``persistence.py`` ask what is left.
"""

from domainformer.evaluation.checks.context import Check
from domainformer.evaluation.checks.tier1.initialisation import check_initial_loss, check_weights
from domainformer.evaluation.checks.tier1.invariants import (
    check_batch_invariance,
    check_cache,
    check_causality,
    check_causality_in_training,
    check_determinism,
    check_gradients,
    check_modules_called,
    check_shapes,
)
from domainformer.evaluation.checks.tier1.overfitting import check_overfitting
from domainformer.evaluation.checks.tier1.persistence import check_persistence
from domainformer.evaluation.checks.tier1.stability import check_stability

CHECKS: dict[str, Check] = {
    "shapes": check_shapes,
    "determinism": check_determinism,
    "gradients": check_gradients,
    "modules_called": check_modules_called,
    "causality": check_causality,
    "causality_in_training": check_causality_in_training,
    "batch_invariance": check_batch_invariance,
    "cache": check_cache,
    "weights": check_weights,
    "initial_loss": check_initial_loss,
    "stability": check_stability,
    "overfit_one_batch": check_overfitting,
    "save_load": check_persistence,
}

__all__ = ["CHECKS"]
