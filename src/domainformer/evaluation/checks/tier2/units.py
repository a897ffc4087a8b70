"""Dead units: outputs of activation functions that are the same for every token.

Activations are seen where torch computes them (``aten.relu``, ``aten.gelu``, …), so that it makes
no difference whether a model calls a module or a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from domainformer.evaluation.checks.context import Context
from domainformer.evaluation.checks.subject import Unanswerable
from domainformer.models.universal.probing import at_rest, draw_tokens
from domainformer.models.universal.verdict import CheckResult

_ACTIVATIONS = frozenset(
    {"relu", "relu_", "gelu", "silu", "silu_", "leaky_relu", "elu", "mish", "hardswish"}
    | {"tanh", "sigmoid", "softplus", "hardtanh", "threshold", "clamp_min", "celu", "relu6"}
)
_ROWS = 16
_FEWEST_TOKENS = 32
_STILL = 1e-6  # of the largest output: what does not move more than that says nothing
_WARN, _FAIL = 0.1, 0.5


class _Activations(TorchDispatchMode):
    """Keeps, for each call of an activation, the range of each of its units."""

    def __init__(self) -> None:
        super().__init__()
        self.dead: list[tuple[str, int, int]] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = str(getattr(func, "overloadpacket", func)).rpartition(".")[2]
        if name in _ACTIVATIONS and isinstance(output, torch.Tensor) and output.dim() >= 2:
            units = output.shape[-1]
            if output.numel() >= _FEWEST_TOKENS * units and units > 1:
                flat = output.detach().reshape(-1, units).float()
                moves = flat.amax(0) - flat.amin(0)
                still = moves <= _STILL * flat.abs().max()
                self.dead.append((name, int(still.sum()), units))
        return output


@torch.no_grad()
def check_dead_units(context: Context) -> CheckResult:
    """Few units of the activation functions give the same for each of many random tokens."""
    subject = context.subject
    ids = draw_tokens(
        _ROWS, context.length, subject.vocab_size, seed=context.seed, device=subject.device
    )
    seen = _Activations()
    with at_rest(subject), seen:
        subject(ids)
    if not seen.dead:
        raise Unanswerable("no activation function of units was seen (relu, gelu, silu, tanh, …)")
    worst = max(range(len(seen.dead)), key=lambda i: seen.dead[i][1] / seen.dead[i][2])
    name, dead, units = seen.dead[worst]
    share = dead / units
    everything = sum(units for _, _, units in seen.dead)
    total = sum(dead for _, dead, _ in seen.dead)
    told = (
        f"{total} of {everything} units in {len(seen.dead)} activations give the same for each of "
        f"{ids.numel()} tokens; most in the {worst + 1}. ({name}): {dead} of {units}"
    )
    if share <= _WARN:
        return CheckResult("dead_units", "pass", told, None, share, _WARN)
    return CheckResult(
        "dead_units",
        "fail" if share > _FAIL else "warn",
        told,
        "lower the learning rate or the biases before it, or take GELU or SiLU for ReLU",
        share,
        _WARN,
    )
