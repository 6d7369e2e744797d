r"""The preconditioner of depth: the operator :math:`A_W` of the end-to-end rule, worked from the SVD of ``W``.

.. math:: A_W(G) = \sum_{j=1}^N (W W^\top)^{(j-1)/N} \, G \, (W^\top W)^{(N-j)/N}

With ``W = U diag(s) V^T`` it multiplies the component of ``G`` along ``u_a v_b^T`` by an eigenvalue ``lam_ab`` that
depends on ``s_a``, ``s_b`` and the depth N alone. Powers of ``W W^T`` are never formed: they lose half the digits.
"""

import numbers
from typing import Any

import numpy as np
import torch

from . import data
from .annotations import Numbers


def apply(W: Numbers, G: Numbers, depth: int, rank: int | None = None) -> torch.Tensor:
    """``A_W(G)``: the direction in which a balanced network of this depth moves its end-to-end matrix.

    ``W``, ``G``: shape ``(..., k, d)``; ``depth`` an integer >= 1; ``rank``: how many singular values of ``W`` count as
    non-zero (default: those above rounding). A rank-deficient ``W`` known to rounding only should state its rank:
    fractional powers turn a spurious 1e-16 into 1e-5. NaN for a ``W`` that is not finite. Raises ``ValueError`` for shapes
    that differ, a bad depth or rank, and where a derivative by ``W`` is to be recorded that the SVD does not give: at
    singular values that are 0 or equal.
    Source: Arora, Cohen and Hazan 2018, Theorem 1; :prf:ref:`thm-end-to-end`.
    """
    return _multiply(W, G, depth, rank, lambda spectrum: spectrum)


def solve(W: Numbers, Z: Numbers, depth: int, rank: int | None = None) -> torch.Tensor:
    """The direction ``G`` in the image of ``A_W`` with ``A_W(G) = Z``, for ``Z`` in that image: the metric of depth.

    Components of ``Z`` outside the image, which has dimension ``rank (k + d - rank)``, are dropped. Arguments and
    errors as for :func:`apply`. :prf:ref:`thm-riemannian`.
    """
    return _multiply(W, Z, depth, rank, lambda spectrum: torch.where(spectrum > 0, 1 / spectrum, spectrum))


def _multiply(W, G, depth, rank, of):
    """``G`` with its component along each ``u_a v_b^T`` multiplied by a function ``of`` the eigenvalue there."""
    W, G, depth = data.tensor(W), data.tensor(G), _check(W, depth, rank)
    if G.shape[-2:] != W.shape[-2:]:
        raise ValueError(f"G has shape {tuple(G.shape)}; expected {tuple(W.shape)} like W")
    if W.shape[-2] > W.shape[-1]:  # lam is symmetric, so the operator commutes with transposition
        return _multiply(W.mT, G.mT, depth, rank, of).mT
    U, s, Vh = _svd(W, rank)  # U is square here, Vh spans the row space only
    _check_differentiable(W, s)
    rotated = U.mT @ G
    inside = rotated @ Vh.mT
    across = of(_spectrum(s, torch.zeros_like(s[..., :1]), depth))  # lam_ab for v_b beyond the row space
    return U @ ((of(_spectrum(s, s, depth)) * inside) @ Vh + across * (rotated - inside @ Vh))


def eigenvalues(W: Numbers, depth: int, rank: int | None = None) -> torch.Tensor:
    """The eigenvalues ``lam_ab`` of ``A_W``, shape ``(..., k, d)``; the eigenvector of entry (a, b) is ``u_a v_b^T``.

    Singular values are in falling order and count as 0 beyond the smaller side. :prf:ref:`thm-eigen`.
    """
    W, depth = data.tensor(W), _check(W, depth, rank)
    k, d = W.shape[-2:]
    s = _svd(W, rank)[1]
    return _spectrum(_pad(s, k), _pad(s, d), depth)


def matrix(W: Numbers, depth: int, rank: int | None = None) -> torch.Tensor:
    """The matrix of ``A_W`` on columns stacked: ``vec(A_W(G)) = matrix @ vec(G)``, shape ``(..., k d, k d)``.

    ``vec`` stacks columns, so in torch it is ``G.mT.flatten()``. :prf:ref:`thm-kronecker`.
    """
    W, depth = data.tensor(W), _check(W, depth, rank)
    k, d = W.shape[-2:]
    U, s, Vh = torch.linalg.svd(W, full_matrices=True)
    s = _above_rounding(s, W, rank)
    _check_differentiable(W, s)
    left, right = _pad(s, k), _pad(s, d)
    total: Any = 0
    for j in range(1, depth + 1):
        of_rows = (U * left[..., None, :] ** (2 * (j - 1) / depth)) @ U.mT
        of_columns = (Vh.mT * right[..., None, :] ** (2 * (depth - j) / depth)) @ Vh
        total = total + torch.einsum("...pq,...rs->...prqs", of_columns, of_rows).flatten(-2).flatten(-3, -2)
    return total


def _spectrum(a, b, depth):
    """lam for every pair of the singular values ``a`` (..., p) and ``b`` (..., q): shape (..., p, q); 0**0 is 1."""
    powers = [(2 * (j - 1) / depth, 2 * (depth - j) / depth) for j in range(1, depth + 1)]
    return sum(a[..., :, None] ** left * b[..., None, :] ** right for left, right in powers)


def _svd(W, rank):
    if min(W.shape[-2:]) == 1:  # a vector: its norm and its direction, exact and fast
        s = torch.linalg.matrix_norm(W)[..., None]
        if rank == 0:
            s = torch.zeros_like(s)
        direction = W / torch.where(s > 0, s, torch.ones_like(s))[..., None]
        one = torch.ones_like(s)[..., None]
        return (one, s, direction) if W.shape[-2] == 1 else (direction, s, one)
    finite = W.isfinite().all(-1).all(-1)[..., None]  # one diverged matrix must not end the run of the others
    U, s, Vh = torch.linalg.svd(torch.where(finite[..., None], W, torch.zeros_like(W)), full_matrices=False)
    return U, torch.where(finite, _above_rounding(s, W, rank), torch.nan), Vh


def _above_rounding(s, W, rank):
    if rank is not None:
        return torch.where(torch.arange(s.shape[-1], device=s.device) < rank, s, torch.zeros_like(s))
    floor = s[..., :1] * max(W.shape[-2:]) * torch.finfo(s.dtype).eps
    return torch.where(s > floor, s, torch.zeros_like(s))


def _pad(s, length):
    return torch.nn.functional.pad(s, (0, length - s.shape[-1]))


def _check(W, depth, rank):
    """The depth as an int."""
    if np.ndim(W) < 2:
        raise ValueError(f"W has shape {tuple(np.shape(W))}; expected (..., k, d)")
    if isinstance(depth, bool) or not isinstance(depth, numbers.Integral) or depth < 1:
        raise ValueError(f"depth is {depth!r}; expected an integer >= 1")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, numbers.Integral) or rank < 0):
        raise ValueError(f"rank is {rank!r}; expected an integer >= 0")
    return int(depth)


def _check_differentiable(W, s):
    """Automatic differentiation divides by the gaps between singular values and by the least: it must not meet a 0."""
    if not (torch.is_grad_enabled() and W.requires_grad):
        return
    gaps = -torch.diff(s, dim=-1, append=torch.zeros_like(s[..., :1]))
    if (gaps <= 8 * torch.finfo(s.dtype).eps * s[..., :1]).any():
        raise ValueError(f"W has singular values {s.tolist()}; expected distinct ones above 0 for a derivative by W "
                         "(W.detach() takes the value alone)")
