"""From raw events or text to answers in one call.

::

    pipeline("event-embedding", model=…)       table ─▶ a vector per entity
    pipeline("event-classification", model=…)  table ─▶ probabilities per entity, or per row
    pipeline("next-event", model=…)            table ─▶ future events
    pipeline("text-generation", model=…)       text  ─▶ its continuation

Start with :func:`pipeline`. ``loading.py`` finds and opens a model wherever it is: a folder, a run,
a name of the registry, a repository of the hub at a revision.

May import registry, inference and what lies below.
"""

from domainformer.pipelines.loading import load_model
from domainformer.pipelines.pipeline import TASKS, pipeline

__all__ = ["TASKS", "load_model", "pipeline"]
