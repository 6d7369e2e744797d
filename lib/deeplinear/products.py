"""How a batch of end-to-end matrices meets the data: the only place where training touches it.

Each class is made once for a loss and a number of matrices, and then fills ``value`` of shape (K,) and ``G`` of shape
(K, k, d) with the losses and gradients at ``W`` of shape (K, k, d), in buffers of its own: two matrix products a call.
"""

from collections.abc import Callable
from typing import Any

import torch

from .losses import LpLoss


def products(loss, count, rows=None, basis=None):
    """The fastest exact way to ``loss`` at ``count`` matrices at once.

    For p = 2 in float64 with at least as many examples as features, the spectrum of the second moments where the matrices
    are given in its ``basis``, the moments themselves where not; two products with the data for other :class:`LpLoss`;
    ``loss.value_and_gradient`` for any other object. ``rows``: a function that draws the examples of the gradient anew
    at every call (minibatches); the value stays that of the whole loss.
    """
    if basis is not None:
        return Spectrum(loss, count, basis)
    if rows is not None or not isinstance(loss, LpLoss):
        return Plain(loss, rows)
    return (Moments if has_moments(loss) else Direct)(loss, count)


def has_moments(loss):
    """Whether second moments stand for the data of this loss."""
    return (isinstance(loss, LpLoss) and loss.p == 2 and loss.X.dtype == torch.float64
            and len(loss.X) >= loss.shape[1])


class Direct:
    """Residuals of all matrices in one product with ``X^T``, their powers back in one product with ``X``."""

    def __init__(self, loss: LpLoss, count: int) -> None:
        self.loss = loss
        k, n = loss.shape[0], len(loss.X)
        self.Y = loss.Yt.expand(count, k, n).reshape(count * k, n)
        self.residual, self.power = (loss.X.new_empty(count * k, n) for _ in range(2))

    def __call__(self, W: torch.Tensor, value: torch.Tensor, G: torch.Tensor) -> None:
        loss, R, S = self.loss, self.residual, self.power
        torch.addmm(self.Y, W.view(R.shape[0], -1), loss.Xt, beta=-1, out=R)
        if loss.p == 2:
            S = R
        else:
            torch.mul(R, R, out=S)  # S = R^(p-1), without a call to pow
            for _ in range(loss.p - 3):
                S.mul_(R)
        torch.linalg.vecdot(S.view(len(value), -1), R.view(len(value), -1), out=value)
        value.mul_(loss.factor)
        torch.mm(S, loss.X, out=G.view(R.shape[0], -1))
        G.mul_(loss.factor * loss.p)

    def exact(self, W: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """The losses to record at ``W``: those just computed."""
        return value.clone()


class Moments:
    r"""p = 2 without the data: with :math:`H = X^\top X`, the gradient is proportional to :math:`W H - Y^\top X`.

    Values are by-products here and lose digits to cancellation where the loss is small beside its value at 0; those that
    are recorded are computed from the residuals.
    """

    def __init__(self, loss: LpLoss, count: int) -> None:
        self.loss, scale = loss, 2 * loss.factor
        self.H = scale * (loss.Xt @ loss.X)
        self.B = (scale * (loss.Yt @ loss.X)).expand(count, *loss.shape)
        self.flat = self.B.reshape(-1, loss.shape[1])
        self.c = scale / 2 * (loss.Yt ** 2).sum()

    def __call__(self, W: torch.Tensor, value: torch.Tensor, G: torch.Tensor) -> None:
        torch.addmm(self.flat, W.view(self.flat.shape), self.H, beta=-1, out=G.view(self.flat.shape))
        torch.linalg.vecdot((G - self.B).view(len(value), -1), W.view(len(value), -1), out=value)
        torch.add(self.c, value, alpha=0.5, out=value)

    def exact(self, W: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return self.loss.value(W)


class Spectrum:
    r"""p = 2 in the eigenbasis of :math:`X^\top X`, where a gradient is one multiplication for each entry.

    Gradient descent, with or without momentum, commutes with a rotation of the features, of the first layer that is, so
    it can be run in any ``basis`` (d, d), one vector a column. Optimisers that work entry by entry cannot.
    """

    def __init__(self, loss: LpLoss, count: int, basis: torch.Tensor) -> None:
        self.rotated, scale = LpLoss(loss.X @ basis, loss.Yt.mT, 2, loss.reduction, loss.scale), 2 * loss.factor
        self.eigenvalues = scale * (self.rotated.X ** 2).sum(0)
        self.at_zero = (-scale * (self.rotated.Yt @ self.rotated.X)).expand(count, *loss.shape)
        self.c = scale / 2 * (loss.Yt ** 2).sum()

    def __call__(self, W: torch.Tensor, value: torch.Tensor, G: torch.Tensor) -> None:
        torch.addcmul(self.at_zero, W, self.eigenvalues, out=G)
        torch.linalg.vecdot((G + self.at_zero).view(len(value), -1), W.view(len(value), -1), out=value)
        torch.add(self.c, value, alpha=0.5, out=value)

    def exact(self, W: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return self.rotated.value(W)


def eigenbasis(loss):
    """The eigenvectors of ``X^T X``, one a column."""
    return torch.linalg.eigh(loss.Xt @ loss.X).eigenvectors


class Plain:
    """Any loss of the end-to-end matrix, and gradients from fresh rows."""

    def __init__(self, loss: Any, rows: Callable[[], torch.Tensor] | None = None) -> None:
        self.loss, self.rows = loss, rows

    def __call__(self, W: torch.Tensor, value: torch.Tensor, G: torch.Tensor) -> None:
        if self.rows is None:
            found, gradient = self.loss.value_and_gradient(W)
        else:
            found, gradient = self.loss.value(W), self.loss.rows(self.rows()).gradient(W)
        value.copy_(found)
        G.copy_(gradient)

    def exact(self, W: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value.clone()
