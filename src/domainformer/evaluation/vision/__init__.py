"""How much of a vision-language model's accuracy a selector of image tokens keeps.

Start with :func:`evaluate_selectors`: the same questions to the full model, to learned selectors
and to baselines (:data:`domainformer.models.vision.baselines.BASELINES`), at several budgets, with
the dropped tokens gone. :class:`VisionSummary` puts seeds together. May import models, data and
what lies below.
"""

from domainformer.evaluation.vision.answers import Answers, answer
from domainformer.evaluation.vision.results import VisionCell, VisionResults, wilson
from domainformer.evaluation.vision.selectors import budget_name, evaluate_selectors
from domainformer.evaluation.vision.summary import SummaryCell, VisionSummary

__all__ = [
    "evaluate_selectors",
    "VisionResults",
    "VisionCell",
    "VisionSummary",
    "SummaryCell",
    "Answers",
    "answer",
    "budget_name",
    "wilson",
]
