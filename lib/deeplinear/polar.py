r"""Descent with normalised gradients: by the norm of all of them, by the polar factor of each (Muon), by Shampoo.

With the compact SVD ``G = U diag(s) V^T``, all ``s`` above 0, the *polar factor* of ``G`` is ``U V^T``: the singular
vectors are kept and every singular value becomes 1. The optimisers have the form of those in
:mod:`deeplinear.optimizers` and go where these go: ``dl.train(loss, weights, polar.Muon(0.01), steps)``.
"""

import dataclasses
from collections.abc import Sequence

import torch

from . import data
from .annotations import Numbers
from .optimizers import _Optimizer

Tensors = Sequence[torch.Tensor]
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Muon's quintic, as its author and PyTorch have them


def factor(G: Numbers, rank: int | None = None) -> torch.Tensor:
    """The compact polar factor ``U V^T`` of ``G``, shape ``(..., m, n)``; 0 for a matrix of zeros.

    ``rank``: how many singular values count (default: those above rounding). NaN for a ``G`` that is not finite. Among all
    ``X`` with largest singular value at most 1 it has the largest inner product with ``G``, the sum of its singular
    values. Raises ``ValueError`` for what is no matrix or a rank below 0. :prf:ref:`def-polar-flow`.
    """
    G = data.tensor(G)
    if G.ndim < 2:
        raise ValueError(f"G has shape {tuple(G.shape)}; expected (..., m, n)")
    if rank is not None and rank < 0:
        raise ValueError(f"rank is {rank!r}; expected an integer >= 0")
    if min(G.shape[-2:]) == 1 and rank is None:  # a vector: its direction
        size = torch.linalg.matrix_norm(G)[..., None, None]
        return G / torch.where(size == 0, torch.ones_like(size), size)
    finite = G.isfinite().all(-1).all(-1)[..., None, None]  # one diverged matrix must not end the run of the others
    U, s, Vh = torch.linalg.svd(torch.where(finite, G, torch.zeros_like(G)), full_matrices=False)
    if rank is None:
        counts = s > s[..., :1] * max(G.shape[-2:]) * torch.finfo(s.dtype).eps
    else:
        counts = (torch.arange(s.shape[-1], device=s.device) < rank).expand(s.shape)
    return torch.where(finite, (U * counts[..., None, :]) @ Vh, torch.nan)


def newton_schulz(G: Numbers, steps: int = 5, coefficients: Sequence[float] = COEFFICIENTS) -> torch.Tensor:
    """What Muon takes for the polar factor: ``X <- a X + b X X^T X + c X (X^T X)^2`` from ``X = G / |G|_F``.

    ``coefficients``: a, b, c. Five steps bring singular values from a hundredth of ``|G|_F`` on near 1, between 0.68 and
    1.13, and not to 1. In the precision of ``G`` (PyTorch's Muon works in bfloat16). Same shape as ``G``.
    """
    X = data.tensor(G)
    a, b, c = coefficients
    X = X / torch.linalg.matrix_norm(X).clamp(min=1e-7)[..., None, None]
    wide = X.shape[-2] <= X.shape[-1]
    for _ in range(steps):
        gram = X @ X.mT if wide else X.mT @ X
        change = b * gram + c * gram @ gram
        X = a * X + (change @ X if wide else X @ change)
    return X


@dataclasses.dataclass(frozen=True)
class Normalised(_Optimizer):
    """Normalised gradient descent: ``W_j <- W_j - lr G_j / sqrt(sum_i |G_i|_F^2)``, one norm for all layers together.

    Where all gradients are 0 nothing moves.
    """

    lr: Numbers

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors) -> None:
        lr = self._column(parameters)
        sizes = torch.stack([torch.linalg.matrix_norm(G) for G in gradients])
        size = torch.linalg.vector_norm(sizes, dim=0)[..., None, None]
        size = torch.where(size == 0, torch.ones_like(size), size)
        for W, G in zip(parameters, gradients):
            W.addcmul_(G / size, lr, value=-1)


@dataclasses.dataclass(frozen=True)
class Muon(_Optimizer):
    """Muon (Jordan and others 2024) with the exact polar factor: ``V <- m V + (1 - m) G``, ``W <- W - lr UV^T``.

    ``UV^T`` is the polar factor of ``(1 - m) G + m V`` (Nesterov) or of ``V``; ``momentum=0`` is *polar descent*. PyTorch's
    Muon has a Newton-Schulz iteration in its place, a weight decay of 0.1, and a rate times ``sqrt(max(1, m / n))``.
    """

    lr: Numbers
    momentum: float = 0.95
    nesterov: bool = True

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum!r}; expected a number from 0 to below 1")

    def start(self, parameters: Tensors) -> list[torch.Tensor]:
        return [torch.zeros_like(W) for W in parameters]

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors) -> None:
        lr = self._column(parameters)
        for W, G, V in zip(parameters, gradients, state):
            V.lerp_(G, 1 - self.momentum)
            ahead = G.lerp(V, self.momentum) if self.nesterov else V
            W.addcmul_(factor(ahead), lr, value=-1)


@dataclasses.dataclass(frozen=True)
class Shampoo(_Optimizer):
    """Shampoo (Gupta, Koren and Singer 2018) for matrices: ``L <- L + G G^T``, ``R <- R + G^T G``,
    ``W <- W - lr L^(-1/4) G R^(-1/4)``, from ``L = R = eps I``.

    Negative powers are taken on the range: an eigenvalue that is 0 to rounding stays 0. :prf:ref:`prop-shampoo`.
    """

    lr: Numbers
    eps: float = 0.0

    def start(self, parameters: Tensors) -> list[torch.Tensor]:
        def identity(W, n):
            one = torch.eye(n, dtype=W.dtype, device=W.device)
            return (self.eps * one).expand(*W.shape[:-2], n, n).clone()

        return [identity(W, n) for W in parameters for n in W.shape[-2:]]

    def step(self, parameters: Tensors, gradients: Tensors, state: Tensors) -> None:
        lr = self._column(parameters)
        for W, G, L, R in zip(parameters, gradients, state[::2], state[1::2]):
            L.add_(G @ G.mT)
            R.add_(G.mT @ G)
            W.addcmul_(inverse_root(L) @ G @ inverse_root(R), lr, value=-1)


def inverse_root(A: torch.Tensor, power: float = -0.25) -> torch.Tensor:
    """``A`` to a negative ``power``, for symmetric positive semidefinite ``A`` (..., n, n), on its range.

    Eigenvalues that are 0 to rounding stay 0; NaN where ``A`` is not finite.
    """
    if A.shape[-1] == 1:
        return torch.where(A == 0, torch.zeros_like(A), A**power)
    finite = A.isfinite().all(-1).all(-1)[..., None, None]
    values, Q = torch.linalg.eigh(torch.where(finite, A, torch.zeros_like(A)))
    counts = values > values[..., -1:] * A.shape[-1] * torch.finfo(A.dtype).eps
    roots = torch.where(counts, torch.where(counts, values, torch.ones_like(values)) ** power, torch.zeros_like(values))
    return torch.where(finite, (Q * roots[..., None, :]) @ Q.mT, torch.nan)
