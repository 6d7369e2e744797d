"""Losses of the end-to-end matrix: value, gradient, Hessian product, batched over leading axes.

Nothing here knows about layers. A deep linear network meets its loss only through the end-to-end matrix ``W``, so a
loss is a function of ``W`` alone and the same object serves a linear model, a network of any depth and an ODE.
"""

import numbers
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import scipy.linalg
import sympy as sp
import torch

from . import data
from .annotations import Exact, Number, Numbers


class LpLoss:
    r"""The :math:`\ell_p` regression loss of a linear model with ``k`` outputs and ``d`` inputs.

    .. math:: L(W) = \text{scale} \cdot \frac1n \sum_{i=1}^n \sum_{a=1}^k \big( (W x_i)_a - y_{ia} \big)^p

    ``X``: shape (n, d), one example a row. ``y``: shape (n,) for one output, or (n, k). ``p``: an even integer, at
    least 2, so that the loss is a smooth convex polynomial. ``reduction``: ``"mean"`` over the n rows or ``"sum"``.
    ``scale``: a positive factor; ``1/p`` gives the convention with 1/p in front.

    ``X`` and ``y`` are torch tensors, or anything NumPy reads (stored as float64). NumPy arrays of dtype object are
    kept as they are, so the same code runs on exact rationals and on symbols. Raises ``ValueError`` for shapes that do
    not match, entries that are not finite, ``p`` odd or below 2, or a scale that is not positive.

    Source: Arora, Cohen and Hazan 2018, section 3; :prf:ref:`def-lp-loss`.
    """

    X: Exact
    Xt: Exact
    Yt: Exact
    p: int
    reduction: Literal["mean", "sum"]
    scale: Number
    factor: Number

    def __init__(self, X: Any, y: Any, p: int, reduction: Literal["mean", "sum"] = "mean", scale: Number = 1) -> None:
        X, y = _as_array(X, "X"), _as_array(y, "y")
        if X.ndim != 2 or 0 in X.shape:
            raise ValueError(f"X has shape {tuple(X.shape)}; expected (n, d) with n >= 1 rows and d >= 1 features")
        if y.ndim not in (1, 2) or y.shape[0] != X.shape[0] or 0 in y.shape:
            raise ValueError(f"y has shape {tuple(y.shape)}; expected ({X.shape[0]},) or ({X.shape[0]}, k), k >= 1, "
                             f"to match X of shape {tuple(X.shape)}")
        if isinstance(X, torch.Tensor) != isinstance(y, torch.Tensor):
            raise ValueError(f"X is {_kind(X)} and y {_kind(y)}; expected one kind of entries in both")
        if isinstance(p, bool) or not isinstance(p, numbers.Integral) or p < 2 or p % 2:
            raise ValueError(f"p is {p!r}; expected an even integer >= 2")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction is {reduction!r}; expected 'mean' or 'sum'")
        if not (isinstance(scale, numbers.Number) and np.isfinite(float(scale)) and scale > 0):
            raise ValueError(f"scale is {scale!r}; expected a positive finite number")
        for name, array in (("X", X), ("y", y)):
            if isinstance(array, torch.Tensor) and not torch.isfinite(array).all():
                bad = (~torch.isfinite(array)).nonzero()[0].tolist()
                raise ValueError(f"{name}{bad} is {array[tuple(bad)].item()}; expected finite numbers")
        self.p, self.reduction, self.scale = int(p), reduction, scale
        self.X, self.Xt = X, X.mT
        self.Yt = y[None, :] if y.ndim == 1 else y.mT
        if isinstance(X, torch.Tensor):  # both layouts contiguous: each product then streams through memory
            self.X, self.Xt, self.Yt = X.contiguous(), X.mT.contiguous(), self.Yt.to(X).contiguous()
        one = 1.0 if isinstance(X, torch.Tensor) else X[0, 0] * 0 + 1  # exact entries keep the factor exact
        factor = float(scale) if isinstance(X, torch.Tensor) else scale
        self.factor = one * factor / (len(X) if reduction == "mean" else 1)

    @property
    def shape(self) -> tuple[int, int]:
        """``(k, d)``, the shape of one end-to-end matrix."""
        return self.Yt.shape[0], self.Xt.shape[0]

    def value(self, W: Exact) -> Exact:
        """The loss of ``W`` of shape ``(..., k, d)``, a tensor or an array: shape ``(...)``, a scalar for one matrix."""
        return self.factor * (self._residual(W) ** self.p).sum((-2, -1))

    def gradient(self, W: Exact) -> Exact:
        """The gradient at ``W`` of shape ``(..., k, d)``, of the same shape."""
        return (self.factor * self.p) * (self._residual(W) ** (self.p - 1) @ self.X)

    def value_and_gradient(self, W: Exact) -> tuple[Exact, Exact]:
        """Both at the price of one: the residual is computed once."""
        residual = self._residual(W)
        power = residual ** (self.p - 1)
        return self.factor * (power * residual).sum((-2, -1)), (self.factor * self.p) * (power @ self.X)

    def hessian_product(self, W: Exact, V: Exact) -> Exact:
        """The Hessian at ``W`` applied to the direction ``V``, both of shape ``(..., k, d)``."""
        V = self._matrices(V, "V")
        curvature = self._residual(W) ** (self.p - 2)
        return (self.factor * self.p * (self.p - 1)) * ((curvature * (V @ self.Xt)) @ self.X)

    def rows(self, index: Any) -> "LpLoss":
        """The same loss on the examples ``index`` (a minibatch); a mean stays a mean over those rows."""
        return LpLoss(self.X[index], self.Yt[:, index].mT, self.p, self.reduction, self.scale)

    def to(self, *args: Any, **kwargs: Any) -> "LpLoss":
        """The same loss with its data on another device or in another dtype, as ``torch.Tensor.to``."""
        return LpLoss(self.X.to(*args, **kwargs), self.Yt.mT.to(*args, **kwargs), self.p, self.reduction, self.scale)

    def _residual(self, W):
        return self._matrices(W, "W") @ self.Xt - self.Yt

    def _matrices(self, W, name):
        if isinstance(self.X, torch.Tensor) and not isinstance(W, torch.Tensor):
            W = data.tensor(W).to(self.X.device)
        if isinstance(self.X, torch.Tensor) and W.dtype != self.X.dtype:
            raise ValueError(f"{name} is {W.dtype}, the data are {self.X.dtype}; loss.to({W.dtype}) converts the data")
        if tuple(W.shape[-2:]) != self.shape:
            raise ValueError(f"{name} has shape {tuple(W.shape)}; expected (..., {self.shape[0]}, {self.shape[1]}): "
                             f"{self.shape[0]} output(s) by {self.shape[1]} features")
        return W

    def __repr__(self):
        k, d = self.shape
        return f"LpLoss(n={len(self.X)}, d={d}, k={k}, p={self.p}, reduction={self.reduction!r}, scale={self.scale})"


class Polynomial:
    """A loss that is any polynomial in the entries of ``W``: linear, quadratic, or made up to break a theorem.

    ``expression``: a SymPy expression, polynomial in ``symbols`` with rational or floating-point coefficients (a float
    is the rational number it stands for). ``symbols``: d symbols for one output, or a SymPy matrix of shape (k, d).
    ``terms`` maps exponents, one for each entry row by row, to exact coefficients. Raises ``ValueError`` for an
    expression that is not a polynomial in the symbols. :prf:ref:`cor-polynomial`.
    """

    def __init__(self, expression: sp.Expr, symbols: Sequence[sp.Symbol] | sp.MatrixBase) -> None:
        symbols = sp.Matrix(symbols) if isinstance(symbols, sp.MatrixBase) else sp.Matrix([list(symbols)])
        self.shape = symbols.shape
        try:
            poly = sp.Poly(expression, *symbols)
            self.terms = {exponents: Fraction(*map(int, sp.Rational(c).as_numer_denom())) for exponents, c in poly.terms()}
        except (sp.PolynomialError, TypeError, ValueError) as error:
            raise ValueError(f"the expression is {expression}; expected a polynomial in {list(symbols)} with numbers "
                             "as coefficients") from error
        self.degree = max(map(sum, self.terms))

    def value(self, W: Numbers) -> torch.Tensor:
        """The loss of ``W`` of shape ``(..., k, d)``: shape ``(...)``."""
        return self._evaluate(self.terms, self._matrices(W, "W"))

    def gradient(self, W: Numbers) -> torch.Tensor:
        """The gradient at ``W`` of shape ``(..., k, d)``, of the same shape."""
        W = self._matrices(W, "W")
        return torch.stack([self._evaluate(part, W) for part in self._parts(self.terms)], -1).reshape(W.shape)

    def value_and_gradient(self, W: Numbers) -> tuple[torch.Tensor, torch.Tensor]:
        """Both."""
        return self.value(W), self.gradient(W)

    def hessian_product(self, W: Numbers, V: Numbers) -> torch.Tensor:
        """The Hessian at ``W`` applied to the direction ``V``, both of shape ``(..., k, d)``."""
        at, along = torch.broadcast_tensors(self._matrices(W, "W"), self._matrices(V, "V"))
        rows = [torch.stack([self._evaluate(second, at) for second in self._parts(first)], -1)
                for first in self._parts(self.terms)]
        return (torch.stack(rows, -2) @ along.flatten(-2)[..., None])[..., 0].reshape(along.shape)

    def _matrices(self, W: Numbers, name: str) -> torch.Tensor:
        W = data.tensor(W)
        if not W.is_floating_point():
            raise ValueError(f"{name} is {W.dtype}; expected floating-point numbers, such as {name}.double() has")
        if tuple(W.shape[-2:]) != self.shape:
            raise ValueError(f"{name} has shape {tuple(W.shape)}; expected (..., {self.shape[0]}, {self.shape[1]})")
        return W

    def _evaluate(self, terms, W):
        powers = W.new_tensor(list(terms)).reshape(len(terms), -1)
        coefficients = W.new_tensor([float(c) for c in terms.values()])
        return ((W.flatten(-2)[..., None, :] ** powers).prod(-1) * coefficients).sum(-1)

    def _parts(self, terms):
        """The terms of the partial derivatives by each entry."""
        return [{(*e[:i], e[i] - 1, *e[i + 1:]): e[i] * c for e, c in terms.items() if e[i]} or
                {(0,) * len(next(iter(self.terms))): Fraction(0)} for i in range(self.shape[0] * self.shape[1])]

    def __repr__(self):
        return f"Polynomial(d={self.shape[1]}, k={self.shape[0]}, degree={self.degree}, terms={len(self.terms)})"


def minimiser(loss: LpLoss, tolerance: float = 1e-13, max_steps: int = 200) -> torch.Tensor:
    """The minimiser ``(k, d)`` of an :class:`LpLoss`, the one of least norm where there are many.

    Damped Newton steps in an orthonormal basis of the columns, whatever their units, until the decrement falls below
    ``tolerance`` times the loss, or rounding stops the descent. A column that others give up to rounding counts as
    theirs. Raises ``RuntimeError`` after ``max_steps``, or where the loss at the matrix found, rounded as it is, is not
    within 1e-8 of the least, relatively. The plots of a loss above its optimum are only as good as this number.
    """
    if not isinstance(loss, LpLoss) or not isinstance(loss.X, torch.Tensor):
        raise ValueError(f"the loss is {loss!r}; expected an LpLoss of floating-point data")
    X, Y = loss.X.double().cpu().numpy(), loss.Yt.double().cpu().numpy()
    basis, weights = _column_space(X)
    W = np.stack([weights @ _newton(basis, y, loss.p, tolerance, max_steps) for y in Y])
    for w, y in zip(W, Y):
        residual = y - X @ w
        fits = np.abs(residual).max() <= min(_rounding(X, w, y), 1e-10 * np.abs(y).max())
        if not fits and not _newton_step(basis, residual, loss.p)[1] <= 1e-8:
            raise RuntimeError(f"rounding hides the minimiser of these data, whose entries reach {np.abs(w).max():.1e}: "
                               "expected columns of X further from dependent and y nearer to 0 (centre both)")
    return torch.from_numpy(W).to(loss.X)


def _column_space(X):
    """An orthonormal basis of the columns (n, r), and the weights (d, r) whose combinations of columns it is."""
    size = np.abs(X).max(0)
    size[size == 0] = 1
    U, s, Vh = np.linalg.svd(X / size, full_matrices=False)
    rank = int((s > s[0] * max(X.shape) * np.finfo(float).eps).sum())
    weights = Vh[:rank].T / s[:rank] / size[:, None]
    if rank < X.shape[1]:  # of all weights that do, the shortest: those in the space of the rows
        rows = np.linalg.qr(Vh[:rank].T * size[:, None]).Q
        weights = rows @ (rows.T @ weights)
    return U[:, :rank], weights


def _newton(basis, y, p, tolerance, max_steps):
    """The coordinates at which the residual ``y - basis @ coordinates`` has the least sum of p-th powers."""
    c = basis.T @ y
    for _ in range(max_steps):
        residual = y - basis @ c
        step, decrement = _newton_step(basis, residual, p)
        largest = np.abs(residual).max()
        noise = _rounding(basis, c, y) / max(largest, np.finfo(float).tiny)
        if decrement <= max(tolerance, noise**2):
            return c + step if noise < 1 else c
        move, size = basis @ step, 1.0
        before = ((residual / largest) ** p).sum()
        while (((residual - size * move) / largest) ** p).sum() > before * (1 - 0.25 * size * decrement) and size > 1e-8:
            size /= 2
        if size <= 1e-8:
            return c
        c = c + size * step
    raise RuntimeError(f"Newton's method did not converge in {max_steps} steps; decrement {decrement:.1e} of the loss")


def _rounding(X, w, y):
    """How far from 0 the entries of ``y - X @ w`` may be where they ought to be 0."""
    return sum(X.shape) * np.finfo(float).eps * (np.abs(X) @ np.abs(w) + np.abs(y)).max()


def _newton_step(basis, residual, p):
    """Newton's step for the sum of p-th powers, a weighted least-squares fit, and its decrement relative to the sum."""
    largest = np.abs(residual).max()
    if largest == 0 or not basis.shape[1]:
        return np.zeros(basis.shape[1]), 0.0
    unit = residual / largest  # no power of it overflows
    weighted, target = unit[:, None] ** (p // 2 - 1) * basis, unit ** (p // 2)
    step = scipy.linalg.lstsq(weighted, target)[0]
    return step * largest / (p - 1), p / (p - 1) * ((weighted @ step) @ target) / (target @ target)


def _as_array(x: Any, name: str) -> Any:
    """Data as a tensor, or as an array of exact entries where that is what they are."""
    if isinstance(x, torch.Tensor) and not x.is_complex():
        return x if x.is_floating_point() else x.double()
    if hasattr(x, "columns"):
        return torch.from_numpy(data.columns(x, name))
    if hasattr(x, "to_numpy"):  # one column of a data frame
        return torch.from_numpy(data.columns({name: x}, "the data", [name])[:, 0])
    x = np.asarray(x)
    if x.dtype.kind in "cmM":
        raise ValueError(f"{name} is {x.dtype}; expected real numbers")
    if x.dtype != object:
        return torch.as_tensor(x.astype(float))
    for index, entry in np.ndenumerate(x):
        if not _is_exact(entry):
            raise ValueError(f"{name}{list(index)} is {entry!r}; expected finite numbers, rationals or symbols")
    return x


def _kind(array):
    return str(array.dtype) if isinstance(array, torch.Tensor) else "of exact entries"


def _is_exact(entry):
    """Whether an entry of an array of objects can be reckoned with: no text, truth value, gap or float that is none."""
    if isinstance(entry, numbers.Real) and not isinstance(entry, bool | numbers.Rational):
        return bool(np.isfinite(float(entry)))
    return hasattr(entry, "__mul__") and not isinstance(entry, bool | str | bytes | complex)
