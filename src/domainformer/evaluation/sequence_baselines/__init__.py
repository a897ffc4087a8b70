"""Baselines that read the order of events: what a Transformer over domain tokens has to beat.

::

    popular ─ repeat_last ─ counts ─▶ ranker       the next value of a category (values.py)
    gru                                            any label, on the Transformer's own tokens
    text                                           any label, events written down as text

Each is a :class:`~domainformer.evaluation.tasks.Model`, a frozen dataclass of plain settings, and a
line in :mod:`~domainformer.evaluation.contest.table`. Start at ``counts.py``; ``ranker.py`` chooses
among candidates whose features ``candidates.py`` makes from ``past.py``; ``gru.py`` trains the
network of ``reader_model.py`` on the windows of ``reading.py``. May import what ``evaluation`` may,
and from ``contest`` the schemas and the ``sequence`` model.
"""

from domainformer.evaluation.sequence_baselines.counts import Counts, Popular, RepeatLast
from domainformer.evaluation.sequence_baselines.gru import GRU
from domainformer.evaluation.sequence_baselines.ranker import Ranker
from domainformer.evaluation.sequence_baselines.text import TextSerialisation

__all__ = ["Popular", "RepeatLast", "Counts", "Ranker", "GRU", "TextSerialisation"]
