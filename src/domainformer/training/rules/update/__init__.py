"""Rules of the update: what happens to gradients and weights around an optimizer's step.

::

    gradients ─▶ clipping.py, direction.py ─▶ the optimizer ─▶ averages.py ─▶ weights
                                              standard.py (AdamW, SGD)
                                              lion.py
                                              muon.py ── orthogonal.py

``groups.py`` says which parameter is what, and gives some of them settings of their own. Start with
``direction.py``, the shortest. May import what training may.
"""

from domainformer.training.rules.update.averages import EMAWeights, Lookahead, ScheduleFree
from domainformer.training.rules.update.clipping import (
    AdaptiveGradientClipping,
    ClipGradientNorm,
    ClipGradientValue,
)
from domainformer.training.rules.update.direction import CentraliseGradient, SignOfGradient
from domainformer.training.rules.update.groups import GroupSettings, parameter_kinds
from domainformer.training.rules.update.lion import Lion, LionOptimizer
from domainformer.training.rules.update.muon import Muon, MuonOptimizer
from domainformer.training.rules.update.orthogonal import orthogonalise, polar_express
from domainformer.training.rules.update.standard import SGD, AdamW

__all__ = [
    "ClipGradientValue",
    "ClipGradientNorm",
    "AdaptiveGradientClipping",
    "CentraliseGradient",
    "SignOfGradient",
    "AdamW",
    "SGD",
    "Lion",
    "LionOptimizer",
    "Muon",
    "MuonOptimizer",
    "EMAWeights",
    "Lookahead",
    "ScheduleFree",
    "GroupSettings",
    "parameter_kinds",
    "orthogonalise",
    "polar_express",
]
