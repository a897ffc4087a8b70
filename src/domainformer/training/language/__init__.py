"""Language models over text: from files to a sampled model, through the engine of all trainings.

::

    texts ─▶ normalise ─▶ split ─▶ ids ─▶ windows ─▶ train ─▶ model/   score.json   samples.jsonl
    data/text.py            tokenizers/language     data/windows.py     scoring.py   sampling.py

Start with ``config.py`` (everything that can be chosen) and ``run.py`` (how a run goes). May
import the registry, models, tokenizers, data and the rest of training.
"""

from domainformer.training.language.config import SamplingConfig, TextDataConfig, TextRunConfig
from domainformer.training.language.opening import LanguageModel, open_language_model
from domainformer.training.language.run import train
from domainformer.training.language.sampling import sample, stream
from domainformer.training.language.scoring import TextScore, score

__all__ = [
    "TextRunConfig",
    "TextDataConfig",
    "SamplingConfig",
    "train",
    "score",
    "TextScore",
    "sample",
    "stream",
    "LanguageModel",
    "open_language_model",
]
