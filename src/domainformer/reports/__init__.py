"""One page that tells a whole run: data, tokens, training, evaluation, embeddings, identity.

::

    run folder ─▶ collect (plain data) ─▶ sections (HTML) + charts (SVG) ─▶ page ─▶ report.html

Start at :func:`~domainformer.reports.page.write_report`, then
:mod:`~domainformer.reports.collect` (what a run folder holds) and
:mod:`~domainformer.reports.markup` (HTML that cannot forget to escape); each file of ``sections``
is one part of the page. :mod:`~domainformer.reports.language` is the page of a language model's
run, :mod:`~domainformer.reports.contest_page` that of a contest,
:mod:`~domainformer.reports.ablation` that of an ablation, :mod:`~domainformer.reports.comparison`
that of runs beside each other, :mod:`~domainformer.reports.explanations` that of an explanation.
Charts need the extra ``report``. May import evaluation and all below.
"""

from domainformer.reports.ablation import write_ablation_report
from domainformer.reports.comparison import write_comparison_report
from domainformer.reports.contest_page import write_contest_report
from domainformer.reports.page import REPORT_FILE, write_report

__all__ = [
    "write_report",
    "write_contest_report",
    "write_ablation_report",
    "write_comparison_report",
    "REPORT_FILE",
]
