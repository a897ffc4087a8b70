"""Training a compressor of image tokens on a frozen vision-language model.

::

    VisionRunConfig ─▶ questions ─▶ rows ────────────▶ VisionTrainer ─▶ run/adapter/
    config.py          sources.py   collator.py        learner.py       run.py
                       examples.py  features, once     trainer.py

May import models, inference, data and what lies below; torch and transformers.
"""

from domainformer.training.vision.collator import VisionCollator
from domainformer.training.vision.config import (
    DynamicConfig,
    QuestionsConfig,
    TemperatureConfig,
    VisionDataConfig,
    VisionModelConfig,
    VisionRunConfig,
    VisionTrainingConfig,
)
from domainformer.training.vision.examples import pixels_of, questions_fingerprint, read_questions
from domainformer.training.vision.processor import ImageTextProcessor, open_base
from domainformer.training.vision.rows import FeatureStore, VisionRows
from domainformer.training.vision.sources import SOURCES, Source, Split, open_questions, source

__all__ = [
    "VisionRunConfig",
    "VisionModelConfig",
    "VisionDataConfig",
    "QuestionsConfig",
    "VisionTrainingConfig",
    "DynamicConfig",
    "TemperatureConfig",
    "read_questions",
    "pixels_of",
    "questions_fingerprint",
    "VisionCollator",
    "ImageTextProcessor",
    "open_base",
    "VisionRows",
    "FeatureStore",
    "SOURCES",
    "Source",
    "Split",
    "source",
    "open_questions",
]
