"""The inner loops of tokenization: what they take, in numpy and as machine code.

By the time these run, every field is a column of codes and a small table that says which ids each
code stands for. What is left is a ragged concatenation::

    event i   │ table₀[code₀[i]] │ table₁[code₁[i]] │ text[code₂[i]] … │     one after the other
    ids       │        7         │    31  32  40    │   90 512 18      │ 7 │ 33 32 41 │ 90 77 │ …

Start at `joining` (`Spans`, and the join in numpy, complete and always there). With numba (extra
``fast``) the ids are the same: `fused` joins in one pass over the raw columns, `strings` finds
distinct strings, `merging` encodes plain texts. `sources` and `cells` turn numbers into codes,
`compiling` is where numba comes in.

May import: errors, numpy, polars and pyarrow; numba inside `compiling` alone.
"""

from domainformer.tokenizers.kernels.compiling import numba_available, worth_compiling
from domainformer.tokenizers.kernels.joining import Ids, Joined, Spans, event_offsets, join
from domainformer.tokenizers.kernels.merging import Merges, encode_plain
from domainformer.tokenizers.kernels.sources import Binned, Stepped, bin_ids
from domainformer.tokenizers.kernels.strings import distinct_codes, distinct_strings, string_views

__all__ = [
    "join",
    "Spans",
    "Joined",
    "Ids",
    "Binned",
    "Stepped",
    "bin_ids",
    "event_offsets",
    "distinct_strings",
    "distinct_codes",
    "string_views",
    "Merges",
    "encode_plain",
    "numba_available",
    "worth_compiling",
]
