"""A trained compressor with all that using it takes: the model, its processor, its questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainformer.artifacts import read_facts
from domainformer.config import load_config
from domainformer.data.vision_questions import VisionQuestion
from domainformer.errors import ArtifactError, ConfigError, VisionError
from domainformer.models.vision import RelevanceRealizer
from domainformer.models.vision.baselines import baseline
from domainformer.models.vision.folder import FACTS, KIND, VERSION
from domainformer.training.plan import device as resolve_device
from domainformer.training.vision.config import VisionModelConfig, VisionRunConfig
from domainformer.training.vision.examples import read_questions
from domainformer.training.vision.processor import open_base
from domainformer.training.vision.sources import open_questions

_ADAPTER, _CONFIG = "adapter", "config.yaml"
_REMEDY = "give the folder of domainformer vision train, or the adapter in it"


@dataclass(frozen=True, eq=False)
class OpenedVision:
    """A model that is ready to be asked.

    Args:
        realizer: with the learned compressor; without a folder, with every token kept.
        processor: of the model.
        config: of the run; that of a bare adapter folder tells the model and how it is asked.
        learned: whether the realizer's selector is a learned one.
    """

    realizer: RelevanceRealizer
    processor: Any
    config: VisionRunConfig
    learned: bool

    def questions(
        self, path: str | Path | None = None, *, images: str | Path | None = None
    ) -> Sequence[VisionQuestion]:
        """The questions of a file, or those that the run was validated by.

        Args:
            path: as :func:`~domainformer.training.vision.read_questions` takes it.
            images: the folder that relative paths of images start from.

        Raises:
            ConfigError: No file is given, and there is no run with validation questions.
            DataError: The file cannot be used.
        """
        if path is not None:
            return read_questions(path, images=images)
        data = self.config.data
        found: Sequence[VisionQuestion] = ()
        if data.questions is not None or data.validation is not None:
            found = open_questions(data).validation
        if not len(found):
            raise ConfigError(
                "there are no questions to judge by",
                why="the run names none for validation",
                next_step="give a JSONL or Parquet file with image, question and answer",
            )
        return found


def open_vision(
    folder: str | Path | None = None, *, model: str | None = None, device: str = "auto"
) -> OpenedVision:
    """Open a run folder, an adapter folder, or a model by itself.

    Args:
        folder: of ``train_vision`` or of ``RelevanceRealizer.save_pretrained``; None: the model
            without a compressor.
        model: the base model's folder or name, where it lies elsewhere by now.
        device: ``cpu``, ``cuda`` or ``mps``; ``auto``: a GPU if there is one.

    Raises:
        ConfigError: There is no such device on this machine.
        ArtifactError: The folder is neither a run nor an adapter, or damaged.
        FingerprintError: The compressor was trained upon another model.
        VisionError: The model cannot be opened, or is not named anywhere.
    """
    adapter = None if folder is None else adapter_of(Path(folder))
    config = VisionRunConfig() if adapter is None else _config(adapter)
    named = config.model if model is None else _named(config.model, model)
    if named.name is None:
        raise VisionError(
            "there is no model to open",
            where="the model" if adapter is None else str(adapter),
            why=None if adapter is None else "the model that it was trained upon had no name",
            next_step="name its folder, or a model of the Hub",
        )
    place = resolve_device(device)
    opened, processor = open_base(named)
    if adapter is None:
        realizer = RelevanceRealizer(opened, baseline("everything"))
    else:
        realizer = RelevanceRealizer.from_pretrained(adapter, model=opened)
    config = config.model_copy(update={"model": named})
    return OpenedVision(realizer.to(place).eval(), processor, config, learned=adapter is not None)


def adapter_of(folder: Path) -> Path:
    """The adapter folder itself, where a run folder is given.

    Raises:
        ArtifactError: There is no compressor in it.
    """
    inner = folder / _ADAPTER
    found = inner if inner.is_dir() else folder
    if not (found / FACTS).is_file():
        raise ArtifactError(
            f"{folder} holds no compressor",
            why="it is no adapter, and no run that came to its end"
            if folder.is_dir()
            else "there is no such folder",
            next_step=_REMEDY,
        )
    return found


def _config(adapter: Path) -> VisionRunConfig:
    """The configuration of the run that an adapter lies in, else what the adapter itself tells."""
    facts = read_facts(adapter, FACTS, kind=KIND, version=VERSION, remedy=_REMEDY)
    beside = adapter.parent / _CONFIG
    if adapter.name == _ADAPTER and beside.is_file():
        return load_config(VisionRunConfig, beside, [])
    base, asking = facts["base"], facts.get("asking") or {}
    model = VisionModelConfig(name=base["name"], revision=base["revision"], **asking)
    return VisionRunConfig(model=model)


def _named(config: VisionModelConfig, name: str) -> VisionModelConfig:
    """The same way of asking, upon a model at another place."""
    return config.model_copy(update={"name": name, "revision": None})
