"""Checkpoints that survive a crash at any moment, and resuming that never guesses.

A checkpoint is written beside its place, described by a manifest of checksums, flushed to the disk,
and renamed (:func:`domainformer.artifacts.staged_directory`): it is whole or not there::

    checkpoints/
      checkpoint-00000120/
        model.safetensors    weights           optimizer.pt   moments of AdamW
        config.json          architecture      scheduler.pt   position in the schedule
        rng.pt               generators        trainer_state.json   counters, best loss so far
        rules.pt             state of learning rules, where there are any
        window.json          what the next line of the log will be the mean of
        position.json        what the position in the data counts in
        manifest.json        sizes and SHA-256 of all of these

Resuming takes the newest checkpoint that verifies and has every piece. It steps back over damaged
ones with a warning that names them, and refuses where none is left. Nothing here is unpickled
except through ``torch.load(weights_only=True)``, which builds tensors and plain data only.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from domainformer.artifacts import read_manifest, staged_directory, verify_directory
from domainformer.errors import ArtifactError, CheckpointError

WEIGHTS = "model.safetensors"
OPTIMIZER = "optimizer.pt"
SCHEDULER = "scheduler.pt"
RNG = "rng.pt"
STATE = "trainer_state.json"
POSITION = "position.json"
RULES = "rules.pt"
WINDOW = "window.json"
PIECES = (WEIGHTS, OPTIMIZER, SCHEDULER, RNG, STATE, POSITION)
_NAME = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint folder that was verified.

    Args:
        path: The folder.
        step: Optimizer steps done.
        position: What the position in the data counts in (rows, batches, seed, length).
    """

    path: Path
    step: int
    position: dict[str, Any]


def checkpoint_path(root: Path, step: int) -> Path:
    """Where the checkpoint of a step lies.

    Example:
        >>> checkpoint_path(Path("checkpoints"), 120).name
        'checkpoint-00000120'
    """
    return root / f"checkpoint-{step:08d}"


def save_checkpoint(
    root: Path,
    *,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    state: Mapping[str, Any],
    position: Mapping[str, Any],
    rules: Mapping[str, Any] | None = None,
    window: Mapping[str, Any] | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Path:
    """Write a checkpoint, whole or not at all.

    Args:
        root: Folder of the run's checkpoints.
        step: Optimizer steps done.
        model: The model, with its weights after that step.
        optimizer: Its state after that step.
        scheduler: Its state after that step.
        state: Counters of the trainer (plain data).
        position: What the position in the data counts in (plain data).
        rules: State of the learning rules; None where there are none.
        window: Losses that were not logged yet (plain data).
        origin: What the weights came from (the parent's name, the architecture), for the manifest.

    Raises:
        CheckpointError: The disk is full or not writable; older checkpoints are untouched.
    """
    from safetensors.torch import save_model

    target = checkpoint_path(root, step)
    try:
        meta = {**(origin or {}), "step": step}
        with staged_directory(target, overwrite=True, meta=meta) as staging:
            save_model(model, str(staging / WEIGHTS), metadata={"format": "pt"})
            if hasattr(model, "config"):
                model.config.save_pretrained(staging)
            torch.save(optimizer.state_dict(), staging / OPTIMIZER)
            torch.save(scheduler.state_dict(), staging / SCHEDULER)
            torch.save(rng_state(), staging / RNG)
            if rules is not None:
                torch.save(rules, staging / RULES)
            (staging / WINDOW).write_text(json.dumps(dict(window or {})), encoding="utf-8")
            (staging / STATE).write_text(json.dumps(dict(state), indent=2), encoding="utf-8")
            (staging / POSITION).write_text(json.dumps(dict(position)), encoding="utf-8")
    except ArtifactError as error:
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written",
            where=str(target),
            why=error.why or error.what,
            next_step=error.next_step,
        ) from error
    return target


def open_checkpoint(path: Path) -> Checkpoint:
    """Verify one checkpoint: every piece there, every byte as it was written.

    Raises:
        CheckpointError: A piece is missing or damaged.
    """
    try:
        manifest = read_manifest(path)
        missing = [piece for piece in PIECES if piece not in manifest["files"]]
        if missing:
            raise ArtifactError(f"{path} lacks {', '.join(missing)}")
        verify_directory(path)
        position = json.loads((path / POSITION).read_text(encoding="utf-8"))
        step = int(manifest["meta"]["step"])
    except ArtifactError as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be resumed from",
            where=error.where,
            why=error.why or error.what,
            next_step="resume from an older checkpoint, or start the run again",
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"the checkpoint {path} cannot be read", why=f"{type(error).__name__}: {error}"
        ) from error
    return Checkpoint(path, step, position)


def find_checkpoints(root: Path) -> list[tuple[int, Path]]:
    """Steps and folders of the finished checkpoints, newest first."""
    if not root.is_dir():
        return []
    found = [(int(m[1]), p) for p in root.iterdir() if (m := _NAME.fullmatch(p.name))]
    return sorted(found, reverse=True)


def newest_checkpoint(root: Path) -> Checkpoint | None:
    """The newest checkpoint that verifies; None where none was ever written.

    Each damaged checkpoint that is passed over is named in a warning.

    Raises:
        CheckpointError: There are checkpoints, and none of them is usable.
    """
    candidates = find_checkpoints(root)
    reasons = []
    for _, path in candidates:
        try:
            checkpoint = open_checkpoint(path)
        except CheckpointError as error:
            reasons.append(f"{path.name}: {error.why}")
            continue
        if reasons:
            warnings.warn(
                f"resuming from {checkpoint.path.name}; passed over " + "; ".join(reasons),
                stacklevel=2,
            )
        return checkpoint
    if reasons:
        raise CheckpointError(
            f"no checkpoint in {root} can be resumed from",
            why="\n         ".join(reasons),
            next_step="restore one from a copy, or delete the folder to train from the start",
        )
    return None


def load_weights(path: Path, model: nn.Module) -> None:
    """Load the weights of a checkpoint into a model of the same architecture.

    Raises:
        CheckpointError: Names or shapes differ.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    try:
        load_model(model, path / WEIGHTS, strict=True)
    except (RuntimeError, OSError, SafetensorError) as error:
        raise CheckpointError(
            f"the weights of {path} do not fit the model",
            why=str(error).splitlines()[0],
            next_step="resume with the configuration that the run was started with",
        ) from error


def load_training_state(
    path: Path,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
) -> None:
    """Load the state of optimizer and scheduler.

    Raises:
        CheckpointError: A file is missing, unreadable, or made for other parameters.
    """
    try:
        optimizer.load_state_dict(_load(path / OPTIMIZER))
        scheduler.load_state_dict(_load(path / SCHEDULER))
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"the optimizer state of {path} does not fit the model", why=str(error)
        ) from error


def load_rules(path: Path) -> Any:
    """The state of the learning rules.

    Raises:
        CheckpointError: The checkpoint has none, or it is unreadable.
    """
    if not (path / RULES).is_file():
        raise CheckpointError(
            f"{path} has no state of learning rules",
            why="it was written by a run without any",
            next_step="resume with the rules that the run was started with",
        )
    return _load(path / RULES)


def load_window(path: Path) -> dict[str, Any]:
    """Losses that were not logged yet; nothing in checkpoints of older versions."""
    place = path / WINDOW
    return dict(json.loads(place.read_text(encoding="utf-8"))) if place.is_file() else {}


def rng_state() -> dict[str, Any]:
    """The state of every global generator, as tensors and plain data."""
    generator: Any = np.random.get_state(legacy=True)  # noqa: NPY002
    name, keys, position, has_gauss, gauss = generator
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def load_rng(path: Path) -> None:
    """Put every global generator back to where it was.

    Raises:
        CheckpointError: The file is missing or unreadable.
    """
    set_rng_state(_load(path / RNG))


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put every global generator into a state of :func:`rng_state`."""
    random.setstate(state["python"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        (name, keys.numpy().astype(np.uint32), position, has_gauss, gauss)
    )
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def prune_checkpoints(root: Path, *, keep: int, spare: Collection[int] = ()) -> None:
    """Delete all but the newest ``keep`` checkpoints and those of the steps in ``spare``.

    Left-overs of writers that were killed go as well, unless their process still lives.
    """
    for step, path in find_checkpoints(root)[keep:]:
        if step not in spare:
            # Renamed first: a deletion that is cut short must not leave half a checkpoint behind
            # under a name that looks whole.
            doomed = path.with_name(f"{path.name}.retired-{os.getpid()}")
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
    for path in root.glob("checkpoint-*.*-*"):
        owner = path.name.rpartition("-")[2]
        # In a container the killed writer may have had this process's own number.
        if owner.isdigit() and (int(owner) == os.getpid() or not _alive(int(owner))):
            shutil.rmtree(path, ignore_errors=True)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises anything from pickle and zip on damaged bytes
        raise CheckpointError(
            f"{path} cannot be read", why=f"{type(error).__name__}: {error}"
        ) from error


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
