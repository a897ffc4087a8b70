"""Operators of PyTorch that the ONNX exporter does not know, written in those of ONNX.

The quantile scaling of tabular features needs two: where a number lies among knots, and the
inverse of the normal distribution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# Wichura (1988), algorithm AS 241, PPND16: about 16 digits.
_CENTRE = (
    (
        *(3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3),
        *(1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4),
        *(3.3430575583588128105e4, 2.5090809287301226727e3),
    ),
    (
        *(1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3),
        *(2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4),
        *(5.2264952788528545610e3,),
    ),
)
_MIDDLE = (
    (
        *(1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0),
        *(3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1),
        *(2.27238449892691845833e-2, 7.74545014278341407640e-4),
    ),
    (
        *(1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1),
        *(1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4),
        *(1.05075007164441684324e-9,),
    ),
)
_TAIL = (
    (
        *(6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0),
        *(2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3),
        *(2.71155556874348757815e-5, 2.01033439929228813265e-7),
    ),
    (
        *(1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2),
        *(7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7),
        *(2.04426310338993978564e-15,),
    ),
)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What the exporter calls for each of them."""
    from onnxscript import opset18 as op

    def searchsorted(
        sorted_sequence: Any,
        values: Any,
        out_int32: bool = False,
        right: bool = False,
        side: str | None = None,
        sorter: Any = None,
    ) -> Any:
        """How many knots of its row [F, Q] are below each number [F, B] (``right``: or equal)."""
        knots = op.Unsqueeze(sorted_sequence, op.Constant(value_ints=[1]))
        numbers = op.Unsqueeze(values, op.Constant(value_ints=[2]))
        below = (
            op.LessOrEqual(knots, numbers) if right or side == "right" else op.Less(knots, numbers)
        )
        return op.ReduceSum(op.Cast(below, to=7), op.Constant(value_ints=[-1]), keepdims=0)

    def ndtri(p: Any) -> Any:
        """The number below which a share p of the normal distribution lies."""
        p = op.Cast(p, to=11)  # float64: the tails are differences of nearly equal numbers

        def number(value: float) -> Any:
            return op.Cast(op.Constant(value_float=value), to=11)

        def exact(value: float) -> Any:
            # A constant of ONNX has 32 bits; the sum of three has all of a double's.
            first = _single(value)
            second = _single(value - first)
            parts = (first, second, _single(value - first - second))
            return op.Add(op.Add(number(parts[0]), number(parts[1])), number(parts[2]))

        def polynomial(coefficients: tuple[float, ...], x: Any) -> Any:
            total = exact(coefficients[-1])
            for value in coefficients[-2::-1]:
                total = op.Add(op.Mul(total, x), exact(value))
            return total

        def ratio(pair: tuple[tuple[float, ...], tuple[float, ...]], x: Any) -> Any:
            return op.Div(polynomial(pair[0], x), polynomial(pair[1], x))

        q = op.Sub(p, exact(0.5))
        centre = op.Mul(q, ratio(_CENTRE, op.Sub(exact(0.180625), op.Mul(q, q))))
        tail = op.Min(p, op.Sub(exact(1.0), p))
        r = op.Sqrt(op.Neg(op.Log(tail)))
        middle = ratio(_MIDDLE, op.Sub(r, exact(1.6)))
        far = ratio(_TAIL, op.Sub(r, exact(5.0)))
        outer = op.Mul(op.Where(op.LessOrEqual(r, exact(5.0)), middle, far), op.Sign(q))
        return op.Where(op.LessOrEqual(op.Abs(q), exact(0.425)), centre, outer)

    return {
        torch.ops.aten.searchsorted.Tensor: searchsorted,
        torch.ops.aten.special_ndtri.default: ndtri,
    }


def _single(value: float) -> float:
    return float(torch.tensor(value, dtype=torch.float32))
