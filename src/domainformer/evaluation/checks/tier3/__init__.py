"""Tier 3, short trainings of copies: is the model worth training, and how?

``rates.py`` finds a learning rate and ``tuning.py`` the settings around it; ``baselines.py`` and
``robustness.py`` judge what comes of it (``contender.py``); ``exporting.py`` and ``speed.py`` ask
whether it can be used.
"""

from domainformer.evaluation.checks.context import Check
from domainformer.evaluation.checks.tier3.baselines import check_baselines
from domainformer.evaluation.checks.tier3.exporting import check_export
from domainformer.evaluation.checks.tier3.rates import check_learning_rates
from domainformer.evaluation.checks.tier3.robustness import check_robustness
from domainformer.evaluation.checks.tier3.speed import check_throughput
from domainformer.evaluation.checks.tier3.tuning import check_short_training

CHECKS: dict[str, Check] = {
    "learning_rates": check_learning_rates,
    "short_training": check_short_training,
    "baselines": check_baselines,
    "robustness": check_robustness,
    "export_parity": check_export,
    "throughput": check_throughput,
}

__all__ = ["CHECKS"]
