"""Tokenization beyond one process and beyond memory.

::

    files ─▶ fit_files ─▶ tokenizer ─▶ tokenize_files ─▶ TokenStore
                 └────────┬────────────────┘
                     TokenizePlan: fit_batch, encode_batch on rows of one entity each
                          │
             local.py    ray.py    spark.py      the same units of work, the same bytes

Start with `fit_files` and `tokenize_files`; ``plan.py`` is what an engine of your own calls.
`fit_table` and `tokenize_table` (``anysize.py``) take a table of any size and stream only where
they have to, after a first look at it (``glance.py``); so do `validate_table` and `drift_table`
(``looking.py``), which check and compare.
``tasks.py`` holds the units of work, ``stages.py`` the order of them, ``work.py`` the folder that
an interrupted call leaves, ``engines.py`` the list of engines. The grouping itself is in
`domainformer.data.grouping`.

May import ``tokenizers``, ``data`` and what lies below; ray and pyspark only inside the functions
of their files; never torch or transformers, so that a worker stays light.
"""

from domainformer.distributed.anysize import Means, fit_table, tokenize_table
from domainformer.distributed.encoding import tokenize_files
from domainformer.distributed.fitting import fit_files
from domainformer.distributed.looking import drift_table, validate_table
from domainformer.distributed.plan import TokenizePlan
from domainformer.distributed.progress import Progress

__all__ = [
    "fit_files",
    "tokenize_files",
    "fit_table",
    "tokenize_table",
    "validate_table",
    "drift_table",
    "Means",
    "TokenizePlan",
    "Progress",
]
