"""Learning rules: changes of how a model learns, chosen by name, combined in order.

::

    base.py         what a rule is: frozen settings, pure steps, state as plain data
    sites.py        where it acts: blocks.*.mlp
    chain.py        several rules are one rule
    attachment.py   on a model for a while, and off without residue
    table.py        names
    external.py     rules of users
    compiled.py     do they do the same under torch.compile?
    finite.py       which rule made something that is not finite
    forward/        values        backward/    gradients at sites
    update/         weights       auxiliary/   terms of the loss

Start with ``base.py``. May import what training may.
"""

from domainformer.training.rules.attachment import Attached, attach
from domainformer.training.rules.base import LearningRule, Moment, Seen, Site, State
from domainformer.training.rules.chain import Chain, chain
from domainformer.training.rules.compiled import check_compiled
from domainformer.training.rules.external import load_rules
from domainformer.training.rules.sites import find_sites, site_names
from domainformer.training.rules.table import RULES, make_rules, rule_class

__all__ = [
    "LearningRule",
    "Site",
    "State",
    "Moment",
    "Seen",
    "chain",
    "Chain",
    "attach",
    "Attached",
    "RULES",
    "make_rules",
    "rule_class",
    "load_rules",
    "check_compiled",
    "find_sites",
    "site_names",
]
