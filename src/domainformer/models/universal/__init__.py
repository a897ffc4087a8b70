"""Any ``nn.Module`` that reads token ids, behind one way to call it.

::

    model ─▶ ModelSignatureInspector ─▶ liveness ─▶ providers ─▶ bind ─▶ BoundModel
             what each argument is for   dead names  a graph      refuses what it cannot resolve

Start at ``binding.py`` (``bind``), then ``signature.py`` and ``aliases.py`` (what an argument is
for) and ``outputs.py`` (finding the logits). May import torch, transformers, ``errors`` and the
other models; it runs code of the user's only where a model is given to it, or on request.
"""

from domainformer.models.universal.aliases import ALIASES, Role
from domainformer.models.universal.binding import BoundModel, BoundOutput, bind
from domainformer.models.universal.signature import ForwardParameter, ModelSignatureInspector

__all__ = [
    "bind",
    "BoundModel",
    "BoundOutput",
    "ModelSignatureInspector",
    "ForwardParameter",
    "Role",
    "ALIASES",
]
