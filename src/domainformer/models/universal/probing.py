"""What all probes need: tokens to ask with, a model at rest, and an outcome for whatever happens.

Nothing here changes a model for good: modes, constant parameters, buffers, gradients and the global
generator are as before when a probe is over.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import ParamSpec

import numpy as np
import torch
from torch import nn

from domainformer.errors import DomainformerError
from domainformer.models.universal.verdict import CheckResult

P = ParamSpec("P")
Runner = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
"""``run(input_ids [B, L] int64, attention_mask [B, L] | None) -> logits [B, L, V]``."""
# Roundings that may add up, in units in the last place of the largest logit. Other kernels serve
# other shapes, so that equal mathematics does not give equal bits. A leak can be small, too: in
# an untrained encoder of width 16 the future moves logits by a few parts in 10,000.
_ROUNDINGS = {torch.float64: 64, torch.float32: 64}
_ROUNDINGS_OF_HALF = 8
_STIR = 0.05
# What begins at zero for all purposes, be it drawn with a standard deviation of 1e-5.
_NEARLY = 1e-3


def draw_tokens(
    batch: int, length: int, vocab_size: int, *, seed: int, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Random ids [batch, length] that avoid the first few, where padding and marks use to be.

    Args:
        batch: Rows, B.
        length: Tokens per row, L.
        vocab_size: Ids are below it.
        seed: Of the draw alone; the global generator is not touched.
        device: Where they shall be.

    Example:
        >>> draw_tokens(1, 3, 100, seed=0).shape
        torch.Size([1, 3])
        >>> int(draw_tokens(9, 9, 100, seed=0).min()) >= 4
        True
    """
    generator = torch.Generator().manual_seed(seed)
    low = 4 if vocab_size >= 16 else 0
    return torch.randint(low, vocab_size, (batch, length), generator=generator).to(device)


def other_tokens(input_ids: torch.Tensor, vocab_size: int) -> torch.Tensor:
    """Another id at every place, none of them the first few, of the shape of ``input_ids``.

    Example:
        >>> other_tokens(torch.tensor([[4, 49]]), 50).tolist()
        [[27, 26]]
    """
    low = 4 if vocab_size >= 16 else 0
    span = vocab_size - low
    shifted: torch.Tensor = (input_ids - low + max(1, span // 2)) % span + low
    return shifted


def spread(logits: torch.Tensor) -> float:
    """Standard deviation of logits [B, L, V] over the tokens: what all have in common is no answer.

    Example:
        >>> spread(torch.tensor([[[5.0, 1.0], [5.0, -1.0]]])) == 0.5**0.5
        True
    """
    values = logits.double()
    return float((values - values.mean(dim=(0, 1), keepdim=True)).std(correction=0))


def limit_of(logits: torch.Tensor, computed_in: torch.dtype | None = None) -> float:
    """What rounding may change in logits [B, L, V], in units of their ``spread``.

    Args:
        logits: What was answered.
        computed_in: The coarsest type on the way to them; their own where None.
    """
    scale = spread(logits)
    dtype = computed_in or logits.dtype
    roundings = _ROUNDINGS.get(dtype, _ROUNDINGS_OF_HALF)
    largest = float(logits.abs().max())
    return roundings * torch.finfo(dtype).eps * largest / scale if scale else float("inf")


def first_answer(run: Runner, input_ids: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Logits that others are held against, and what rounding explains of a difference to them.

    Logits in fp32 say little about how they were computed: under autocast, or where a model in
    bf16 casts its last tensor, they are as coarse as bf16. What its submodules give back tells.

    Args:
        run: The model.
        input_ids: Ids [B, L].
    """
    seen: set[torch.dtype] = set()

    def note(_: nn.Module, __: object, output: object) -> None:
        values = output if isinstance(output, (tuple, list)) else (output,)
        seen.update(
            one.dtype for one in values if isinstance(one, torch.Tensor) and one.is_floating_point()
        )

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        logits = run(input_ids, None).clone()
    finally:
        handle.remove()
    coarsest = max({logits.dtype, *seen}, key=lambda dtype: torch.finfo(dtype).eps)
    return logits, limit_of(logits, coarsest)


def difference(one: torch.Tensor, other: torch.Tensor, like: torch.Tensor) -> float:
    """Largest difference, in units of the ``spread`` of the logits ``like`` [B, L, V].

    Infinite where a value is not finite; zero where there is nothing to compare.
    """
    if one.numel() == 0:
        return 0.0
    apart = float((one.double() - other.double()).abs().max())
    if apart == 0.0:
        return 0.0
    scale = spread(like)
    return apart / scale if math.isfinite(apart) and scale else float("inf")


@contextlib.contextmanager
def at_rest(module: nn.Module, *, training: bool = False) -> Iterator[None]:
    """A mode for all submodules, and the modes, buffers and gradients from before on leaving.

    Args:
        module: Whose modes; a mode of each submodule is kept by itself.
        training: The mode inside.
    """
    modes = {part: part.training for part in module.modules()}
    buffers = {part: dict(part._buffers) for part in module.modules() if part._buffers}
    values = {
        (part, name): value.detach().clone()
        for part, own in buffers.items()
        for name, value in own.items()
        if value is not None
    }
    gradients = [(weight, weight.grad) for weight in module.parameters()]
    for weight, _ in gradients:
        weight.grad = None
    module.train(training)
    try:
        with torch.random.fork_rng(devices=_cuda_devices(module)):
            yield
    finally:
        for part, own in buffers.items():
            part._buffers.update(own)
        with torch.no_grad():
            for (part, name), value in values.items():
                part._buffers[name].copy_(value)
        for part, mode in modes.items():
            part.training = mode
        for weight, gradient in gradients:
            weight.grad = gradient


@contextlib.contextmanager
def stirred(module: nn.Module, *, seed: int = 0) -> Iterator[None]:
    """Noise on parameters that are constant, as long as the block lasts.

    A projection that begins at zero hides what is before it: a mask that leaks leaks nothing yet,
    and no gradient arrives. Such a model would pass every probe, and fail them all one step later.

    Args:
        module: Its constant parameters (zeros, ones, a single value up to 0.001) get
            ``0.05 · N(0,1)`` added, trainable or not.
        seed: Of the noise; the global generator is not touched.

    Example:
        >>> layer = nn.LayerNorm(4)
        >>> with stirred(layer):
        ...     bool((layer.bias == 0).any())
        False
        >>> bool((layer.bias == 0).all())
        True
    """
    generator = torch.Generator().manual_seed(seed)
    kept: list[tuple[nn.Parameter, torch.Tensor]] = []
    try:
        with torch.no_grad():
            for weight in module.parameters():
                flat = weight.detach().reshape(-1)
                if not flat.numel() or not weight.is_floating_point():
                    continue
                if float(flat.max() - flat.min()) <= _NEARLY:
                    kept.append((weight, weight.detach().clone()))
                    noise = torch.randn(weight.shape, generator=generator) * _STIR
                    weight.add_(noise.to(weight))
        yield
    finally:
        with torch.no_grad():
            for weight, value in kept:
                weight.copy_(value)


@contextlib.contextmanager
def repeatable(seed: int) -> Iterator[None]:
    """The same draws in each block: torch's, Python's and numpy's generators are set, and put back.

    Args:
        seed: Of all three.

    Example:
        >>> def draw():
        ...     with repeatable(3):
        ...         return random.random(), float(torch.rand(())), np.random.rand()
        >>> draw() == draw()
        True
    """
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - users draw from it
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)  # noqa: NPY002


def reported(name: str) -> Callable[[Callable[P, CheckResult]], Callable[P, CheckResult]]:
    """Let a probe report under a name, with its time; what a model raises is a failure.

    Args:
        name: Of the check.
    """

    def wrap(probe: Callable[P, CheckResult]) -> Callable[P, CheckResult]:
        @functools.wraps(probe)
        def run(*args: P.args, **kwargs: P.kwargs) -> CheckResult:
            begun = time.perf_counter()
            try:
                result = probe(*args, **kwargs)
            except DomainformerError as error:
                result = CheckResult(name, "fail", f"it raised {error.what}", error.next_step)
            except Exception as error:  # noqa: BLE001 - a user's forward may raise anything
                result = CheckResult(
                    name, "fail", f"it raised {told(error)}", "run the model's forward by itself"
                )
            return replace(result, name=name, seconds=time.perf_counter() - begun)

        return run

    return wrap


def told(error: Exception) -> str:
    """An error's type and the first line of its message.

    Example:
        >>> told(ValueError("no such size"))
        'ValueError: no such size'
    """
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def listed(names: list[str], most: int = 4) -> str:
    """The first few of many names.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def _cuda_devices(module: nn.Module) -> list[int]:
    found = {one.device.index for one in module.parameters() if one.device.type == "cuda"}
    return sorted(index for index in found if index is not None)


def vacuous(name: str, value: float, limit: float) -> CheckResult:
    """Nothing moved at all: a model that ignores its tokens would pass everything."""
    return CheckResult(
        name,
        "skip",
        "the logits do not depend on the tokens, so that nothing is shown",
        "see whether a zero in the weights hides the rest, or the ids are not used",
        value,
        limit,
    )
