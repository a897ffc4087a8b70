"""``verify``: ask a bound model everything that a language model has to answer, one by one.

::

    BoundModel ─▶ runner, advance ─▶ shapes, determinism, gradients, modules_called, causality,
                                     batch_invariance, padding_invariance, cache ─▶ Verdict
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from domainformer.models.universal.aliases import Role
from domainformer.models.universal.binding import BoundModel
from domainformer.models.universal.probes import (
    Advance,
    Runner,
    probe_batch_invariance,
    probe_cache,
    probe_causality,
    probe_determinism,
    probe_gradients,
    probe_modules_called,
    probe_padding_invariance,
    probe_shapes,
)
from domainformer.models.universal.probing import at_rest, stirred
from domainformer.models.universal.verdict import CheckResult, Verdict


def verify(bound: BoundModel, *, vocab_size: int, length: int = 16, seed: int = 0) -> Verdict:
    """Ask a bound model every question of ``probes.py``, each reported by itself.

    Constant parameters are stirred while it lasts
    (:func:`~domainformer.models.universal.probing.stirred`), since a projection that begins at
    zero would hide whatever is wrong before it; the finite logits of ``shapes`` are those of the
    weights as they are. The model, its modes, gradients and buffers, and the global random state
    are as before afterwards.

    Args:
        bound: Of :func:`~domainformer.models.universal.bind`.
        vocab_size: Ids are below it.
        length: Tokens per row, at least 8.
        seed: Of the tokens and the noise.

    Returns:
        The results by name, and the two lines ``runs`` and ``is_causal_language_model``.

    Example:
        >>> from torch import nn
        >>> from domainformer.models.universal import bind
        >>> verdict = verify(bind(nn.Sequential(nn.Embedding(20, 8), nn.Linear(8, 20)),
        ...                       roles={"input": "tokens"}), vocab_size=20)
        >>> verdict.runs, verdict.is_causal_language_model, verdict["cache"].status
        (True, True, 'skip')
    """
    length = max(8, length)
    device = next((one.device for one in bound.parameters()), torch.device("cpu"))
    run, advance = runner_of(bound), advance_of(bound)
    asked: dict[str, Any] = {"vocab_size": vocab_size, "length": length, "seed": seed}
    asked_there = {**asked, "device": device}
    with at_rest(bound):
        results = [probe_shapes(run, **asked_there)]
    if not results[0].passed:
        return Verdict((*results, *_unasked()), subject=type(bound.module).__name__)
    with stirred(bound, seed=seed):
        with at_rest(bound):
            results.append(probe_determinism(run, **asked_there))
        results.append(probe_gradients(bound, run, **asked))
        results.append(probe_modules_called(bound, run, **asked))
        with at_rest(bound):
            results += [
                probe_causality(run, **asked_there),
                probe_batch_invariance(run, **asked_there),
                probe_padding_invariance(run, **asked_there, takes_mask=bound.takes(Role.MASK)),
                probe_cache(run, advance, **asked_there),
            ]
    return Verdict(tuple(results), subject=type(bound.module).__name__)


def runner_of(bound: BoundModel) -> Runner:
    """The model as the probes call it; positions are those that generation gives, from the mask."""
    positioned = bound.takes(Role.POSITIONS)

    def run(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        given: dict[str, Any] = {}
        if attention_mask is not None and positioned:
            given["position_ids"] = (attention_mask.cumsum(-1) - 1).clamp(min=0)
        logits: torch.Tensor = bound(input_ids, attention_mask=attention_mask, **given).logits
        return logits

    return run


def advance_of(bound: BoundModel) -> Advance | None:
    """The model with its cache, and without positions; None where it takes none."""
    if not bound.takes(Role.CACHE):
        return None
    asking = cache_arguments(bound)

    def advance(input_ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        output = bound(input_ids, past_key_values=cache, **asking)
        return output.logits, output.past_key_values

    return advance


def cache_arguments(bound: BoundModel) -> dict[str, bool]:
    """What asks the model for a cache, where its ``forward`` wants to be asked."""
    names = {parameter.name for parameter in bound.inspector.parameters}
    return {"use_cache": True} if "use_cache" in names else {}


def _unasked() -> tuple[CheckResult, ...]:
    probes: tuple[Callable[..., CheckResult], ...] = (
        probe_determinism,
        probe_gradients,
        probe_modules_called,
        probe_causality,
        probe_batch_invariance,
        probe_padding_invariance,
        probe_cache,
    )
    names = (probe.__name__.removeprefix("probe_") for probe in probes)
    return tuple(CheckResult(name, "skip", "it does not run") for name in names)
