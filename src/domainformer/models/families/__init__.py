"""Families of language models behind one interface, so that training need not know which it has.

::

    config.json ─▶ adapter_class ─▶ CustomTransformerAdapter   domainformer's own
                                    QwenAdapter                Qwen2, 2.5, 3
                                    AutoModelAdapter           any other AutoModelForCausalLM
                                    UniversalAdapter           a module of the user's own

Start with :func:`adapter_for` (a folder becomes an adapter) and ``base.py`` (what an adapter can
do). A new family is one subclass of :class:`BaseAdapter` that names its ``model_types`` and its
``block_path``. May import its neighbours in ``models``, ``weights``, ``artifacts`` and ``errors``.
"""

from domainformer.models.families.auto import AutoModelAdapter
from domainformer.models.families.base import BaseAdapter
from domainformer.models.families.lookup import adapter_class, adapter_for
from domainformer.models.families.own import CustomTransformerAdapter
from domainformer.models.families.qwen import QwenAdapter
from domainformer.models.families.universal import UniversalAdapter

__all__ = [
    "BaseAdapter",
    "CustomTransformerAdapter",
    "QwenAdapter",
    "AutoModelAdapter",
    "UniversalAdapter",
    "adapter_for",
    "adapter_class",
]
