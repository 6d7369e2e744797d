"""Is the field a gradient? The exact decision for polynomial losses, its potential, and what no learning rate cures."""

import dataclasses
import itertools

import numpy as np
import sympy as sp
import torch
from flint import fmpq

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
class Decision:
    """``gradient``: True, False, or None where no theorem of the book decides; ``reason``; ``potential`` or None."""

    gradient: bool | None
    reason: str
    potential: Potential | None = None


def is_gradient(loss: LpLoss | Polynomial, depth: Number) -> Decision:
    """Whether ``F_N`` is a gradient near 0, for a polynomial loss: a :class:`Decision` with reason and potential.

    Exact: the loss is taken with its coefficients as rational numbers (a float is the number it stands for, so data
    whitened in floating point are not whitened). One output: always decided. Several outputs: decided where depth is 1
    or ``grad L(0) != 0``. :prf:ref:`cor-polynomial`, :prf:ref:`prop-exceptions`, :prf:ref:`thm-matrices`.
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
        return Decision(None, "two or more outputs and inputs with grad L(0) = 0: no theorem of the book decides")
    else:
        for degree in range(1, exact.degree(loss) + 1):
            direction = None if degree == 2 / N else _not_radial(loss, degree)
            if direction is not None:
                wanted = "0, and odd parts are never radial" if degree % 2 else f"a multiple of |W|^{degree}"
                return Decision(False, f"the part of degree {degree} is not {wanted}: see the direction {direction}")
        linear = N == 2 and any(exact.gradient_at_zero(loss))
        reason = "depth 2 and a loss that is linear plus radial" if linear else "the loss is radial"
    return Decision(True, reason, _potential(loss, N))


def potential(loss: LpLoss | Polynomial, depth: Number) -> Potential:
    """The :class:`Potential` of ``F_N``, zero at 0. Raises ``ValueError`` with the reason where there is none."""
    decision = is_gradient(loss, depth)
    if decision.potential is None:
        raise ValueError(f"F has no potential: {decision.reason}" if decision.gradient is False else decision.reason)
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
            linear = (exact.rational(c) * x for c, x in zip(exact.gradient_at_zero(loss), w))
            total += r ** (2 - 2 / depth) * sum(linear)
        else:
            c = exact.rational(exact.part(loss, degree, [1] + [0] * (size - 1)))
            power = w[0]**degree if size == 1 else r**degree
            total += c * depth * degree / (degree + 2 - 2 / depth) * r ** (2 - 2 / depth) * power
    return Potential(total, w)


def _not_radial(loss, degree):
    """None if the homogeneous part of this degree is a multiple of ``|W|^degree``, else a direction that shows it.

    A homogeneous polynomial is 0 if it vanishes at all points with non-negative integer coordinates of sum ``degree``.
    """
    size = loss.shape[0] * loss.shape[1]
    expected = exact.part(loss, degree, [1] + [0] * (size - 1)) if degree % 2 == 0 else fmpq(0)
    for chosen in itertools.combinations_with_replacement(range(size), degree):
        v = [chosen.count(i) for i in range(size)]
        if exact.part(loss, degree, v) != expected * fmpq(sum(x * x for x in v)) ** (degree // 2):
            return tuple(v)
    return None
