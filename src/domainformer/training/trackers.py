"""Optional trackers (the extra ``track``), fed with the same rows as ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from domainformer.errors import MissingExtraError
from domainformer.training.progress import Sink


class TensorBoard:
    """Event files under ``run/tensorboard``, shown by ``tensorboard --logdir run``."""

    def __init__(self, directory: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError(
                "tensorboard", extra="track", purpose="training.report_to: [tensorboard]"
            ) from None
        self._writer = SummaryWriter(str(directory))

    def write(self, row: dict[str, float]) -> None:
        """One scalar per number."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class Trackio:
    """A run of the local trackio project ``domainformer``, shown by ``trackio show``."""

    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        try:
            import trackio
        except ImportError:
            raise MissingExtraError(
                "trackio", extra="track", purpose="training.report_to: [trackio]"
            ) from None
        self._trackio = trackio
        trackio.init(project="domainformer", name=name, config=dict(config))

    def write(self, row: dict[str, float]) -> None:
        """One row."""
        numbers = {name: value for name, value in row.items() if name != "step"}
        self._trackio.log(numbers, step=int(row["step"]))

    def close(self) -> None:
        """Finish the run."""
        self._trackio.finish()


def make_trackers(names: tuple[str, ...], directory: Path, config: Mapping[str, Any]) -> list[Sink]:
    """The trackers that a configuration names.

    Args:
        names: Of ``tensorboard`` and ``trackio``.
        directory: The run folder; its name is the run's name.
        config: The resolved configuration, kept by trackers that keep one.

    Raises:
        MissingExtraError: The package of a tracker is not installed.
    """
    trackers: list[Sink] = []
    for name in names:
        if name == "tensorboard":
            trackers.append(TensorBoard(directory / "tensorboard"))
        else:
            trackers.append(Trackio(directory.name, config))
    return trackers
