"""From files of events to arrays that a model can be trained on.

::

    readers ─▶ EventTable ─▶ splits ─▶ (tokenizer) ─▶ TokenStore ─▶ windows, packing ─▶ dataset
    simulate ─┘

Start at ``table.py``: an EventTable is columns sorted by entity and time with an offsets array,
and all else builds on it. ``keys.py`` makes entity and time columns comparable; ``readers.py``
(with ``delimited.py`` for CSV) and ``meds.py`` open files, ``frames.py`` takes the tables of other
libraries, ``sources.py`` stacks the tables of several kinds of event; ``splits.py`` keeps training
and test apart; ``simulate.py`` makes tables of any size. What exceeds memory is read by
``event_files.py`` (with ``columns.py`` for types) and brought together by entity in
``grouping.py`` (with ``hashing.py``).
After the tokenizer, ``tokens.py`` holds ragged ids in memory, ``store.py`` and ``shards.py`` on
disk; ``packing.py`` cuts windows and fills rows, ``budgets.py`` cuts them where sources have shares
of the context, ``dataset.py`` serves them.
Text has a path of its own: ``text.py`` reads and splits files (``text_stream.py`` reads them in
parts), ``text_policy.py`` says which characters a text may hold, ``windows.py`` (with
``text_windows.py``) cuts ids into rows.

May import ``schema`` and what lies below it; never torch, transformers, models or tokenizers.
"""

from domainformer.data.budgets import (
    BudgetedWindows,
    Budgets,
    keep_within_budgets,
    plan_budgeted,
)
from domainformer.data.dataset import IGNORED, DomainSequenceDataset
from domainformer.data.meds import read_meds
from domainformer.data.packing import (
    Packing,
    Windows,
    pack,
    plan_scoring_windows,
    plan_windows,
)
from domainformer.data.simulate import simulate, simulate_frames, write_simulated
from domainformer.data.sources import combine_sources
from domainformer.data.splits import (
    TEST,
    TRAIN,
    VALIDATION,
    Split,
    check_disjoint,
    split_by_entity,
    split_by_time,
)
from domainformer.data.store import TokenStore
from domainformer.data.table import EventTable
from domainformer.data.text import (
    Document,
    normalise_documents,
    read_texts,
    split_text,
    text_fingerprint,
)
from domainformer.data.text_policy import TextReport, normalise, policy_characters
from domainformer.data.text_windows import TextWindows
from domainformer.data.tokens import History, TokenizedEvents, id_dtype
from domainformer.data.windows import SequenceBuilder

__all__ = [
    "EventTable",
    "read_meds",
    "combine_sources",
    "TRAIN",
    "VALIDATION",
    "TEST",
    "Split",
    "split_by_time",
    "split_by_entity",
    "check_disjoint",
    "simulate",
    "simulate_frames",
    "write_simulated",
    "History",
    "TokenizedEvents",
    "TokenStore",
    "id_dtype",
    "Packing",
    "Windows",
    "pack",
    "plan_windows",
    "plan_scoring_windows",
    "Budgets",
    "BudgetedWindows",
    "plan_budgeted",
    "keep_within_budgets",
    "DomainSequenceDataset",
    "IGNORED",
    "Document",
    "read_texts",
    "normalise",
    "normalise_documents",
    "policy_characters",
    "TextReport",
    "split_text",
    "text_fingerprint",
    "SequenceBuilder",
    "TextWindows",
]
