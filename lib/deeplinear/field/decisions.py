"""Is the field a gradient? The exact decision for polynomial losses, its potential, and what no learning rate cures."""

import dataclasses
import itertools

import numpy as np
import sympy as sp
import torch
from flint import fmpq, fmpz_mat

from .. import data, exact
from ..annotations import Number, Numbers, Smooth
from ..losses import LpLoss, Polynomial
from .derivatives import check_depth


@dataclasses.dataclass(frozen=True)
class Potential:
    """A function with the gradient F: ``expression`` in the SymPy ``symbols``; call it on ``W`` of shape (..., k, d)."""

    expression: sp.Expr
    symbols: tuple[sp.Symbol, ...]

    def __call__(self, W: Numbers) -> torch.Tensor:
        W = data.tensor(W)
        if not W.is_floating_point() or W.shape[-2:].numel() != len(self.symbols):
            raise ValueError(f"W is {W.dtype} of shape {tuple(W.shape)}; expected floating-point numbers, "
                             f"{len(self.symbols)} in the last two axes")
        entries = W.flatten(-2).movedim(-1, 0).numpy()
        values = sp.lambdify(self.symbols, self.expression, "numpy")(*entries)
        return torch.as_tensor(np.broadcast_to(values, W.shape[:-2]).copy(), dtype=W.dtype)


@dataclasses.dataclass(frozen=True)
class SpectralPotential:
    """The sum of ``expression``, in the SymPy ``symbol``, over the singular values of ``W``, of shape (..., k, d)."""

    expression: sp.Expr
    symbol: sp.Symbol

    def __call__(self, W: Numbers) -> torch.Tensor:
        values = torch.linalg.svdvals(data.tensor(W))
        terms = sp.lambdify(self.symbol, self.expression, "numpy")(values.numpy())
        return torch.as_tensor(np.broadcast_to(terms, values.shape).copy(), dtype=values.dtype).sum(-1)


@dataclasses.dataclass(frozen=True)
class Decision:
    """``gradient``: True or False; ``reason``; where it is True, the ``potential``."""

    gradient: bool
    reason: str
    potential: Potential | SpectralPotential | None = None


def is_gradient(loss: LpLoss | Polynomial, depth: Number) -> Decision:
    """Whether ``F_N`` is a gradient near 0, for a polynomial loss: a :class:`Decision` with reason and potential.

    Exact: the loss is taken with its coefficients as rational numbers (a float is the number it stands for, so data
    whitened in floating point are not whitened). One output, at a depth below 1: near 0 means without 0 itself. At most
    one output or input: the answer is the same on every open set. Several: it is for balls around 0, and on some other
    open sets more losses pass. :prf:ref:`cor-polynomial`, :prf:ref:`prop-exceptions`, :prf:ref:`thm-spectral`.
    """
    N = check_depth(depth, loss)
    k, d = loss.shape
    if N == 1:
        reason = "depth 1 is gradient descent on the loss itself"
    elif k * d == 1:
        reason = "one weight: a field on a line always has a potential"
    elif min(k, d) > 1:
        if any(exact.gradient_at_zero(loss)):
            return Decision(False, "two or more outputs and inputs, and grad L(0) is not 0")
        for degree in range(2, exact.degree(loss) + 1):
            if (direction := _not_spectral(loss, degree)) is not None:
                wanted = "0" if degree % 2 else f"a multiple of tr (W W^T)^{degree // 2}"
                return Decision(False, f"the part of degree {degree} is not {wanted}: see the direction {direction}")
        return Decision(True, "the loss is a sum of one function over the singular values", _spectral_potential(loss, N))
    else:
        free = ""
        for degree in range(1, exact.degree(loss) + 1):
            direction = _not_radial(loss, degree)
            if direction is not None and degree == 2 / N:
                free = f" plus a part of degree {degree} = 2/N"
            elif direction is not None:
                wanted = "0, and odd parts are never radial" if degree % 2 else f"a multiple of |W|^{degree}"
                return Decision(False, f"the part of degree {degree} is not {wanted}: see the direction {direction}")
        reason = "depth 2 and a loss that is linear plus radial" if free and N == 2 else f"the loss is radial{free}"
    return Decision(True, reason, _potential(loss, N))


def potential(loss: LpLoss | Polynomial, depth: Number) -> Potential | SpectralPotential:
    """The :class:`Potential` of ``F_N`` (several outputs: :class:`SpectralPotential`), zero at 0 from depth 1 on.

    Raises ``ValueError`` with the reason where there is none.
    """
    decision = is_gradient(loss, depth)
    if decision.potential is None:
        raise ValueError(f"F has no potential: {decision.reason}")
    return decision.potential


def obstruction(loss: Smooth, W: Numbers) -> torch.Tensor:
    """The volume spanned by ``w/|w|``, the gradient and ``H w/|w|``: where it is not 0, no learning rate that depends
    on ``w`` makes the end-to-end field of any depth above 1 a gradient.

    ``W``: shape ``(..., 1, d)``, not 0; ``loss`` twice differentiable. Returns shape ``(...)``, always 0 for d = 2.
    :prf:ref:`thm-factor`.
    """
    if loss.shape[0] != 1:
        raise ValueError(f"the loss has shape {tuple(loss.shape)}; expected one output")
    W = data.tensor(W)
    norm = torch.linalg.matrix_norm(W)[..., None, None]
    if not (norm > 0).all():
        raise ValueError("W is 0; expected a direction")
    u = W / norm
    spanning = torch.cat([u, loss.gradient(W), loss.hessian_product(W, u)], -2)
    if W.shape[-1] < 3:
        return torch.zeros_like(norm[..., 0, 0])
    return torch.linalg.svdvals(spanning).prod(-1)


def _potential(loss, N):
    size = loss.shape[0] * loss.shape[1]
    w = sp.symbols(f"w1:{size + 1}", real=True)
    depth, r = sp.Rational(int(N.p), int(N.q)), sp.Abs(w[0]) if size == 1 else sp.sqrt(sum(x**2 for x in w))
    if N == 1:
        return Potential(exact.to_sympy(loss, w), w)
    total = sp.Integer(0)
    for degree in range(1, exact.degree(loss) + 1):
        if degree == 2 / N and size > 1:
            total += r ** (2 - 2 / depth) * _part_in(loss, degree, w)
        else:
            c, exponent = exact.rational(exact.part(loss, degree, [1] + [0] * (size - 1))), degree + 2 - 2 / depth
            power = w[0] ** degree if size == 1 else r**degree
            if exponent == 0:  # below depth 1 the integral of 1/r
                total += c * depth * degree * sp.log(r) * power / r**degree
            else:
                total += c * depth * degree / exponent * r ** (2 - 2 / depth) * power
    return Potential(total, w)


def _part_in(loss, degree, w):
    """The homogeneous part of this degree as a SymPy expression in the symbols ``w``."""
    if degree == 1:
        return sum(exact.rational(c) * x for c, x in zip(exact.gradient_at_zero(loss), w))
    terms = sp.Poly(exact.to_sympy(loss, w), *w).terms()
    return sum(c * sp.prod(x**e for x, e in zip(w, key)) for key, c in terms if sum(key) == degree)


def _spectral_potential(loss, N):
    s, corner = sp.Symbol("s", positive=True), [1] + [0] * (loss.shape[0] * loss.shape[1] - 1)
    depth = sp.Integer(int(N.p))
    return SpectralPotential(sum((
        exact.rational(exact.part(loss, degree, corner)) * depth * degree * s ** (degree + 2 - 2 / depth)
        / (degree + 2 - 2 / depth) for degree in range(2, exact.degree(loss) + 1, 2)), sp.Integer(0)), s)


def _not_radial(loss, degree):
    """None if the homogeneous part of this degree is a multiple of ``|W|^degree``, else a direction that shows it."""
    return _not_multiple(loss, degree, lambda v: sum(x * x for x in v) ** (degree // 2))


def _not_spectral(loss, degree):
    """None if this part is a multiple of ``tr (W W^T)^(degree / 2)``, else a direction that shows it."""
    k, d = loss.shape

    def trace(v):
        W = fmpz_mat(k, d, v)
        power = (W * W.transpose()) ** (degree // 2)
        return sum(int(power[i, i]) for i in range(k))

    return _not_multiple(loss, degree, trace)


def _not_multiple(loss, degree, form):
    """A direction where a homogeneous part is no multiple of ``form`` (1 at the first axis), of even degree; or None.

    A homogeneous polynomial is 0 if it vanishes at all points with non-negative integer coordinates of sum ``degree``.
    """
    size = loss.shape[0] * loss.shape[1]
    expected = exact.part(loss, degree, [1] + [0] * (size - 1)) if degree % 2 == 0 else fmpq(0)
    for chosen in itertools.combinations_with_replacement(range(size), degree):
        v = [chosen.count(i) for i in range(size)]
        if exact.part(loss, degree, v) != expected * form(v):
            return tuple(v)
    return None
