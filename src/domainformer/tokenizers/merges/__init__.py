"""Merges: one token for what often occurs together, in an event or in adjacent ones (ActionPiece).

::

    actionpiece.py      ActionPieceMerges: fit, encode, decode, describe, save: start here
    result.py           learn_merges: learn from a store, and say what it saves
    dataset.py          rows for training that are permuted anew in every epoch
    averaging.py        one answer from several permuted encodings
    table.py            what each merged token is made of
    fitting.py          which events, in which units
    encoding.py, decoding.py    ids to merged ids, and back
    chain.py, ledger.py, loops.py, learning.py    the loops: chains of sets, weights of pairs,
                        applying rules, learning them
    histories.py        histories as the loops take them
    compiled.py         the loops as machine code, by numba
    files.py            the saved file

May import ``data`` and what lies below, and of ``tokenizers`` only ``kernels``; never ``models``.
Works on `TokenizedEvents`, whatever made them: an event is a set of ids.
"""

from domainformer.tokenizers.merges.actionpiece import ActionPieceMerges
from domainformer.tokenizers.merges.averaging import average_encodings, fuse_rankings
from domainformer.tokenizers.merges.dataset import PermutedSequenceDataset
from domainformer.tokenizers.merges.result import MergesResult, Shortening, learn_merges
from domainformer.tokenizers.merges.table import MergeTable

__all__ = [
    "ActionPieceMerges",
    "learn_merges",
    "MergesResult",
    "Shortening",
    "MergeTable",
    "PermutedSequenceDataset",
    "average_encodings",
    "fuse_rankings",
]
