"""Closed curves in the space of one output: their plane, their angle, what is refused, and the quadrature along a piece."""

import numpy as np
from flint import arb, fmpq
from scipy.integrate import quad

from .. import exact
from ..losses import LpLoss, Polynomial
from .derivatives import check_depth


def axes(loss, directions):
    """Two orthogonal vectors that span the plane of the curve, and u0; exact rationals of any length."""
    d = max(loss.shape)
    if directions is None:
        u1 = exact.gradient_at_zero(loss)
        if not any(u1):
            raise ValueError("grad L(0) is 0, so the paper's curve has no direction; give directions=(u0, u1)")
        u0 = [-x for x in u1]
    else:
        u0, u1 = ([exact.number(x, "an entry of directions") for x in np.ravel(u).tolist()] for u in directions)
        if len(u0) != d or len(u1) != d or not any(u0) or not any(u1):
            raise ValueError(f"directions is {directions!r}; expected two non-zero vectors of {d} numbers")
    across = _orthogonal_part(u0, u1)
    if not any(across):
        if exact.inner(u0, u1) > 0:
            raise ValueError(f"directions is {directions!r}; expected two different directions")
        if d == 2:
            across = [-u1[1], u1[0]]
        else:
            least = min(range(d), key=lambda i: abs(u1[i]))
            across = _orthogonal_part([fmpq(int(i == least)) for i in range(d)], u1)
    return u1, across, u0


def _orthogonal_part(v, u):
    share = exact.inner(u, v) / exact.inner(u, u)
    return [b - share * a for a, b in zip(u, v)]


def unit(v):
    """The vector of length 1 along an exact one, in balls."""
    length = arb(exact.inner(v, v)).sqrt()
    return [arb(x) / length for x in v]


def angle_of(u0, first, second):
    """The angle of u0 from the first axis towards the second, in (0, pi]."""
    x, y = exact.inner(u0, first), exact.inner(u0, second)
    if y == 0:
        return arb.pi()
    return arb.atan2(arb(y) / arb(exact.inner(second, second)).sqrt(), arb(x) / arb(exact.inner(first, first)).sqrt())


def quadrature(*pieces):
    """The sum of the integrals ``(integrand, start, end)``; the curve's own scale sets the tolerance."""
    values, errors = zip(*(quad(*piece, epsabs=1e-13, epsrel=1e-12, limit=200, full_output=1)[:2] for piece in pieces))
    if max(errors) > 1e-8 * (1 + max(map(abs, values))):
        raise RuntimeError(f"the quadrature did not converge: error estimate {max(errors):.1e}")
    return sum(values)


def device_of(loss):
    """Where the data of a loss lie."""
    return loss.X.device if isinstance(loss, LpLoss) else "cpu"


def check_curve(loss, depth, r, R, method, matrices=False):
    """Depth and radii as exact numbers; ``ValueError`` where there is no such curve or method for this loss."""
    if method not in ("closed-form", "quadrature", "certified"):
        raise ValueError(f"method is {method!r}; expected 'closed-form', 'quadrature' or 'certified'")
    k, d = loss.shape
    if matrices and min(k, d) < 2:
        raise ValueError(f"the loss has shape {(k, d)}; expected at least 2 outputs and 2 inputs (or line_integral)")
    if not matrices and min(k, d) > 1:
        raise ValueError(f"the loss has shape {(k, d)}; expected one output (for matrices: matrix_line_integral)")
    if k * d == 1:
        raise ValueError("d is 1; expected d >= 2: with one weight every field is a gradient")
    N, r, R = check_depth(depth, loss), exact.number(r, "r"), exact.number(R, "R")
    if not 0 < r < R:
        raise ValueError(f"r is {r}, R is {R}; expected 0 < r < R")
    if method != "quadrature" and not isinstance(loss, (LpLoss, Polynomial)):
        raise ValueError(f"the loss is a {type(loss).__name__}; expected LpLoss or Polynomial for method {method!r}: "
                         "only 'quadrature' takes a loss that is no polynomial")
    return N, r, R
