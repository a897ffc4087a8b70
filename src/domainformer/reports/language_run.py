"""What the run folder of a language model holds, as plain data; only ``run.json`` is required.

::

    run.json ────────▶ record          tokenizer/ ──────▶ tokenizer, alphabet
    config.yaml ─────▶ config_text     model/config.json ▶ model (before the end: of a checkpoint)
    metrics.jsonl ───▶ metrics         samples.jsonl ───▶ samples
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from domainformer.reports.collect import config_text, read_part
from domainformer.run import RunRecord, read_run
from domainformer.training.language.samples import SAMPLES_FILE, read_samples
from domainformer.training.progress import METRICS_FILE, read_metrics

LANGUAGE_KIND = "train"  # of the runs that this page tells
_MODEL, _TOKENIZER, _CHECKPOINTS = "model", "tokenizer", "checkpoints"
_CONFIG = "config.json"


@dataclass(frozen=True)
class LanguageRun:
    """A run of a language model, ready to be told.

    Args:
        folder: The run folder.
        record: Its identity.
        config_text: The resolved configuration as YAML.
        metrics: Rows of ``metrics.jsonl``.
        samples: Texts that the model wrote: step, prompt, text.
        model: ``config.json`` of the model, or of its newest checkpoint; empty before there is one.
        model_bytes: Size of the weights; 0 before they are saved.
        tokenizer: ``tokenizer_config.json``; empty before there is one.
        alphabet: Of a character tokenizer.
    """

    folder: Path
    record: RunRecord
    config_text: str
    metrics: list[dict[str, float]]
    samples: list[dict[str, Any]]
    model: dict[str, Any]
    model_bytes: int
    tokenizer: dict[str, Any]
    alphabet: str | None

    @property
    def results(self) -> dict[str, Any]:
        """Figures of the end; empty before it."""
        return self.record.results or {}

    @property
    def resolved(self) -> dict[str, Any]:
        """Values that were chosen on the machine."""
        return self.record.resolved

    @property
    def split(self) -> dict[str, Any]:
        """How the text was divided; empty before it was."""
        return self.record.split or {}

    def settings(self, section: str) -> dict[str, Any]:
        """A section of the configuration."""
        found: dict[str, Any] = self.record.config.get(section) or {}
        return found


def collect_language(run_dir: str | Path) -> LanguageRun:
    """Read the run folder of a language model.

    Args:
        run_dir: The folder.

    Raises:
        ArtifactError: The folder is no run, or a part of it is damaged.
    """
    folder = Path(run_dir)
    metrics = folder / METRICS_FILE
    characters = read_part(folder / _TOKENIZER / "character_tokenizer.json") or {}
    weights = (folder / _MODEL).glob("*.safetensors")
    return LanguageRun(
        folder=folder,
        record=read_run(folder),
        config_text=config_text(folder),
        metrics=read_metrics(metrics) if metrics.is_file() else [],
        samples=read_samples(folder / SAMPLES_FILE),
        model=_model(folder),
        model_bytes=sum(path.stat().st_size for path in weights),
        tokenizer=read_part(folder / _TOKENIZER / "tokenizer_config.json") or {},
        alphabet=characters.get("alphabet"),
    )


def _model(folder: Path) -> dict[str, Any]:
    saved = sorted((folder / _CHECKPOINTS).glob(f"checkpoint-*/{_CONFIG}"))
    places = [folder / _MODEL / _CONFIG, *reversed(saved)]
    return next((found for place in places if (found := read_part(place))), {})
