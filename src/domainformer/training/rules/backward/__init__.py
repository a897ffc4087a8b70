"""Rules of the backward pass: what gradient an operation gives, and what gradients pass on.

::

    straight_through.py   operations without a useful gradient, with that of the identity
    feedback.py           errors sent back through fixed random matrices
    signs.py              the sign of a gradient
    noise.py              annealed noise on a gradient
    clipping.py           gradients no larger than a limit
    rounding.py           gradients rounded to bfloat16 without bias

All of them are custom autograd functions at sites. The gradient at a site is that of its output,
dL/dy; what the rule makes of it is what flows on into the site and everything below. May import
what training may.
"""

from domainformer.training.rules.backward.clipping import GradientClippingAtSite
from domainformer.training.rules.backward.feedback import (
    DirectFeedbackAlignment,
    FeedbackAlignment,
)
from domainformer.training.rules.backward.noise import GradientNoise
from domainformer.training.rules.backward.rounding import StochasticRounding
from domainformer.training.rules.backward.signs import SignGradient
from domainformer.training.rules.backward.straight_through import StraightThrough

__all__ = [
    "StraightThrough",
    "FeedbackAlignment",
    "DirectFeedbackAlignment",
    "SignGradient",
    "GradientNoise",
    "GradientClippingAtSite",
    "StochasticRounding",
]
