"""The orthogonal factor of many matrices at once, by a few products of matrices.

For M = U S Vᵀ it is U Vᵀ: the matrix with the same directions whose singular values are all one.
Odd polynomials that map every singular value near one need nothing but products::

    X ← (a I + b G + c G²) X        G = X Xᵀ  (on the smaller side)

Three things make it cheap. Matrices of one shape are one batch. Where a matrix is not square, the
polynomials are run on the Gram matrix alone and meet the matrix once, at the end::

    P ← p(G) P,    G ← p(G)² G      all symmetric, and they commute;    X_end = P X

And a norm that is near the largest singular value costs nothing: ‖G²‖^¼ (Frobenius) lies between
that value and n^⅛ of it, where the norm of the matrix itself can be √n of it, so that small
singular values have a shorter way to go and an iteration less is enough.

Source: Jordan et al., "Muon", 2024 (kellerjordan.github.io/posts/muon); the coefficients: Amsel et
al., "The Polar Express", 2025, section 3, algorithm 1.
"""

from __future__ import annotations

import functools
import math

import torch

Coefficients = tuple[tuple[float, float, float], ...]
# Rounding makes small eigenvalues of a Gram matrix negative, and each iteration on it multiplies
# them by a²: in half precision three in a row can already diverge, so X is met every second time.
_HALF_RUN = 2
# Rounding can leave a singular value just above the bound of its matrix.
_SAFETY = 1.01


def orthogonalise(stack_NRC: torch.Tensor, coefficients: Coefficients) -> torch.Tensor:
    """Near-orthogonal factors of a stack of matrices.

    Args:
        stack_NRC: Matrices [n, rows, columns], in the precision to compute in; a matrix of zeros
            stays zero.
        coefficients: (a, b, c) of each iteration.

    Returns:
        The factors, in the same shape and precision.

    Example:
        >>> x = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0))
        >>> o = orthogonalise(x, polar_express(8, 0.01))
        >>> bool(torch.allclose(o @ o.mT, torch.eye(8).expand(2, 8, 8), atol=1e-3))
        True
    """
    rows, columns = stack_NRC.shape[-2:]
    if rows > columns:
        return orthogonalise(stack_NRC.mT, coefficients).mT
    x_NRC = stack_NRC / _frobenius(stack_NRC, power=1).to(stack_NRC.dtype)
    # T (2k + 1) products of [rows, rows] against 2k + 4T − 3, where columns = k · rows.
    if 2 * columns <= 3 * rows:
        return _on_matrix(x_NRC, coefficients)
    run = _HALF_RUN if stack_NRC.dtype.itemsize < 4 else len(coefficients)
    return _on_gram(x_NRC, coefficients, run=run)


def _on_matrix(x_NRC: torch.Tensor, coefficients: Coefficients) -> torch.Tensor:
    """Three products an iteration: the cheaper form where matrices are about square."""
    for step, polynomial in enumerate(coefficients):
        p_NRR = _factor(torch.bmm(x_NRC, x_NRC.mT), polynomial, first=step == 0)
        x_NRC = torch.bmm(p_NRR, x_NRC)
    return x_NRC


def _on_gram(x_NRC: torch.Tensor, coefficients: Coefficients, run: int) -> torch.Tensor:
    """Four small products an iteration, and two with the matrix itself for each run of some."""
    for start in range(0, len(coefficients), run):
        g_NRR = torch.bmm(x_NRC, x_NRC.mT)
        p_NRR = whole_NRR = _factor(g_NRR, coefficients[start], first=start == 0)
        for polynomial in coefficients[start + 1 : start + run]:
            g_NRR = torch.bmm(p_NRR, torch.bmm(p_NRR, g_NRR))
            p_NRR = _factor(g_NRR, polynomial, first=False)
            whole_NRR = torch.bmm(p_NRR, whole_NRR)
        x_NRC = torch.bmm(whole_NRR, x_NRC)
    return x_NRC


def _factor(
    g_NRR: torch.Tensor, polynomial: tuple[float, float, float], *, first: bool
) -> torch.Tensor:
    """What an iteration multiplies with: a I + b G + c G²."""
    a, b, c = polynomial
    if first:
        return _first(g_NRR, a, b, c)
    p_NRR = torch.baddbmm(g_NRR, g_NRR, g_NRR, beta=b, alpha=c)
    p_NRR.diagonal(dim1=-2, dim2=-1).add_(a)
    return p_NRR


def _first(g_NRR: torch.Tensor, a: float, b: float, c: float) -> torch.Tensor:
    """The polynomial of the first iteration, which also divides by the bound s = ‖G²‖^¼.

    ::

        p = a/s I + b/s³ G + c/s⁵ G²
    """
    square_NRR = torch.bmm(g_NRR, g_NRR)
    s_N11 = _frobenius(square_NRR, power=0.25)
    dtype = g_NRR.dtype
    p_NRR = g_NRR * (b / s_N11**3).to(dtype)
    p_NRR.addcmul_(square_NRR, (c / s_N11**5).to(dtype))
    p_NRR.diagonal(dim1=-2, dim2=-1).add_((a / s_N11).to(dtype)[..., 0])
    return p_NRR


def _frobenius(stack: torch.Tensor, power: float) -> torch.Tensor:
    """A power of each matrix's Frobenius norm, [n, 1, 1] in fp32; for zeros a small number."""
    wide = torch.promote_types(stack.dtype, torch.float32)
    norm = torch.linalg.vector_norm(stack, dim=(-2, -1), keepdim=True, dtype=wide)
    return norm.clamp(min=1e-20).pow(power)


@functools.cache
def polar_express(iterations: int, smallest: float) -> Coefficients:
    """Coefficients that bring every singular value of [smallest, 1] as near to one as can be.

    Each iteration takes the best quintic for the interval that the one before left, which is the
    best that any composition of quintics can do.

    Args:
        iterations: How many quintics.
        smallest: Smaller singular values grow by the same factor, but do not arrive at one.

    Example:
        >>> a, b, c = polar_express(1, 1e-3)[0]
        >>> round(a, 1), round(b, 1), round(c, 1)
        (8.3, -23.1, 16.7)
    """
    low, high = smallest, 1.0
    found = []
    for step in range(iterations):
        a, b, c = _best_quintic(low, high)
        low = a * low + b * low**3 + c * low**5
        high = 2.0 - low
        safe = _SAFETY if step < iterations - 1 else 1.0
        found.append((a / safe, b / safe**3, c / safe**5))
    return tuple(found)


def _best_quintic(low: float, high: float) -> tuple[float, float, float]:
    """The odd quintic with the least largest distance from one on [low, high] (Remez)."""
    import numpy as np

    if low / high > 1 - 5e-6:
        return 15 / (8 * high), -10 / (8 * high**3), 3 / (8 * high**5)
    inner = ((3 * low + high) / 4, (low + 3 * high) / 4)
    error = math.inf
    for _ in range(100):
        points = np.array([low, *inner, high])
        system = np.stack([points, points**3, points**5, [1.0, -1.0, 1.0, -1.0]], axis=1)
        a, b, c, new = (float(value) for value in np.linalg.solve(system, np.ones(4)))
        root = math.sqrt(9 * b * b - 20 * a * c)
        inner = (math.sqrt((-3 * b - root) / (10 * c)), math.sqrt((-3 * b + root) / (10 * c)))
        if abs(error - new) < 1e-14:
            break
        error = new
    return a, b, c
