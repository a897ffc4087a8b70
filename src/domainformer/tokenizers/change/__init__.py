"""When data change: extend a fitted tokenizer, compare two, and see whether one still fits.

::

    extension.py     extend: new values and merges, and no old id moves: start here
    drifting.py      drift: a table against what the fit has seen, with a verdict
    observing.py     what a table looks like, in parts that add up
    comparison.py, stability.py    the groups that drift compares, and its index
    difference.py    diff_tokenizers: what differs between two tokenizers

What a fit has seen is counted by `tokenizers.occupancy` and kept as `tokenizers.reference`. May
import the rest of ``tokenizers`` and what lies below it; no torch.
"""

from domainformer.tokenizers.change.difference import FieldDiff, TokenizerDiff, diff_tokenizers
from domainformer.tokenizers.change.drifting import DriftReport, SlotDrift, TextDrift, drift
from domainformer.tokenizers.change.extension import ExtendResult, FieldExtension, extend

__all__ = [
    "extend",
    "ExtendResult",
    "FieldExtension",
    "drift",
    "DriftReport",
    "SlotDrift",
    "TextDrift",
    "diff_tokenizers",
    "TokenizerDiff",
    "FieldDiff",
]
