"""``verify``: ask a bound model everything that a language model has to answer, one by one.

::

    BoundModel ─▶ runner, advance ─▶ shapes, determinism, gradients, modules_called,
                                     causality, causality_in_training, batch_invariance,
                                     padding_invariance, cache ─▶ Verdict
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from domainformer.errors import AdapterError
from domainformer.models.universal.aliases import Role
from domainformer.models.universal.binding import BoundModel
from domainformer.models.universal.probes import (
    Advance,
    PaddedAdvance,
    Runner,
    probe_batch_invariance,
    probe_cache,
    probe_causality,
    probe_causality_in_training,
    probe_determinism,
    probe_gradients,
    probe_modules_called,
    probe_padding_invariance,
    probe_shapes,
)
from domainformer.models.universal.probing import at_rest, stirred
from domainformer.models.universal.verdict import CheckResult, Verdict

_SHORTEST = 4


def verify(
    bound: BoundModel, *, vocab_size: int | None = None, length: int = 16, seed: int = 0
) -> Verdict:
    """Ask a bound model every question of ``probes.py``, each reported by itself.

    Constant parameters are stirred while it lasts
    (:func:`~domainformer.models.universal.probing.stirred`), since a projection that begins at
    zero would hide whatever is wrong before it; the finite logits of ``shapes`` are those of the
    weights as they are. The model, its modes, gradients and buffers, and the global random state
    are as before afterwards.

    Args:
        bound: Of :func:`~domainformer.models.universal.bind`.
        vocab_size: Ids are below it; None: as its config or its only embedding says.
        length: Tokens per row, at least 8; halved, and said so, where the model takes no such row.
        seed: Of the tokens and the noise.

    Raises:
        AdapterError: The vocabulary is not known.

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
    vocab_size = vocab_size or bound.vocab_size
    if vocab_size is None:
        raise AdapterError(
            f"the vocabulary of {type(bound.module).__name__} is not known",
            next_step="verify(bound, vocab_size=…)",
        )
    device = next((one.device for one in bound.parameters()), torch.device("cpu"))
    run = runner_of(bound)
    asked: dict[str, Any] = {"vocab_size": vocab_size, "length": max(8, length), "seed": seed}
    with at_rest(bound):
        shapes, asked["length"] = _length_that_fits(run, {**asked, "device": device})
    if not shapes.passed:
        return Verdict((shapes, *_unasked("it does not run")), subject=type(bound.module).__name__)
    with stirred(bound, seed=seed):
        results = [shapes, *_asked(bound, run, asked, device)]
    return Verdict(tuple(results), subject=type(bound.module).__name__)


def _asked(
    bound: BoundModel, run: Runner, asked: dict[str, Any], device: torch.device
) -> list[CheckResult]:
    """Everything but the shapes."""
    asked_there = {**asked, "device": device}
    with at_rest(bound):
        results = [probe_determinism(run, **asked_there)]
    results.append(probe_gradients(bound, run, **asked))
    results.append(probe_modules_called(bound, run, **asked))
    if results[0].failed:
        why = "the same ids give other logits each time: a difference would show nothing"
        return results + list(_unasked(why))[len(results) :]
    mask, positions = bound.takes(Role.MASK), bound.takes(Role.POSITIONS)
    with at_rest(bound):
        causality = probe_causality(run, **asked_there)
    results += [causality, probe_causality_in_training(bound, run, **asked)]
    with at_rest(bound):
        results += [
            probe_batch_invariance(run, **asked_there),
            probe_padding_invariance(
                run, **asked_there, takes_mask=mask, takes_positions=positions
            ),
            probe_cache(run, advance_of(bound), padded=padded_advance_of(bound), **asked_there),
        ]
    return results


def _length_that_fits(run: Runner, asked: dict[str, Any]) -> tuple[CheckResult, int]:
    """The shapes at the length that was asked for, or at the half of it that the model takes."""
    length = wanted = asked["length"]
    first = found = probe_shapes(run, **asked)
    while found.failed and found.reason.startswith("it raised") and length // 2 >= _SHORTEST:
        length //= 2
        found = probe_shapes(run, **{**asked, "length": length})
    if found.failed:
        return first, wanted
    if length < wanted:
        short = f"{found.reason}; of {wanted} tokens {first.reason}"
        found = replace(found, reason=short)
    return found, length


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


def padded_advance_of(bound: BoundModel) -> PaddedAdvance | None:
    """The model with its cache and a mask of all tokens so far, as ``generate`` calls it."""
    if not (bound.takes(Role.CACHE) and bound.takes(Role.MASK)):
        return None
    asking, positioned = cache_arguments(bound), bound.takes(Role.POSITIONS)

    def advance(
        input_ids: torch.Tensor, cache: Any, mask: torch.Tensor
    ) -> tuple[torch.Tensor, Any]:
        given: dict[str, Any] = dict(asking)
        if positioned:
            given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, -input_ids.shape[1] :]
        output = bound(input_ids, attention_mask=mask, past_key_values=cache, **given)
        return output.logits, output.past_key_values

    return advance


def cache_arguments(bound: BoundModel) -> dict[str, bool]:
    """What asks the model for a cache, where its ``forward`` wants to be asked."""
    names = {parameter.name for parameter in bound.inspector.parameters}
    return {"use_cache": True} if "use_cache" in names else {}


def _unasked(why: str) -> tuple[CheckResult, ...]:
    probes: tuple[Callable[..., CheckResult], ...] = (
        probe_determinism,
        probe_gradients,
        probe_modules_called,
        probe_causality,
        probe_causality_in_training,
        probe_batch_invariance,
        probe_padding_invariance,
        probe_cache,
    )
    names = (probe.__name__.removeprefix("probe_") for probe in probes)
    return tuple(CheckResult(name, "skip", why) for name in names)
