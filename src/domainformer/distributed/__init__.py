"""Tokenization beyond one process and beyond memory.

::

    files ─▶ fit_files ─▶ tokenizer ─▶ tokenize_files ─▶ TokenStore
                 └────────┬────────────────┘
                     TokenizePlan: fit_batch, encode_batch on rows of one entity each
                          │
             local.py    ray.py    spark.py      the same units of work, the same bytes

Start with `fit_files` and `tokenize_files`; ``plan.py`` is what an engine of your own calls.
``tasks.py`` holds the units of work, ``stages.py`` the order of them, ``work.py`` the folder that
an interrupted call leaves, ``engines.py`` the list of engines. The grouping itself is in
`domainformer.data.grouping`.

May import ``tokenizers``, ``data`` and what lies below; ray and pyspark only inside the functions
of their files; never torch or transformers, so that a worker stays light.
"""

from domainformer.distributed.encoding import tokenize_files
from domainformer.distributed.fitting import fit_files
from domainformer.distributed.plan import TokenizePlan
from domainformer.distributed.progress import Progress

__all__ = ["fit_files", "tokenize_files", "TokenizePlan", "Progress"]
