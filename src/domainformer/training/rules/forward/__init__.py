"""Rules of values: what flows through a model is changed at chosen sites.

::

    noise.py      Gaussian noise               dropout.py       elements, tokens, branches, heads
    clamp.py      bounds, hard and smooth      scaling.py       of residual branches and norms
    normalise.py  norms without weights        nonlinearity.py  another activation function
    attention.py  temperature, soft cap, window, normed queries and keys
    recorder.py   looks and changes nothing

    timing.py     from which step to which     depth.py         which block a site is in
    interface.py  how rules reach attention scores: transformers' own attention interface

Start with ``clamp.py``, the smallest. May import what training may.
"""

from domainformer.training.rules.forward.attention import (
    AttentionSoftcap,
    AttentionTemperature,
    AttentionWindow,
    QueryKeyNorm,
)
from domainformer.training.rules.forward.clamp import ActivationClamp
from domainformer.training.rules.forward.dropout import (
    ActivationDropout,
    HeadDropout,
    StochasticDepth,
)
from domainformer.training.rules.forward.noise import ActivationNoise
from domainformer.training.rules.forward.nonlinearity import ReplaceActivation
from domainformer.training.rules.forward.normalise import ActivationNorm
from domainformer.training.rules.forward.recorder import ActivationRecorder
from domainformer.training.rules.forward.scaling import NormScaling, ResidualScaling

__all__ = [
    "ActivationNoise",
    "ActivationDropout",
    "StochasticDepth",
    "HeadDropout",
    "ActivationClamp",
    "ActivationNorm",
    "ResidualScaling",
    "NormScaling",
    "ReplaceActivation",
    "AttentionTemperature",
    "AttentionSoftcap",
    "AttentionWindow",
    "QueryKeyNorm",
    "ActivationRecorder",
]
