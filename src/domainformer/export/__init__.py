"""Models in the formats of other runtimes, each checked against PyTorch before it is trusted.

Start with :func:`export_model`; :class:`ExportedModel` runs what it wrote. ``subject.py`` says what
is exported, ``onnx.py``, ``program.py`` and ``torchscript.py`` write, ``parity.py`` compares.

May import ``models``, ``tokenizers``, ``inference``, ``registry`` and what lies below; never
``training`` or ``evaluation``.
"""

from domainformer.export.inputs import InputSpec
from domainformer.export.parity import Parity
from domainformer.export.result import ExportedFile, ExportedModel, ExportReport
from domainformer.export.run import FORMATS, export_model, export_onnx

__all__ = [
    "FORMATS",
    "ExportReport",
    "ExportedFile",
    "ExportedModel",
    "InputSpec",
    "Parity",
    "export_model",
    "export_onnx",
]
