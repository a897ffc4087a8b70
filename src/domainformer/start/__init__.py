"""The beginning: looks at data, asks at most six questions, and writes a commented configuration.

::

    data ─look─▶ Found ─questions─▶ Plan ─write─▶ run.yaml (and schema.yaml) ─▶ pretrain | train
                   │        ▲
                   └ default and why ─ asked by whoever can: a terminal, a test, nobody (defaults)

Start at ``begin.py`` (``begin``: all of it, ``write_start``: the same without questions). What lies
there is told in ``found.py``; a question and how its answer is checked in ``questions.py``; which
questions there are in ``events.py`` and ``texts.py``; the file with its comments in ``writing.py``.

Stands below the command line, which asks and prints, and above ``quickstart``, whose settings it
takes. May import everything below.
"""

from domainformer.start.begin import Written, begin, write_start
from domainformer.start.found import EventsFound, TextFound, candidates, look
from domainformer.start.questions import Ask, Question

__all__ = [
    "begin",
    "write_start",
    "Written",
    "look",
    "candidates",
    "EventsFound",
    "TextFound",
    "Question",
    "Ask",
]
