"""The parts of the page, one file each: plain data in, one ``<section>`` out.

A part whose data is missing says how to get it, in one line, or is left out (an empty text). May
import charts, markup, numbers and what the page collects; parts do not know each other.
"""

from domainformer.reports.sections.contest import contest_section
from domainformer.reports.sections.data_card import data_section
from domainformer.reports.sections.downstream import map_section, probe_section
from domainformer.reports.sections.explanation import explanation_section
from domainformer.reports.sections.identity import identity_section
from domainformer.reports.sections.next_steps import next_section
from domainformer.reports.sections.overview import overview
from domainformer.reports.sections.training import training_section
from domainformer.reports.sections.vocabulary import vocabulary_section

__all__ = [
    "overview",
    "data_section",
    "vocabulary_section",
    "training_section",
    "contest_section",
    "probe_section",
    "map_section",
    "explanation_section",
    "next_section",
    "identity_section",
]
