"""The field at a point: its value and its curl, for any loss that is differentiable enough."""

from collections.abc import Sequence
from typing import Any

import sympy as sp
import torch

from .. import data, exact, preconditioner
from ..annotations import Number, Numbers, Shaped, Smooth
from ..losses import LpLoss


def vector_field(loss: Shaped, W: Numbers, depth: Number) -> torch.Tensor:
    """``F_N(W)``: shape ``(..., k, d)`` like ``W``, not 0 for a depth below 1, where the field has no value at 0.

    :prf:ref:`def-field`, :prf:ref:`cor-single-output`.
    """
    W, N = data.tensor(W), float(check_depth(depth, loss))
    if N < 1 and (torch.linalg.matrix_norm(W) == 0).any():
        raise ValueError(f"W is 0 and depth is {depth!r}; expected W != 0 for a depth below 1")
    return field_at(loss.gradient(W), W, N)


def expression(L: sp.Expr, symbols: Sequence[sp.Symbol], depth: Any) -> sp.Matrix:
    """The field of a loss ``L`` of the ``symbols``, real, as a column of SymPy expressions; ``depth`` a number or a symbol.

    ``L`` need not be a polynomial. One output; not at 0. :prf:ref:`def-field`.
    """
    w, N = sp.Matrix(symbols), sp.sympify(depth)
    g, r = sp.Matrix([L]).jacobian(w).T, sp.sqrt(w.dot(w))
    return r ** (2 - 2 / N) * (g + (N - 1) * g.dot(w) / r**2 * w)


def curl(loss: Smooth, W: Numbers, depth: Number) -> torch.Tensor:
    r"""The antisymmetric matrix :math:`\partial_j F_i - \partial_i F_j` at ``W``, exact up to rounding.

    ``W``: shape ``(..., k, d)`` of full rank; ``loss`` twice differentiable, with ``hessian_product``. Returns shape
    ``(..., kd, kd)``, entries of ``W`` counted row by row; for one output ``(..., d, d)``. In the plane, entry (1, 0)
    is the usual curl. Raises ``ValueError`` where ``W`` is rank deficient: F need not be differentiable there.
    :prf:ref:`lem-curl`.
    """
    N = float(check_depth(depth, loss))
    W, (k, d) = data.tensor(W), loss.shape
    G = loss.gradient(W)
    if (torch.linalg.matrix_rank(W) < min(k, d)).any():
        raise ValueError("W is 0 or rank deficient; expected full rank, where the field is differentiable")
    if 1 in (k, d):
        w, g, Hw = W.flatten(-2), G.flatten(-2), loss.hessian_product(W, W).flatten(-2)
        size = torch.linalg.vector_norm(w, dim=-1)[..., None, None] ** (-2 / N)
        return size * ((N - 1) * (2 - N) / N * _wedge(g, w) + (N - 1) * _wedge(w, Hw))
    basis = torch.eye(k * d, dtype=W.dtype, device=W.device).reshape(k * d, k, d)
    W, G = W[..., None, :, :], G[..., None, :, :]
    HE = loss.hessian_product(W, basis)
    if k > d:
        derivative = _derivative(W.mT, G.mT, basis.mT, HE.mT, int(N)).mT
    else:
        derivative = _derivative(W, G, basis, HE, int(N))
    jacobian = derivative.flatten(-2).mT  # entry (i, j) is d_j F_i
    return jacobian - jacobian.mT


def gradient_variation(loss: LpLoss, R: float) -> float:
    r"""A bound on :math:`|\nabla L(w) - \nabla L(0)|` over the ball ``|w| <= R``, for an l_p loss of one output.

    ``R`` times the norm of the Hessian with every residual at its largest on the ball, ``R |x| + |y|``. Raises
    ``ValueError`` for several outputs. The epsilon of :prf:ref:`thm-no-regulariser`.
    """
    if loss.shape[0] != 1:
        raise ValueError(f"the loss has shape {tuple(loss.shape)}; expected one output")
    largest = R * torch.linalg.vector_norm(loss.X, dim=1) + loss.Yt[0].abs()
    hessian = loss.factor * loss.p * (loss.p - 1) * (loss.Xt * largest ** (loss.p - 2)) @ loss.X
    return R * torch.linalg.matrix_norm(hessian, 2).item()


def field_at(G, W, N):
    """The field at ``W`` from the gradient ``G`` there and the depth, a float."""
    if 1 not in W.shape[-2:]:
        return preconditioner.apply(W, G, int(N))
    norm = torch.linalg.matrix_norm(W)[..., None, None]
    one = torch.ones_like(norm)
    u = W / torch.where(norm > 0, norm, one)
    return norm ** (2 - 2 / N) * (G + (N - 1) * (G * u).sum((-2, -1), keepdim=True) * u)


def _wedge(a, b):
    """``a_i b_j - a_j b_i``."""
    outer = a[..., :, None] * b[..., None, :]
    return outer - outer.mT


def _derivative(W, G, E, HE, N):
    """The derivative of ``sum_j S^((j-1)/N) G T^((N-j)/N)`` along E, for S = W W^T of full rank and T = W^T W."""
    values, Q = torch.linalg.eigh(W @ W.mT)
    dS = Q.mT @ (E @ W.mT + W @ E.mT) @ Q

    def power(a):
        return (Q * values[..., None, :] ** a) @ Q.mT

    def power_derivative(a):  # divided differences of x^a, without cancellation where eigenvalues meet
        x, y = values[..., :, None], values[..., None, :]
        h = torch.log(x / y)
        apart = torch.where(h == 0, torch.ones_like(h), h)
        quotient = torch.where(h == 0, torch.full_like(h, a), torch.expm1(a * apart) / torch.expm1(apart))
        return Q @ (y ** (a - 1) * quotient * dS) @ Q.mT

    total = 0
    for j in range(1, N + 1):
        left, d_left = power((j - 1) / N), power_derivative((j - 1) / N)
        if j == N:
            total = total + d_left @ G + left @ HE
        else:  # T^b = W^T S^(b-1) W is smooth where W has full row rank
            middle, d_middle = power(-j / N), power_derivative(-j / N)
            right = W.mT @ middle @ W
            d_right = E.mT @ middle @ W + W.mT @ d_middle @ W + W.mT @ middle @ E
            total = total + d_left @ G @ right + left @ HE @ right + left @ G @ d_right
    return total


def check_depth(depth, loss):
    """The depth as an exact number; ``ValueError`` where there is no field of that depth."""
    N = None if isinstance(depth, bool) else exact.number(depth, "depth")
    if N is None or N <= 0:
        raise ValueError(f"depth is {depth!r}; expected a number > 0")
    if min(loss.shape) > 1 and N.q != 1:
        raise ValueError(f"depth is {depth!r}; expected an integer >= 1 for several outputs")
    return N
