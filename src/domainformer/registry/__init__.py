"""A registry of models on one machine: named, checked, and each with the model it came from.

Start with :class:`Registry`. May import inference, models, data, run and everything below, torch
and transformers only inside functions: listing models loads neither.
"""

from domainformer.registry.entry import Entry, Sizes
from domainformer.registry.registry import Registry

__all__ = ["Registry", "Entry", "Sizes"]
