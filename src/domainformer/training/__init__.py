"""Training: from a configuration to a run folder with a model, crash-safe and repeatable.

::

    RunConfig ─▶ prepare ─▶ plan ─▶ EventTrainer ─▶ bundle          pretrain (engine.py)
                 table,     steps,  the Trainer,    run/model/
                 store      batch   checkpoints                     finetune (finetune.py)

Start at ``config.py`` (what can be configured), then ``engine.py`` (how a run goes). The loop and
its checkpoints are in ``trainer.py`` and ``checkpoints.py``; ``preparation.py`` makes tokens of the
table, ``plan.py`` and ``batch_size.py`` choose numbers, ``progress.py`` tells.
``batcher.py`` puts windows of text on a device and finds the batch size that pays;
``lightning/`` has data modules for Lightning's trainer.
What is learned from is in ``objectives.py``, with a file for each objective; how, in ``rules/``.
Language models over text are in ``language/``, compressors of image tokens in ``vision/``, through
the same engine.

May import inference, models, tokenizers, data and what lies below; torch and transformers.
"""

from domainformer.training.batcher import BatchChoice, Batcher, find_batch_size
from domainformer.training.checkpoints import newest_checkpoint
from domainformer.training.config import (
    DataConfig,
    ModelConfig,
    OutputConfig,
    RunConfig,
    SplitConfig,
    TokenizerConfig,
    TrainingConfig,
)
from domainformer.training.engine import pretrain
from domainformer.training.finetune import FinetuneConfig, finetune
from domainformer.training.fusion import fit_fusion
from domainformer.training.fusion_config import FusionConfig
from domainformer.training.items import ItemsFit, fit_items
from domainformer.training.items_config import ItemsConfig
from domainformer.training.language import TextRunConfig, open_language_model, train
from domainformer.training.lora import LoraConfig
from domainformer.training.objective_config import (
    ContrastiveConfig,
    HorizonConfig,
    MaskedFieldConfig,
    ObjectiveWeights,
)
from domainformer.training.plan import TrainPlan
from domainformer.training.progress import read_metrics
from domainformer.training.recipes import Recipe, copy_recipe, list_recipes
from domainformer.training.rules import LearningRule, attach, chain
from domainformer.training.running import RunResult
from domainformer.training.trainer import EventTrainer
from domainformer.training.vision import VisionRun, VisionRunConfig, train_vision

__all__ = [
    "TextRunConfig",
    "train",
    "open_language_model",
    "VisionRunConfig",
    "VisionRun",
    "train_vision",
    "LearningRule",
    "chain",
    "attach",
    "RunConfig",
    "DataConfig",
    "SplitConfig",
    "TokenizerConfig",
    "ModelConfig",
    "TrainingConfig",
    "OutputConfig",
    "ObjectiveWeights",
    "ContrastiveConfig",
    "MaskedFieldConfig",
    "HorizonConfig",
    "LoraConfig",
    "FinetuneConfig",
    "pretrain",
    "finetune",
    "FusionConfig",
    "fit_fusion",
    "ItemsConfig",
    "ItemsFit",
    "fit_items",
    "RunResult",
    "EventTrainer",
    "TrainPlan",
    "Batcher",
    "BatchChoice",
    "find_batch_size",
    "newest_checkpoint",
    "read_metrics",
    "Recipe",
    "list_recipes",
    "copy_recipe",
]
