"""Which model lies in a folder, and with which preprocessing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel

from domainformer.errors import ExportError
from domainformer.export.preprocessing import check_preprocessing
from domainformer.export.subject import Subject, What, of_model
from domainformer.inference.bundle import is_bundle, load_bundle
from domainformer.inference.fusion import FUSION_FILE, FusionPredictor
from domainformer.models import JointFusionConfig
from domainformer.models.families import adapter_for
from domainformer.models.families.base import BY_ARCHITECTURE, BY_MODEL_TYPE
from domainformer.models.families.loading import read_pretrained
from domainformer.weights import check_weights, read_model_config


def of_folder(folder: str | Path, *, what: What = "logits") -> Subject:
    """The model of a folder, ready to be exported.

    Args:
        folder: A bundle, a fusion model, or a model folder of transformers; also the run folder
            that holds one as ``model/``.
        what: ``logits``, or ``embedding``: the hidden state at each row's last real token.

    Raises:
        ExportError: There is no model, or what turns raw data into its inputs is missing.
        ArtifactError: The folder is damaged.
    """
    folder = Path(folder)
    if (folder / "model").is_dir() and not (folder / "config.json").is_file():
        folder = folder / "model"
    if not folder.is_dir():
        raise ExportError(f"there is no folder {folder}", next_step="check the path")
    subject = _subject(folder, what)
    return replace(subject, preprocessing=folder)


def _subject(folder: Path, what: What) -> Subject:
    config = read_model_config(folder)
    kind = str(config.get("model_type", ""))
    fusion = kind == JointFusionConfig.model_type or (folder / FUSION_FILE).is_file()
    check_preprocessing(folder, fusion=fusion, events=not fusion or bool(config.get("backbone")))
    if fusion:
        predictor = FusionPredictor.load(folder)
        found = of_model(predictor.model)
        return found if found.longest is None else replace(found, longest=predictor.context)
    if is_bundle(folder):
        bundle = load_bundle(folder)
        return replace(of_model(bundle.model, what=what), longest=bundle.context)
    return of_model(_of_transformers(folder, config), what=what)


def _of_transformers(folder: Path, config: dict[str, object]) -> PreTrainedModel:
    """A model by the class that ``config.json`` names; code in the folder is never run."""
    named = str((config.get("architectures") or [""])[0])  # type: ignore[index]
    if named in BY_ARCHITECTURE or str(config.get("model_type")) in BY_MODEL_TYPE:
        return adapter_for(folder).model
    check_weights(folder)
    found = getattr(transformers, named, None) if named else AutoModelForCausalLM
    known = isinstance(found, type) and issubclass(found, PreTrainedModel)
    if found is None or not (known or found is AutoModelForCausalLM):
        raise ExportError(
            f"transformers has no model {named}",
            where=str(folder / "config.json"),
            why="it needs code of its own, which is never run",
            next_step="load it yourself, then export_model(model, …) in Python",
        )
    model: PreTrainedModel = read_pretrained(found, folder, dtype=torch.float32)
    return model.eval()
