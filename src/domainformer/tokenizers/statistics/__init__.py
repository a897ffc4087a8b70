"""Mergeable summaries of data, from which field tokenizers are fitted.

::

    QuantileSketch   magnitudes and gaps       exact below 65,536 distinct values, then buckets
    CountSketch      categories, whole numbers exact below 1,048,576, then two passes
    TextSketch       texts for the BPE         distinct texts with the smallest hashes
    ExtremesSketch   years                     smallest and largest

Each is bounded in memory, and depends only on the *set of events* it has seen: no partition,
order of rows, hash seed or number of workers can be told from its `state`. Start at `base`, then
read `quantiles`; `codec` writes them as bytes. `tokenizers.fitting.FitStatistics` holds one per
field.

May import: errors, `data.hashing`, numpy, polars and pyarrow; nothing else of `tokenizers`.
"""

from domainformer.tokenizers.statistics.base import Limits, NoSketch, Sketch, SketchState
from domainformer.tokenizers.statistics.countmin import CountMinTable
from domainformer.tokenizers.statistics.counts import CountSketch, Frequent
from domainformer.tokenizers.statistics.extremes import ExtremesSketch
from domainformer.tokenizers.statistics.hashing import stable_hash
from domainformer.tokenizers.statistics.quantiles import QuantileSketch, Weighted, bucket_floor
from domainformer.tokenizers.statistics.recount import RecountSketch
from domainformer.tokenizers.statistics.texts import TextSketch

__all__ = [
    "Limits",
    "Sketch",
    "SketchState",
    "NoSketch",
    "QuantileSketch",
    "Weighted",
    "bucket_floor",
    "CountSketch",
    "Frequent",
    "RecountSketch",
    "CountMinTable",
    "TextSketch",
    "ExtremesSketch",
    "stable_hash",
]
