"""Any ``nn.Module`` that reads token ids, behind one way to call it.

::

    model ─▶ ModelSignatureInspector ─▶ liveness ─▶ providers ─▶ bind ─▶ BoundModel
             what each argument is for   dead names  a graph      refuses what it cannot resolve

Start at ``binding.py`` (``bind``), then ``signature.py`` and ``aliases.py`` (what an argument is
for; ``evidence.py`` where its name says nothing, ``layouts.py`` for the family) and ``outputs.py``
(finding the logits).

Names: ``forward.py`` (where ``forward`` is written), ``scopes.py`` and ``flow.py`` (which names
are whose, in which order they are read and written), ``liveness.py`` (the verdict on them),
``sentinels.py`` (what dead arguments get), ``repair.py`` (a diff). Graphs: ``graph.py``
(providers) and ``executor.py`` (each output once per forward). Files: ``source.py`` and
``sandbox.py`` (read, or run within limits) and ``inspection.py`` (all of it in one call).

Proof and use: ``verification.py`` (``verify``; the questions are in ``probes.py``,
``context_probes.py``, ``invariance_probes.py`` and ``gradient_probes.py``, the answer in
``verdict.py``), ``pretrained.py`` (a model of transformers; ``configuration.py`` and
``identity.py`` know the module again, ``parts.py`` fills it) and ``module.py`` (a LightningModule,
imported only when it is asked for).

May import torch, transformers, ``errors`` and the other models; it runs code of the user's only
where a model is given to it, or on request.
"""

from domainformer.models.universal.aliases import ALIASES, Role
from domainformer.models.universal.binding import BoundModel, BoundOutput, bind
from domainformer.models.universal.configuration import UniversalConfig
from domainformer.models.universal.executor import ComputationalGraphExecutor
from domainformer.models.universal.graph import Provider
from domainformer.models.universal.identity import given_module
from domainformer.models.universal.inspection import FileInspection, inspect_file
from domainformer.models.universal.liveness import Finding, Liveness, analyse
from domainformer.models.universal.pretrained import UniversalForCausalLM
from domainformer.models.universal.repair import Repair, propose_repair
from domainformer.models.universal.sentinels import Untouchable
from domainformer.models.universal.signature import ForwardParameter, ModelSignatureInspector
from domainformer.models.universal.source import LoadedSource, load_source, read_source
from domainformer.models.universal.verdict import CheckResult, Verdict
from domainformer.models.universal.verification import verify

__all__ = [
    "bind",
    "BoundModel",
    "BoundOutput",
    "ModelSignatureInspector",
    "ForwardParameter",
    "Role",
    "ALIASES",
    "ComputationalGraphExecutor",
    "Provider",
    "Untouchable",
    "analyse",
    "Liveness",
    "Finding",
    "propose_repair",
    "Repair",
    "inspect_file",
    "FileInspection",
    "load_source",
    "read_source",
    "LoadedSource",
    "verify",
    "Verdict",
    "CheckResult",
    "UniversalConfig",
    "UniversalForCausalLM",
    "given_module",
]
