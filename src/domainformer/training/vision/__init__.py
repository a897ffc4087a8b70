"""Training a compressor of image tokens on a frozen vision-language model.

::

    VisionRunConfig ─▶ questions ─▶ rows ────────────▶ VisionTrainer ─▶ run/adapter/
    config.py          sources.py   collator.py        trainer.py       run.py
                       examples.py  rows.py            learner.py
                                    (features, once)   judging.py

Start at :func:`train_vision` (``run.py``). What one step learns, and why its loss tells nothing,
is in ``learner.py``, with the teacher in ``guidance.py``, the tried budgets in ``trials.py`` and
what is read off answers in ``answers.py``; what is true is measured in ``judging.py``.
``processor.py`` opens the frozen model, ``building.py`` puts the parts of a run together, and
:func:`open_vision` (``opening.py``) opens what a run left.

The files ``base_*.py`` and ``packed_questions.py`` train the small Qwen2-VL of the recipes
(``vision base``); start at ``base_model.py``. No other model needs them.

May import models, inference, data and what lies below; torch and transformers.
"""

from domainformer.training.vision.answers import Judged, tokens_of
from domainformer.training.vision.collator import VisionCollator
from domainformer.training.vision.config import (
    DynamicConfig,
    GuidanceConfig,
    QuestionsConfig,
    TemperatureConfig,
    VisionDataConfig,
    VisionModelConfig,
    VisionRunConfig,
    VisionTrainingConfig,
)
from domainformer.training.vision.examples import pixels_of, questions_fingerprint, read_questions
from domainformer.training.vision.judging import judge
from domainformer.training.vision.learner import VisionLearner
from domainformer.training.vision.opening import OpenedVision, open_vision
from domainformer.training.vision.processor import ImageTextProcessor, open_base
from domainformer.training.vision.rows import FeatureStore, VisionRows
from domainformer.training.vision.run import VisionRun, train_vision
from domainformer.training.vision.sources import SOURCES, Source, Split, open_questions, source
from domainformer.training.vision.trainer import VisionTrainer

__all__ = [
    "train_vision",
    "VisionRun",
    "open_vision",
    "OpenedVision",
    "VisionRunConfig",
    "VisionModelConfig",
    "VisionDataConfig",
    "QuestionsConfig",
    "VisionTrainingConfig",
    "DynamicConfig",
    "GuidanceConfig",
    "TemperatureConfig",
    "read_questions",
    "pixels_of",
    "questions_fingerprint",
    "VisionCollator",
    "ImageTextProcessor",
    "open_base",
    "VisionRows",
    "FeatureStore",
    "VisionLearner",
    "VisionTrainer",
    "Judged",
    "judge",
    "tokens_of",
    "SOURCES",
    "Source",
    "Split",
    "source",
    "open_questions",
]
