"""Looking at a fitted tokenizer: what its tokens say, and whether it keeps its promises.

::

    describe.py   describe_tokenizer, describe_vocabulary: tables of positions and tokens
    annotate.py   annotate_event: one event, token by token; typical.py makes one up
    merged.py     describe_merges: what merged tokens stand for
    meaning.py    what one token says, in words
    validate.py   validate_tokenizer: a report; checks.py and truth.py hold the checks

Start at `describe`. May import all of ``tokenizers`` and what lies below it; nothing there imports
this package.
"""

from domainformer.tokenizers.inspection.annotate import (
    AnnotatedEvent,
    AnnotatedToken,
    annotate_event,
    example_event,
)
from domainformer.tokenizers.inspection.checks import Check
from domainformer.tokenizers.inspection.describe import (
    TokenizerDescription,
    describe_tokenizer,
    describe_vocabulary,
    render_vocabulary,
)
from domainformer.tokenizers.inspection.merged import MergesDescription, describe_merges
from domainformer.tokenizers.inspection.validate import ValidationReport, validate_tokenizer

__all__ = [
    "describe_tokenizer",
    "TokenizerDescription",
    "describe_vocabulary",
    "render_vocabulary",
    "describe_merges",
    "MergesDescription",
    "annotate_event",
    "example_event",
    "AnnotatedEvent",
    "AnnotatedToken",
    "validate_tokenizer",
    "ValidationReport",
    "Check",
]
