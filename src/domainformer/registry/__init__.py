"""A registry of models on one machine: named, checked, and each with the model it came from.

::

    hub or folder ──import_model──▶ models/qwen/ ──load──▶ adapter ──train──▶ run ──publish──▶ …
                                    registry.json: sha256, origin, parent ──▶ lineage

Start with :class:`Registry`. ``entry.py`` is what it knows of a model, ``store.py`` its file and
lock, ``contents.py`` what a model folder says of itself, ``staging.py`` how its files come in,
``parents.py`` and ``lineage.py`` the descent, ``importing.py`` and ``hub.py`` the way in,
``card.py`` and ``pushing.py`` the way out.

May import inference, models, data, run and everything below; torch and transformers only inside
functions, so that listing models loads neither.
"""

from domainformer.registry.card import model_card
from domainformer.registry.entry import Entry, Sizes
from domainformer.registry.importing import import_model
from domainformer.registry.lineage import Lineage, LineageNode
from domainformer.registry.pushing import push_to_hub
from domainformer.registry.registry import Registry

__all__ = [
    "Registry",
    "Entry",
    "Sizes",
    "Lineage",
    "LineageNode",
    "import_model",
    "model_card",
    "push_to_hub",
]
