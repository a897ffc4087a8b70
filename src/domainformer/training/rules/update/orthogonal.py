"""The orthogonal factor of many matrices at once, by a few products of matrices.

For M = U S Vᵀ it is U Vᵀ: the matrix with the same directions whose singular values are all one.
Odd polynomials that map every singular value near one need nothing but products::

    X ← (a I + b G + c G²) X        G = X Xᵀ        for wide X; Xᵀ X and from the right for tall X

Three things make it cheap. Matrices of one shape are one batch. Where a matrix is not square, the
polynomials run on the Gram matrix, as large as the smaller side S, and meet the matrix at the end::

    P ← p(G) P,    G ← p(G)² G      all symmetric, and they commute;    X_end = P X

And a norm that is near the largest singular value costs nothing: ‖G²‖^¼ (Frobenius) is at most n^⅛
times that value, where the norm of the matrix itself can be √n times it, so that small singular
values have a shorter way to go and an iteration less is enough.

Source: Jordan et al., "Muon", 2024 (kellerjordan.github.io/posts/muon); the coefficients: Amsel et
al., "The Polar Express", 2025, section 3, algorithm 1.
"""

from __future__ import annotations

import functools
import itertools
import math

import torch

Coefficients = tuple[tuple[float, float, float], ...]
# Rounding makes small eigenvalues of a Gram matrix negative, and each iteration on it multiplies
# them by a². In half precision they must not grow by more than this before X is met again.
_HALF_GROWTH = 800.0
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
    left = rows <= columns
    # T (2k + 1) products of the small side's size against 2k + 4T − 3, k the ratio of the sides.
    if 2 * max(rows, columns) <= 3 * min(rows, columns):
        runs: list[Coefficients] = [(polynomial,) for polynomial in coefficients]
    else:
        runs = _runs(coefficients, half=stack_NRC.dtype.itemsize < 4)
    x_NRC = stack_NRC
    for number, run in enumerate(runs):
        g_NSS = torch.bmm(x_NRC, x_NRC.mT) if left else torch.bmm(x_NRC.mT, x_NRC)
        p_NSS = _on_gram(g_NSS, run, first=number == 0)
        x_NRC = torch.bmm(p_NSS, x_NRC) if left else torch.bmm(x_NRC, p_NSS)
    return x_NRC


def _runs(coefficients: Coefficients, *, half: bool) -> list[Coefficients]:
    """Iterations that run on one Gram matrix before the matrix itself is met again."""
    if not half:
        return [coefficients]
    runs, growth = [[coefficients[0]]], 1.0
    for before, polynomial in itertools.pairwise(coefficients):
        growth *= before[0] ** 2
        if growth <= _HALF_GROWTH:
            runs[-1].append(polynomial)
        else:
            runs.append([polynomial])
            growth = 1.0
    return [tuple(run) for run in runs]


def _on_gram(g_NSS: torch.Tensor, run: Coefficients, *, first: bool) -> torch.Tensor:
    """What some iterations multiply the matrix with: four products for each after the first."""
    p_NSS = whole_NSS = _scaled(g_NSS, *run[0]) if first else _factor(g_NSS, *run[0])
    for polynomial in run[1:]:
        g_NSS = torch.bmm(p_NSS, torch.bmm(p_NSS, g_NSS))
        p_NSS = _factor(g_NSS, *polynomial)
        whole_NSS = torch.bmm(p_NSS, whole_NSS)
    return whole_NSS


def _factor(g_NSS: torch.Tensor, a: float, b: float, c: float) -> torch.Tensor:
    """One iteration's p = a I + b G + c G²."""
    p_NSS = torch.baddbmm(g_NSS, g_NSS, g_NSS, beta=b, alpha=c)
    p_NSS.diagonal(dim1=-2, dim2=-1).add_(a)
    return p_NSS


def _scaled(g_NSS: torch.Tensor, a: float, b: float, c: float) -> torch.Tensor:
    """The first iteration's, which also divides the matrix by a bound of its singular values.

    ::

        t² = tr G    H = G / t²    s = ‖H²‖^¼    p = (a I + b/s² H + c/s⁴ H²) / (t s)
    """
    dtype, wide = g_NSS.dtype, torch.promote_types(g_NSS.dtype, torch.float32)
    diagonal_NS = g_NSS.diagonal(dim1=-2, dim2=-1).to(wide)
    t2_N11 = diagonal_NS.sum(-1)[:, None, None].clamp(min=1e-30)
    h_NSS = g_NSS * t2_N11.reciprocal().to(dtype)
    square_NSS = torch.bmm(h_NSS, h_NSS)
    norm_N11 = torch.linalg.vector_norm(square_NSS.to(wide), dim=(-2, -1), keepdim=True)
    # The trace of H is one, so that only zeros come near this.
    s_N11 = norm_N11.clamp(min=1e-12).pow(0.25)
    whole_N11 = (t2_N11.sqrt() * s_N11).reciprocal()
    h_NSS.mul_((b * whole_N11 / s_N11**2).to(dtype))
    h_NSS.addcmul_(square_NSS, (c * whole_N11 / s_N11**4).to(dtype))
    h_NSS.diagonal(dim1=-2, dim2=-1).add_((a * whole_N11).to(dtype)[..., 0])
    return h_NSS


@functools.cache
def polar_express(iterations: int, smallest: float) -> Coefficients:
    """Coefficients that bring every singular value of [smallest, 1] as near to one as can be.

    Each iteration takes the best quintic for the interval that the one before left, which is the
    best that any composition of quintics can do.

    Args:
        iterations: How many quintics.
        smallest: Smaller singular values grow by the same factor, but do not arrive at one.

    Example:
        >>> ((a, b, c),) = polar_express(1, 0.999999)        # (15 x − 10 x³ + 3 x⁵) / 8
        >>> round(a, 3), round(b, 3), round(c, 3)
        (1.875, -1.25, 0.375)
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
