"""Checks of any model that reads tokens, in three tiers, each with its reason and its remedy.

::

    model | folder ─▶ kinds.py   ─▶ Subject ─▶ tier1/  seconds: does it compute what it says?
                      (what it is)             tier2/  minutes: how does it compute it?
                                               tier3/  trains: is it worth training?
                                           ─▶ CheckReport (report.py)

Start with :func:`~domainformer.evaluation.checks.run.check`; ``run.py`` has the table of all
checks. ``opening.py`` reads folders and texts, ``subject.py`` makes models of all kinds answer
alike, ``context.py`` holds what a check is given, ``source.py`` makes data whose entropy is known,
and ``training.py`` trains copies: the model itself is as before after each check. A check is one
function from a context to a :class:`~domainformer.models.universal.verdict.CheckResult`; what it
cannot ask of a model it skips, with the reason.

May import training, export, models and what lies below.
"""

from domainformer.evaluation.checks.opening import open_model
from domainformer.evaluation.checks.report import CheckReport
from domainformer.evaluation.checks.run import CHECKS, check
from domainformer.models.universal.verdict import CheckResult

__all__ = ["CHECKS", "CheckReport", "CheckResult", "check", "open_model"]
