"""Rules of the loss: terms that are added to it.

::

    base.py           a weight and a term         z_loss.py         the size of logits
    smoothing.py      labels, confidence          sparsity.py       activations near zero
    orthogonality.py  weight matrices             distillation.py   a teacher's probabilities

Start with ``z_loss.py``, the smallest. May import what training may.
"""

from domainformer.training.rules.auxiliary.distillation import Distillation
from domainformer.training.rules.auxiliary.orthogonality import Orthogonality
from domainformer.training.rules.auxiliary.smoothing import ConfidencePenalty, LabelSmoothing
from domainformer.training.rules.auxiliary.sparsity import ActivationSparsity
from domainformer.training.rules.auxiliary.z_loss import ZLoss

__all__ = [
    "ZLoss",
    "LabelSmoothing",
    "ConfidencePenalty",
    "ActivationSparsity",
    "Orthogonality",
    "Distillation",
]
