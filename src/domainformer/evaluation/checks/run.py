"""``check``: everything that one asks a model before one trusts it, each by itself.

::

    check(model, tier=1)   seconds    shapes, gradients, causality, stability, start, overfitting …
    check(model, tier=2)   minutes    and attention, gradients per layer, entropy, cost, precision
    check(model, tier=3)   trainings  and rates, hyper-parameters, baselines, noise, export, speed
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from domainformer.errors import ConfigError, nearest
from domainformer.evaluation.checks import tier1, tier2, tier3
from domainformer.evaluation.checks.context import Check, Context
from domainformer.evaluation.checks.kinds import subject_of
from domainformer.evaluation.checks.opening import open_folder, read_text
from domainformer.evaluation.checks.report import CheckReport
from domainformer.evaluation.checks.subject import Subject, Unanswerable
from domainformer.models.universal.aliases import Role
from domainformer.models.universal.probing import reported
from domainformer.models.universal.verdict import CheckResult

CHECKS: dict[int, dict[str, Check]] = {1: tier1.CHECKS, 2: tier2.CHECKS, 3: tier3.CHECKS}
_WINDOWS = 8


def check(
    model: nn.Module | str | Path,
    *,
    tier: int = 1,
    only: Sequence[str] | None = None,
    tokenizer: Any = None,
    text: str | Path | None = None,
    vocab_size: int | None = None,
    causal: bool | None = None,
    trained: bool | None = None,
    roles: Mapping[str, Role | str] | None = None,
    providers: Mapping[str, Any] | None = None,
    logits: Any = None,
    length: int = 16,
    steps: int = 120,
    trials: int = 6,
    seconds: float = 60.0,
    export_format: str = "onnx",
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> CheckReport:
    """Check a model, and say for each check what was seen, and what to do about it.

    The model, its modes, gradients and buffers are as before afterwards: what trains, trains a
    copy.

    Args:
        model: A model in memory (of transformers, of this library, or any module that reads token
            ids), or a model folder.
        tier: 1, 2 or 3; a tier includes those below it.
        only: Names of checks, of any tier, in place of all up to ``tier``.
        tokenizer: For ``text``; a folder's own is found.
        text: A text, or the path of one: data for the checks that train or score. Without one they
            use a source whose entropy is known.
        vocab_size: Ids are below it; found in the model where it says so.
        causal: Whether the model is meant as a causal language model. None: its class says so; a
            module of your own is taken as one.
        trained: Whether it was trained before: a model that was not begins near ln V. None: a
            folder's was, and of one in memory nothing is known.
        roles: What arguments of ``forward`` are for, where their names do not tell.
        providers: Where arguments come from that no caller gives.
        logits: Where the logits are in what ``forward`` gives, if that is not plain.
        length: Tokens per row, at least 8.
        steps: Of each short training.
        trials: Of the hyper-parameter probe.
        seconds: Most time that one training may take; what was cut short says so.
        export_format: ``onnx``, ``pt2`` or ``torchscript``, of the export check.
        seed: Of all that is drawn.
        progress: Told the name of each check before it is made.

    Raises:
        ConfigError: A tier, check or option that does not exist.
        AdapterError: The model cannot be called.
        DataError: The folder or text cannot be read.

    Example:
        >>> model = nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20))
        >>> report = check(model, roles={"input": "tokens"}, only=["shapes", "causality"])
        >>> [(one.name, one.status) for one in report]
        [('shapes', 'pass'), ('causality', 'pass')]
    """
    wanted = _wanted(tier, only)
    _check_sizes(length=length, steps=steps, trials=trials, seconds=seconds)
    if not isinstance(model, nn.Module):
        model, found = open_folder(model)
        tokenizer = found if tokenizer is None else tokenizer
        trained = True if trained is None else trained
    subject = subject_of(
        model,
        vocab_size=vocab_size,
        causal=causal,
        roles=roles,
        providers=providers,
        logits=logits,
        mask_id=getattr(tokenizer, "mask_token_id", None),
    )
    length = max(8, min(length, subject.longest or length))
    windows = None
    if text is not None:
        shortest = _WINDOWS * length
        size = subject.vocab_size
        windows = read_text(text, tokenizer, vocab_size=size, shortest=shortest)
    context = Context(
        subject,
        length=length,
        steps=steps,
        trials=trials,
        seconds=seconds,
        seed=seed,
        trained=trained,
        text=windows,
        export_format=export_format,
    )
    results = _made(context, wanted, progress or (lambda name: None))
    name = type(subject.model).__name__
    return CheckReport(results, name, kind=subject.kind, tier=tier, facts=_facts(subject))


def _made(
    context: Context, wanted: Mapping[str, Check], progress: Callable[[str], None]
) -> tuple[CheckResult, ...]:
    results: list[CheckResult] = []
    for name, one in wanted.items():
        progress(name)
        if results and results[0].name == "shapes" and not results[0].passed:
            results.append(CheckResult(name, "skip", "it does not run"))
            continue
        results.append(_answered(name, one)(context))
    return tuple(results)


def _answered(name: str, one: Check) -> Check:
    """A check under its name, with its time; what it cannot ask is skipped, with the reason."""

    @reported(name)
    def run(context: Context) -> CheckResult:
        try:
            return one(context)
        except Unanswerable as reason:
            return CheckResult(name, "skip", str(reason))

    return run


def _wanted(tier: int, only: Sequence[str] | None) -> dict[str, Check]:
    if tier not in CHECKS:
        raise ConfigError(f"there is no tier {tier}", next_step="choose 1, 2 or 3")
    every = {name: one for checks in CHECKS.values() for name, one in checks.items()}
    if only is None:
        return {name: one for t in range(1, tier + 1) for name, one in CHECKS[t].items()}
    unknown = [name for name in only if name not in every]
    if unknown:
        raise ConfigError(f"there is no check {unknown[0]!r}", next_step=nearest(unknown[0], every))
    return {name: one for name, one in every.items() if name in only}


def _check_sizes(**sizes: float) -> None:
    for name, value in sizes.items():
        if not value > 0:
            raise ConfigError(f"{name} is {value}", why="it must be above 0")


def _facts(subject: Subject) -> dict[str, Any]:
    weights = list(subject.model.parameters())
    kinds = sorted({str(one.dtype).removeprefix("torch.") for one in weights})
    facts: dict[str, Any] = {
        "parameters": sum(one.numel() for one in weights),
        "vocabulary" if subject.kind != "classifier" else "classes": subject.vocab_size,
        "type": "/".join(kinds) or str(torch.get_default_dtype()),
    }
    if subject.longest is not None:
        facts["context"] = subject.longest
    return facts


NAMES = tuple(name for checks in CHECKS.values() for name in checks)
"""All checks, tier by tier."""
