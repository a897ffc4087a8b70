"""Whether learning rules do under ``torch.compile`` what they do without it.

Compilation can drop or alter a custom backward without a word (pytorch#193279 is one case), and
can bake a draw of the first step into the graph. So, before a compiled training starts, the
gradients of one batch are computed both ways, at two different steps, with the rules attached::

    copy of the model, float64 ─▶ eager:    gradients of step 0, step 1 ─┐
                               ─▶ compiled: gradients of step 0, step 1 ─┴▶ ‖Δ‖ / ‖g‖ ≤ tolerance

Steps at sites (``forward``, ``backward``) run between compiled graphs, each site a break between
two graphs; ``replace`` is compiled together with the model; ``update``, ``after_step`` and the
optimizer lie outside.
"""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from domainformer.errors import DomainformerError, RuleError
from domainformer.training.rules.attachment import attach
from domainformer.training.rules.base import LearningRule
from domainformer.training.rules.chain import chain

STEPS = 2
# By the precision in which the gradients are computed. Rounding may turn the sign of a gradient
# that is all but zero, or move a value across the border of two levels: one such turn among 10⁶
# numbers is worth 2·10⁻³ in float32 or bfloat16, and does not happen in float64.
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-2}
_COARSE = 5e-2
# Gradients this much smaller than the largest one are rounding (biases of keys, for example).
_NEGLIGIBLE = 1e-4

Gradients = list[dict[str, torch.Tensor | None]]


def check_compiled(
    rules: LearningRule,
    model: nn.Module,
    batch: Mapping[str, Any],
    backend: str = "inductor",
    *,
    seed: int = 0,
) -> float:
    r"""Compare the gradients of one batch in eager and in compiled mode.

    .. math::

        \max_{t, p} \frac{\lVert g^{\text{compiled}}_{t,p} - g^{\text{eager}}_{t,p} \rVert}
        {\max(\lVert g^{\text{eager}}_{t,p} \rVert,\; 10^{-4} \max_q \lVert g_{t,q} \rVert)}
        \le \text{tolerance}

    over steps t and weights p; the tolerance is 10⁻³ where the copy is float64 (a model in float32
    on a processor or on CUDA), 10⁻² in float32 and 5·10⁻² below. Model, rules' state and random
    generators stay as they are. Call it before rules are attached; whatever was compiled before in
    this process is compiled anew when it is used next.

    Args:
        rules: A rule or a chain.
        model: As it will be trained, without rules; its output has a ``loss``.
        batch: Its inputs, with ``labels``, on its device.
        backend: Of ``torch.compile``.
        seed: Of everything that the rules draw.

    Returns:
        The largest relative difference.

    Raises:
        RuleError: A rule does not work compiled, or its gradients differ; it is named.

    Example:
        >>> from domainformer.training.rules.base import LearningRule
        >>> class Odd(LearningRule):
        ...     name = "odd"
        >>> check_compiled(Odd(), nn.Linear(1, 1), {}, "aot_eager")
        Traceback (most recent call last):
        ...
        domainformer.errors.RuleError: these learning rules do not work compiled: 'odd'
          next:  set compile: null, or leave them out
    """
    attached = chain(rules)
    refused = [repr(rule.name) for rule in attached.rules if not rule.compiles]
    if refused:
        raise RuleError(
            f"these learning rules do not work compiled: {', '.join(refused)}",
            next_step="set compile: null, or leave them out",
        )
    twin, inputs = _precise(copy.deepcopy(model).train(), batch)
    tolerance = TOLERANCE.get(next(twin.parameters()).dtype, _COARSE)
    found, why = _difference(attached, twin, inputs, backend, seed)
    if found <= tolerance:
        return found
    raise _culprit(attached, twin, inputs, backend, seed, tolerance, why)


def _culprit(
    rules: LearningRule,
    twin: nn.Module,
    inputs: Mapping[str, Any],
    backend: str,
    seed: int,
    tolerance: float,
    why: str,
) -> RuleError:
    """The error that names who it was: the model, single rules, or all of them together."""
    if _difference(chain(), twin, inputs, backend, seed)[0] > tolerance:
        return RuleError(
            "the model does not train compiled as it does eager, even without learning rules",
            where=f"backend {backend}",
            why=why,
            next_step="set compile: null",
        )
    alone = [
        (rule.name, reason)
        for rule in chain(rules).rules
        for difference, reason in [_difference(chain(rule), twin, inputs, backend, seed)]
        if difference > tolerance
    ]
    names = [name for name, _ in alone] or [rule.name for rule in chain(rules).rules]
    return RuleError(
        "learning rules do not act compiled as they do eager: "
        + ", ".join(repr(name) for name in names)
        + ("" if alone else " (together; none of them alone)"),
        where=f"backend {backend}, tolerance {tolerance:g}",
        why="; ".join(reason for _, reason in alone) or why,
        next_step="set compile: null, or leave the rule out; "
        "a rule that cannot be compiled says so with compiles = False",
    )


def _difference(
    rules: LearningRule, twin: nn.Module, inputs: Mapping[str, Any], backend: str, seed: int
) -> tuple[float, str]:
    """The largest relative difference, and where it was found."""
    eager = _gradients(rules, twin, twin, inputs, seed)
    with _compiling(backend):
        try:
            other = torch.compile(twin, backend=backend)
            compiled = _gradients(rules, twin, other, inputs, seed)
        except DomainformerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a compiler may raise
            text = str(error).strip().partition("\n")[0]
            return math.inf, f"compiling failed: {type(error).__name__}: {text}"
    worst, where = 0.0, ""
    for step, (ours, theirs) in enumerate(zip(eager, compiled, strict=True)):
        norms = [float(g.norm()) for g in ours.values() if g is not None]
        floor = _NEGLIGIBLE * max(norms, default=0.0)
        for name, gradient in ours.items():
            apart = _apart(gradient, theirs[name], floor)
            if apart > worst:
                worst, where = (
                    apart,
                    f"the gradient of {name} at step {step} differs by {apart:.2g}",
                )
    return worst, where


def _apart(ours: torch.Tensor | None, theirs: torch.Tensor | None, floor: float) -> float:
    if ours is None or theirs is None:
        return 0.0 if ours is theirs else math.inf
    off = float((ours - theirs).norm())
    if off == 0:
        return 0.0
    size = max(float(ours.norm()), floor)
    return off / size if size > 0 and math.isfinite(off) else math.inf


def _gradients(
    rules: LearningRule,
    twin: nn.Module,
    called: Any,
    inputs: Mapping[str, Any],
    seed: int,
) -> Gradients:
    """Gradients of all weights at each step, with the rules on the model."""
    found: Gradients = []
    with _same_draws(twin), attach(rules, twin, seed=seed) as attached:
        for step in range(STEPS):
            attached.clock.step, attached.clock.checking = step, step == 0
            twin.zero_grad(set_to_none=True)
            output = called(**inputs)
            attached.add_auxiliary(
                output.loss, getattr(output, "logits", None), inputs["labels"], inputs
            ).backward()
            found.append({name: weight.grad for name, weight in twin.named_parameters()})
    twin.zero_grad(set_to_none=True)
    return found


def _precise(twin: nn.Module, batch: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    weights = list(twin.parameters())
    # Half precision may depend on kernels that know no other, and Apple's devices have no float64.
    if any(w.dtype != torch.float32 or w.device.type == "mps" for w in weights):
        return twin, dict(batch)
    return twin.double(), {
        name: value.double()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
        else value
        for name, value in batch.items()
    }


@contextlib.contextmanager
def _same_draws(model: nn.Module) -> Iterator[None]:
    """The same dropout every time, and the generators as before afterwards."""
    device = next(model.parameters()).device
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        yield


@contextlib.contextmanager
def _compiling(backend: str) -> Iterator[None]:
    """Nothing compiled before or kept afterwards; the compiler draws dropout as eager mode does."""
    torch.compiler.reset()
    try:
        with contextlib.ExitStack() as stack, warnings.catch_warnings():
            # Where warnings are errors, the compiler would fail over those that it gives itself.
            warnings.simplefilter("ignore")
            if backend == "inductor":
                from torch._inductor import config

                stack.enter_context(config.patch(fallback_random=True))
            yield
    finally:
        torch.compiler.reset()
