"""From files of events to arrays that a model can be trained on.

::

    readers ─▶ EventTable ─▶ splits ─▶ (tokenizer) ─▶ TokenStore ─▶ windows, packing ─▶ dataset
    simulate ─┘

Start at ``table.py``: an EventTable is columns sorted by entity and time with an offsets array,
and all else builds on it. ``keys.py`` makes entity and time columns comparable, ``readers.py``
and ``meds.py`` open files, ``splits.py`` keeps training and test apart, ``simulate.py`` makes
tables of any size.

May import ``schema`` and what lies below it; never torch, transformers, models or tokenizers.
"""

from domainformer.data.table import EventTable

__all__ = ["EventTable"]
