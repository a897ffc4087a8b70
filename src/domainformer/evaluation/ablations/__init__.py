"""What each choice of a run is worth: one factor varied at a time, trained, judged, compared.

::

    config.py       the configuration: a run, axes, how to judge
    axes.py         the axes: what each changes, its variants. To add one, start here
    variants.py     axes of the user's own, and values for ours
    schemas.py      schemas with less, or with other options
    plan.py         all variants as complete configurations; a folder of another base is refused
    trials.py       one variant with one seed: trained, scored, remembered
    scores.py       what it said about held-out events, comparable between tokenizations
    downstream.py   what its embeddings are worth
    differences.py  paired differences and their intervals
    summary.py      figures of all variants, on what they have in common
    result.py       the table
    ablate.py       the call

Start at :func:`ablate`. May import the rest of ``evaluation`` and what lies below.
"""

from domainformer.evaluation.ablations.ablate import ablate
from domainformer.evaluation.ablations.axes import AXES, Axis, Base, Skip, Variant
from domainformer.evaluation.ablations.config import (
    AblationConfig,
    AblationSettings,
    load_ablation,
)
from domainformer.evaluation.ablations.result import RESULT_FILE, Ablation

__all__ = [
    "ablate",
    "Ablation",
    "RESULT_FILE",
    "AblationConfig",
    "AblationSettings",
    "load_ablation",
    "AXES",
    "Axis",
    "Base",
    "Variant",
    "Skip",
]
