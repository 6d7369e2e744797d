"""Asymmetric low-rank matrix factorisation by gradient descent, with constant or decaying steps, batched.

The objective is ``1/2 |U V^T - M|_F^2``, without the usual regulariser unless it is asked for: what balances the
factors is gradient descent itself (Du, Hu and Lee 2018).
"""

import dataclasses
import numbers
from collections.abc import Callable, Sequence

import torch

from . import chain, data, losses
from .annotations import Array, Numbers


@dataclasses.dataclass(frozen=True)
class Run:
    """``steps`` (T,); ``loss`` (T, ...), without the regulariser; ``imbalance`` (T, ...), the Frobenius norm of
    ``U^T U - V^T V``; ``drift_bound`` (T, ...), which the spectral norm of its change since the start does not exceed
    without regulariser: the sum of the squared steps times the larger squared gradient norm; the final ``U``, ``V``;
    ``ratio`` (T, ...), the Frobenius norm of U over that of V."""

    steps: torch.Tensor
    loss: torch.Tensor
    imbalance: torch.Tensor
    drift_bound: torch.Tensor
    U: torch.Tensor
    V: torch.Tensor
    ratio: torch.Tensor

    def steps_to(self, level: float) -> torch.Tensor:
        """The first recorded step at which the loss is at most ``level``, shape (...); infinity where it never is."""
        reached = self.loss <= level
        return torch.where(reached.any(0), self.steps.double()[reached.to(torch.uint8).argmax(0)], torch.inf)


def problem(m: int, n: int, values: Sequence[float], std: float, seed: int | Sequence[int]) -> tuple[torch.Tensor, ...]:
    """A goal and a start: ``M`` (m, n), ``U`` (m, r) and ``V`` (n, r), float64.

    M has the r singular ``values`` between random frames; the factors are Gaussian of standard deviation ``std``.
    ``seed``: of all draws; a sequence of seeds gives a batch of problems, stacked.
    """
    if isinstance(seed, Sequence):
        return tuple(torch.stack(part) for part in zip(*(problem(m, n, values, std, each) for each in seed)))
    generator, r = chain.seeded(int(seed)), len(values)
    P, Q = (torch.linalg.qr(chain.normal(k, r, generator=generator))[0] for k in (m, n))
    U, V = (std * chain.normal(k, r, generator=generator) for k in (m, n))
    return P * torch.tensor(values, dtype=torch.float64) @ Q.mT, U, V


def value(M: torch.Tensor, U: torch.Tensor, V: torch.Tensor) -> torch.Tensor:
    """``1/2 |U V^T - M|_F^2`` of goals (..., m, n) and factors (..., m, r), (..., n, r): shape (...). :eq:`eq-factorisation`."""
    return (U @ V.mT - M).square().sum((-2, -1)) / 2


def gradients(M: torch.Tensor, U: torch.Tensor, V: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of :func:`value` in ``U`` and in ``V``, in their shapes. :eq:`eq-factorisation`."""
    R = U @ V.mT - M
    return R @ V, R.mT @ U


def bound(M: torch.Tensor, U: torch.Tensor, V: torch.Tensor) -> torch.Tensor:
    """The number that the squared norms of both factors do not exceed, shape (...), under any steps up to a fourth of its inverse.

    Imbalance, goal and residual at the start: ``|U^T U - V^T V|_2 + |M|_2 + 2 |U V^T - M|_F``. :prf:ref:`thm-factor-descent`.
    """
    sizes = [torch.linalg.matrix_norm(A, 2) for A in (imbalance(U, V), M)]
    return sizes[0] + sizes[1] + 2 * (2 * value(M, U, V)).sqrt()


def network_loss(M: Numbers) -> losses.LpLoss:
    """:func:`value` as a loss of the end-to-end matrix ``U V^T``: what the network with the layers ``[V^T, U]`` learns.

    ``M``: one goal, (m, n).
    """
    M = data.tensor(M)
    return losses.LpLoss(torch.eye(M.shape[1], dtype=M.dtype), M.mT, 2, "sum", 0.5)


def decaying(eta: float, delta: float) -> Callable[[int], float]:
    """The step sizes ``eta * (t + 1) ** -(1/2 + delta)``: square-summable, and summing to infinity.

    What the decay costs: :prf:ref:`prop-clock`. Raises ``ValueError`` for ``delta`` outside (0, 1/2].
    """
    if not 0 < delta <= 0.5:
        raise ValueError(f"delta is {delta!r}; expected 0 < delta <= 1/2, so that squared steps have a finite sum and "
                         "steps an infinite one")
    return lambda t: eta * (t + 1) ** -(0.5 + delta)


def imbalance(U: Array, V: Array) -> Array:
    """``U^T U - V^T V`` of factors (..., m, r) and (..., n, r): shape (..., r, r)."""
    return chain.imbalance([V.mT, U])[0]


def descend(M: Numbers, U: Numbers, V: Numbers, step_size: Numbers | Callable[[int], float], steps: int,
            regulariser: float = 0.0, record_every: int = 1) -> Run:
    """Gradient descent on both factors at once; returns a :class:`Run`.

    ``M`` (..., m, n), ``U`` (..., m, r), ``V`` (..., n, r), leading axes a batch. ``step_size``: a number, a list
    of one for each run, a tensor of shape (..., 1, 1), or a function of the step such as :func:`decaying` gives.
    ``regulariser``: the factor c of
    ``c/4 |U^T U - V^T V|_F^2``. The input is not changed. Raises ``ValueError`` for factors that do not fit or
    are integers.
    :prf:ref:`thm-factor-descent`.
    """
    M, U, V = (data.tensor(factor) for factor in (M, U, V))
    if not M.dtype == U.dtype == V.dtype or not M.is_floating_point():
        raise ValueError(f"M, U, V are {M.dtype}, {U.dtype}, {V.dtype}; expected one floating-point type")
    if U.shape[-1] != V.shape[-1] or tuple(M.shape[-2:]) != (U.shape[-2], V.shape[-2]):
        raise ValueError(f"M, U, V have shapes {tuple(M.shape)}, {tuple(U.shape)}, {tuple(V.shape)}; expected "
                         "(..., m, n), (..., m, r), (..., n, r)")
    if not isinstance(steps, numbers.Integral) or steps < 0 or record_every < 1:
        raise ValueError(f"steps is {steps!r}, record_every {record_every!r}; expected counts, at least 0 and 1")
    if not callable(step_size):
        step_size = data.tensor(step_size)
        if step_size.ndim == 1:
            step_size = step_size[:, None, None]
        if step_size.ndim and step_size.shape[-2:] != (1, 1) or not torch.isfinite(step_size).all():
            raise ValueError(f"step_size is {step_size.tolist()}; expected a finite number, one for each run, or a tensor of "
                             "shape (..., 1, 1)")
    eta = step_size if callable(step_size) else lambda t: step_size
    batches = [torch.as_tensor(eta(0)).shape[:-2], *(factor.shape[:-2] for factor in (M, U, V))]
    drift = M.new_zeros(torch.broadcast_shapes(*batches))
    rows = []
    for t in range(steps + 1):
        if t % record_every == 0 or t == steps:
            size = imbalance(U, V).norm(dim=(-2, -1)).expand(drift.shape)
            lengths = [factor.norm(dim=(-2, -1)) for factor in (U, V)]
            rows.append((t, value(M, U, V).expand(drift.shape), size, drift,
                         (lengths[0] / lengths[1]).expand(drift.shape)))
        if t == steps:
            break
        G, H = gradients(M, U, V)
        squares = torch.maximum(G.square().sum((-2, -1)), H.square().sum((-2, -1)))
        if regulariser:
            D = regulariser * imbalance(U, V)
            G, H = G + U @ D, H - V @ D
        lr = torch.as_tensor(eta(t), dtype=M.dtype, device=M.device)
        drift = drift + (lr.squeeze((-2, -1)) if lr.ndim else lr) ** 2 * squares
        U, V = U - lr * G, V - lr * H
    at, *columns = zip(*rows)
    loss, size, bounds, ratio = map(torch.stack, columns)
    return Run(torch.tensor(at), loss, size, bounds, U, V, ratio)
