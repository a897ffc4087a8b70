"""Surgery: change what a model is made of, on any module, and be able to undo it.

===================================  ==========================================================
``freezing.py``, ``patterns.py``     what learns, by pattern
``schedule.py``, ``rates.py``        what learns when, and how fast (by ``depths.py``)
``heads.py``, ``embeddings.py``      another task, another vocabulary
``layers.py``, ``stacks.py``         fewer or more layers, and where they are
``lora.py``                          low-rank additions
``folder.py``                        all of it on a saved model
``undo.py``, ``rebuild.py``          as it was before; the proof that what is there can be saved
===================================  ==========================================================

Every operation takes Hugging Face models, our own, plain modules and wrappers around them
(``.module``); a weight with several names is one weight. What cannot be done whole is a
:class:`~domainformer.errors.SurgeryError`, and the model is as it was.

May import ``artifacts``, ``weights``, ``errors`` and ``models.families``. Start with
``freezing.py``.
"""

from domainformer.models.surgery.depths import DepthGroup, depth_groups
from domainformer.models.surgery.embeddings import Initialisation, resize_embeddings
from domainformer.models.surgery.folder import FolderSurgery, Operations, operate_on_folder
from domainformer.models.surgery.freezing import freeze, unfreeze
from domainformer.models.surgery.heads import TASKS, label_maps, replace_head
from domainformer.models.surgery.layers import arrange_layers, drop_layers, duplicate_layers
from domainformer.models.surgery.lora import add_lora, load_lora, merge_lora, save_lora
from domainformer.models.surgery.patterns import Pattern, select
from domainformer.models.surgery.rates import decayed_weights, layerwise_learning_rates
from domainformer.models.surgery.schedule import (
    UnfreezeSchedule,
    UnfreezeStage,
    unfreeze_gradually,
)
from domainformer.models.surgery.stacks import Stack, stacks_of
from domainformer.models.surgery.undo import UndoPoint, undo_point

__all__ = [
    "freeze",
    "unfreeze",
    "select",
    "Pattern",
    "unfreeze_gradually",
    "UnfreezeSchedule",
    "UnfreezeStage",
    "layerwise_learning_rates",
    "decayed_weights",
    "depth_groups",
    "DepthGroup",
    "replace_head",
    "label_maps",
    "TASKS",
    "resize_embeddings",
    "Initialisation",
    "drop_layers",
    "duplicate_layers",
    "arrange_layers",
    "stacks_of",
    "Stack",
    "add_lora",
    "merge_lora",
    "save_lora",
    "load_lora",
    "operate_on_folder",
    "Operations",
    "FolderSurgery",
    "undo_point",
    "UndoPoint",
]
