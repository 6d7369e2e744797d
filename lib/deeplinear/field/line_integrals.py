"""Closed line integrals for one output: in closed form, by quadrature, certified in balls; Green's theorem; the derivation."""

import dataclasses
import math
from typing import Any

import sympy as sp
import torch
from flint import acb, arb

from .. import exact
from ..annotations import Directions, Method, Number, Shaped
from ..losses import LpLoss, Polynomial
from .curves import angle_of, axes, check_curve, device_of, quadrature, unit
from .derivatives import field_at


class Enclosure(arb):
    """A real number known to lie in a ball: an ``arb`` whose text says when the ball does not decide the sign."""

    @property
    def decided(self) -> bool:
        """True if 0 is not in the ball, so that the number is certainly not 0."""
        return not self.contains(0)

    def __str__(self):
        return self.str(12) + ("" if self.decided else " (undecided at this precision)")

    __repr__ = __str__


@dataclasses.dataclass(frozen=True)
class Derivation:
    """The contour of a constant gradient, piece by piece: ``{piece: (integrand, its integral)}``, and the ``total``."""

    pieces: dict[str, tuple[sp.Expr, sp.Expr]]
    total: sp.Expr


def line_integral(loss: Shaped, depth: Number, r: Number, R: Number, method: Method = "closed-form",
                  directions: Directions = None, bits: int = 64) -> float | Enclosure:
    """The integral of ``F_N`` around a closed curve in the space of one output; not 0 means: F is not a gradient.

    The curve runs inwards along ``u0`` from radius ``R`` to ``r``, along an arc to ``u1``, outwards to ``R`` and back
    along an arc. By default it is the curve of the paper, ``u0 = -e`` and ``u1 = e`` with ``e = grad L(0)/|grad L(0)|``,
    counter-clockwise. ``directions = (u0, u1)``: two vectors of d numbers, of any length.

    ``method``: ``"closed-form"`` (polynomial losses, a float), ``"quadrature"`` (any loss, SciPy's ``quad`` on the
    definition of the field, a float), ``"certified"`` (polynomial losses, the definition of the field on the four
    pieces in ball arithmetic of ``bits`` bits, an :class:`Enclosure`).

    Raises ``ValueError`` unless ``0 < r < R``, d >= 2 and one output, for a depth that is not positive, directions that span
    no plane, or default directions where ``grad L(0) = 0``. :prf:ref:`lem-contour`, :prf:ref:`thm-polar`.
    """
    N, r, R = check_curve(loss, depth, r, R, method)
    first, second, u0 = axes(loss, directions)
    if method == "quadrature":
        return _by_quadrature(loss, N, r, R, first, second, u0)
    polynomial: Any = loss  # check_curve has seen that it is one
    with exact.precision(bits):
        basis, turn = [unit(first), unit(second)], angle_of(u0, first, second)
        if method == "certified":
            return Enclosure(_in_balls(exact.restrict(polynomial, basis), N, r, R, turn))
        end = [a * turn.cos() + b * turn.sin() for a, b in zip(*basis)]
        here, there = (exact.restrict(polynomial, [u]) for u in (basis[0], end))
        return float(_by_algebra({k: here[k] - there[k] for k in here}, N, r, R))


def green(loss: LpLoss | Polynomial, depth: Number, r: Number, R: Number, directions: Directions = None,
          bits: int = 53) -> Enclosure:
    """The integral of the curl over the region inside the same curve, an :class:`Enclosure`; Green: it must overlap.

    Arguments and errors as for :func:`line_integral`. :prf:ref:`lem-curl`.
    """
    N, r, R = check_curve(loss, depth, r, R, "certified")
    first, second, u0 = axes(loss, directions)
    with exact.precision(bits):
        P, turn = exact.restrict(loss, [unit(first), unit(second)]), angle_of(u0, first, second)
        Px, Py = exact.differentiate(P, 0), exact.differentiate(P, 1)
        hessian = [[exact.differentiate(Q, i) for i in (0, 1)] for Q in (Px, Py)]
        a, b = arb((N - 1) * (N - 2) / N), arb(N - 1)

        def slice_(rho, analytic):  # the integral over the angle, at radius rho
            size = (rho.log(analytic) * arb(-2 / N)).exp() * rho

            def density(angle, _):
                x, y = rho * angle.cos(), rho * angle.sin()
                Hx, Hy = (exact.at(row[0], x, y) * x + exact.at(row[1], x, y) * y for row in hessian)
                return b * (Hx * y - Hy * x) - a * (x * exact.at(Py, x, y) - y * exact.at(Px, x, y))

            return size * acb.integral(density, 0, turn)

        return Enclosure(acb.integral(slice_, arb(r), arb(R)).real)


def symbolic(depth: Number | None = None) -> Derivation:
    """The integral around the paper's curve for a constant gradient ``kappa e``, derived by SymPy from the definition.

    ``depth``: a number, or None for the symbol N. Symbols ``r``, ``R``, ``kappa``, ``N`` are positive. Returns a
    :class:`Derivation` with the four pieces and their total. :prf:ref:`lem-contour`.
    """
    more = sp.Symbol("m", nonnegative=True)  # N = 1 + m: tells SymPy that N >= 1, so that no power is a logarithm
    N = 1 + more if depth is None else sp.nsimplify(depth)
    r, R, kappa, s = sp.symbols("r R kappa s", positive=True)
    t = sp.Symbol("theta", real=True)

    def piece(position, variable, start, end):
        norm = sp.sqrt(sp.simplify(position.dot(position)))
        g = sp.Matrix([kappa, 0])
        F = norm ** (2 - 2 / N) * (g + (N - 1) * g.dot(position) / norm**2 * position)
        integrand = sp.simplify(F.dot(position.diff(variable)))
        return integrand, sp.integrate(integrand, (variable, start, end))

    pieces = {
        "in along -e": piece(sp.Matrix([-s, 0]), s, R, r),
        "arc of radius r": piece(r * sp.Matrix([-sp.cos(t), sp.sin(t)]), t, 0, sp.pi),
        "out along e": piece(sp.Matrix([s, 0]), s, r, R),
        "arc of radius R": piece(R * sp.Matrix([sp.cos(t), sp.sin(t)]), t, 0, sp.pi),
    }
    back = {more: sp.Symbol("N", positive=True) - 1}
    pieces = {name: tuple(sp.simplify(part.subs(back)) for part in pair) for name, pair in pieces.items()}
    return Derivation(pieces, sp.simplify(sum(integral for _, integral in pieces.values())))


def _by_quadrature(loss, N, r, R, first, second, u0):
    e, f = (torch.tensor([float(x) for x in v], dtype=torch.float64, device=device_of(loss)) for v in (first, second))
    e, f = e / e.norm(), f / f.norm()
    with exact.precision(53):
        turn, N, r, R = map(float, (angle_of(u0, first, second), N, r, R))

    def along(position, velocity):
        def integrand(t):
            W = position(t).reshape(loss.shape)
            return float((field_at(loss.gradient(W), W, N).flatten() * velocity(t)).sum())
        return integrand

    def ray(angle):
        u = math.cos(angle) * e + math.sin(angle) * f
        return along(lambda s: s * u, lambda s: u)

    def arc(radius):
        return along(lambda t: radius * (math.cos(t) * e + math.sin(t) * f),
                     lambda t: radius * (math.cos(t) * f - math.sin(t) * e))

    return quadrature((ray(turn), R, r), (arc(r), turn, 0), (ray(0), r, R), (arc(R), 0, turn))


def _in_balls(P, N, r, R, turn):
    Px, Py = exact.differentiate(P, 0), exact.differentiate(P, 1)

    def field(x, y, norm, analytic):
        gx, gy = exact.at(Px, x, y), exact.at(Py, x, y)
        size = (norm.log(analytic) * arb(2 - 2 / N)).exp()
        stretch = arb(N - 1) * (x * gx + y * gy) / (norm * norm)
        return size * (gx + stretch * x), size * (gy + stretch * y)

    def ray(angle):
        cos, sin = angle.cos(), angle.sin()

        def integrand(s, analytic):
            Fx, Fy = field(s * cos, s * sin, s, analytic)
            return Fx * cos + Fy * sin
        return integrand

    def arc(radius):
        def integrand(t, analytic):
            x, y = radius * t.cos(), radius * t.sin()
            Fx, Fy = field(x, y, acb(radius), analytic)
            return Fy * x - Fx * y
        return integrand

    r, R = arb(r), arb(R)
    return (acb.integral(ray(turn), R, r) + acb.integral(arc(r), turn, 0)
            + acb.integral(ray(arb(0)), r, R) + acb.integral(arc(R), 0, turn)).real


def _by_algebra(D, N, r, R):
    """(N-1) times the integral of s^(2-2/N) (D' - (2/N) D/s), for D the polynomial with these coefficients."""
    total = arb(0)
    for (k,), coefficient in D.items():
        power = k + 2 - 2 / N
        if k:
            stretch = (arb(R) ** arb(power) - arb(r) ** arb(power)) / arb(power) if power else arb(R / r).log()
            total += coefficient * arb(k - 2 / N) * stretch
    return arb(N - 1) * total
