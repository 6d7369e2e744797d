r"""Is the end-to-end rule the gradient of anything? Curl, closed line integrals, certificates, potentials.

.. math:: F_N(W) = A_W(\nabla L(W)), \qquad F_N(w) = |w|^{2-2/N} \Big( g + (N-1) \frac{\langle w, g \rangle}{|w|^2} w \Big)

is the field a balanced network of depth N follows downhill. It is a gradient only if its integral around every closed
curve is 0. Polynomial losses (:class:`~deeplinear.losses.LpLoss`, :class:`~deeplinear.losses.Polynomial`) are taken as
exact: a float is the rational number it stands for. ``depth`` is an integer >= 1; for one output any real number >= 1.
"""

import dataclasses
import itertools
import math

import numpy as np
import sympy as sp
import torch
from flint import acb, arb, ctx, fmpq
from scipy.integrate import quad

from . import exact, preconditioner
from .losses import LpLoss, Polynomial


class Enclosure(arb):
    """A real number known to lie in a ball: an ``arb`` whose text says when the ball does not decide the sign."""

    @property
    def decided(self):
        """True if 0 is not in the ball, so that the number is certainly not 0."""
        return not self.contains(0)

    def __str__(self):
        return self.str(12) + ("" if self.decided else " (undecided at this precision)")

    __repr__ = __str__


@dataclasses.dataclass(frozen=True)
class Potential:
    """A function with the gradient F: ``expression`` in the SymPy ``symbols``; call it on ``W`` of shape (..., 1, d)."""

    expression: sp.Expr
    symbols: tuple

    def __call__(self, W):
        entries = [W[..., 0, i].numpy() for i in range(len(self.symbols))]
        values = sp.lambdify(self.symbols, self.expression, "numpy")(*entries)
        return torch.as_tensor(np.broadcast_to(values, W.shape[:-2]).copy(), dtype=W.dtype)


@dataclasses.dataclass(frozen=True)
class Decision:
    """``gradient``: True, False, or None where no theorem of the book decides; ``reason``; ``potential`` or None."""

    gradient: bool | None
    reason: str
    potential: Potential | None = None


@dataclasses.dataclass(frozen=True)
class Derivation:
    """The contour of a constant gradient, piece by piece: ``{piece: (integrand, its integral)}``, and the ``total``."""

    pieces: dict
    total: sp.Expr


# ---- the field and its curl


def vector_field(loss, W, depth):
    """``F_N(W)``: shape ``(..., k, d)`` like ``W``. :prf:ref:`def-field`, :prf:ref:`cor-single-output`."""
    return _vector_field(loss.gradient(W), W, float(_check_depth(depth, loss)))


def curl(loss, W, depth):
    r"""The antisymmetric matrix :math:`\partial_j F_i - \partial_i F_j` at ``W``, exact up to rounding.

    ``W``: shape ``(..., k, d)`` of full rank; ``loss`` twice differentiable, with ``hessian_product``. Returns shape
    ``(..., kd, kd)``, entries of ``W`` counted row by row; for one output ``(..., d, d)``. In the plane, entry (1, 0)
    is the usual curl. Raises ``ValueError`` where ``W`` is rank deficient: F need not be differentiable there.
    :prf:ref:`lem-curl`.
    """
    N = float(_check_depth(depth, loss))
    k, d = loss.shape
    if (torch.linalg.matrix_rank(W) < min(k, d)).any():
        raise ValueError("W is 0 or rank deficient; expected full rank, where the field is differentiable")
    G = loss.gradient(W)
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


def obstruction(loss, W):
    """The volume spanned by ``w/|w|``, the gradient and ``H w/|w|``: where it is not 0, no learning rate that depends
    on ``w`` makes the end-to-end field of any depth above 1 a gradient.

    ``W``: shape ``(..., 1, d)``, not 0; ``loss`` twice differentiable. Returns shape ``(...)``, always 0 for d = 2.
    :prf:ref:`thm-factor`.
    """
    if loss.shape[0] != 1:
        raise ValueError(f"the loss has shape {tuple(loss.shape)}; expected one output")
    norm = torch.linalg.matrix_norm(W)[..., None, None]
    if not (norm > 0).all():
        raise ValueError("W is 0; expected a direction")
    u = W / norm
    spanning = torch.cat([u, loss.gradient(W), loss.hessian_product(W, u)], -2)
    if W.shape[-1] < 3:
        return torch.zeros_like(norm[..., 0, 0])
    return torch.linalg.svdvals(spanning).prod(-1)


def _vector_field(G, W, N):
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


# ---- closed line integrals


def line_integral(loss, depth, r, R, method="closed-form", directions=None, bits=64):
    """The integral of ``F_N`` around a closed curve in the space of one output; not 0 means: F is not a gradient.

    The curve runs inwards along ``u0`` from radius ``R`` to ``r``, along an arc to ``u1``, outwards to ``R`` and back
    along an arc. By default it is the curve of the paper, ``u0 = -e`` and ``u1 = e`` with ``e = grad L(0)/|grad L(0)|``,
    counter-clockwise. ``directions = (u0, u1)``: two vectors of d numbers, of any length.

    ``method``: ``"closed-form"`` (polynomial losses, a float), ``"quadrature"`` (any loss, SciPy's ``quad`` on the
    definition of the field, a float), ``"certified"`` (polynomial losses, the definition of the field on the four
    pieces in ball arithmetic of ``bits`` bits, an :class:`Enclosure`).

    Raises ``ValueError`` unless ``0 < r < R``, d >= 2 and one output, for a depth below 1, directions that span no
    plane, or default directions where ``grad L(0) = 0``. :prf:ref:`lem-contour`, :prf:ref:`thm-polar`.
    """
    N, r, R = _check_curve(loss, depth, r, R, method)
    first, second, u0 = _axes(loss, directions)
    if method == "quadrature":
        return _by_quadrature(loss, N, r, R, first, second, u0)
    with ctx.workprec(bits):
        basis, turn = [_unit(first), _unit(second)], _angle(u0, first, second)
        if method == "certified":
            return Enclosure(_in_balls(exact.restrict(loss, basis), N, r, R, turn))
        end = [a * turn.cos() + b * turn.sin() for a, b in zip(*basis)]
        here, there = (exact.restrict(loss, [u]) for u in (basis[0], end))
        return float(_by_algebra({k: here[k] - there[k] for k in here}, N, r, R))


def green(loss, depth, r, R, directions=None, bits=53):
    """The integral of the curl over the region inside the same curve, an :class:`Enclosure`; Green: it must overlap.

    Arguments and errors as for :func:`line_integral`. :prf:ref:`lem-curl`.
    """
    N, r, R = _check_curve(loss, depth, r, R, "certified")
    first, second, u0 = _axes(loss, directions)
    with ctx.workprec(bits):
        P, turn = exact.restrict(loss, [_unit(first), _unit(second)]), _angle(u0, first, second)
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


def matrix_line_integral(loss, depth, r, R, sigma=0.5, angle=1, method="closed-form", bits=64):
    """The integral of F around a closed curve of matrices, for ``min(k, d) >= 2``.

    The curve is ``Q(phi) diag(s, sigma)`` in the first two rows and columns, Q a rotation: outwards in s from ``r`` to
    ``R`` at phi = 0, to phi = ``angle``, inwards, back. ``sigma > 0`` and ``angle`` are numbers; methods, types and the
    other errors as for :func:`line_integral`. :prf:ref:`thm-matrices`.
    """
    N, r, R = _check_curve(loss, depth, r, R, method, matrices=True)
    sigma, angle = exact.number(sigma, "sigma"), exact.number(angle, "angle")
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; expected a positive number")
    if method == "quadrature":
        return _matrix_by_quadrature(loss, N, r, R, sigma, angle)
    k, d = loss.shape
    with ctx.workprec(bits):
        block = exact.restrict(loss, [[arb(int((a, b) == (i, j))) for a in range(k) for b in range(d)]
                                 for i in (0, 1) for j in (0, 1)])
        if method == "certified":
            return Enclosure(_matrix_in_balls(block, N, r, R, sigma, angle))
        return float(_matrix_by_algebra(block, N, r, R, sigma, angle))


def symbolic(depth=None):
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
    e, f = (torch.tensor([float(x) for x in v], dtype=torch.float64, device=_device(loss)) for v in (first, second))
    e, f = e / e.norm(), f / f.norm()
    turn, N, r, R = map(float, (_angle(u0, first, second), N, r, R))

    def along(position, velocity):
        def integrand(t):
            W = position(t).reshape(loss.shape)
            return float((_vector_field(loss.gradient(W), W, N).flatten() * velocity(t)).sum())
        return integrand

    def ray(angle):
        u = math.cos(angle) * e + math.sin(angle) * f
        return along(lambda s: s * u, lambda s: u)

    def arc(radius):
        return along(lambda t: radius * (math.cos(t) * e + math.sin(t) * f),
                     lambda t: radius * (math.cos(t) * f - math.sin(t) * e))

    return _quad((ray(turn), R, r), (arc(r), turn, 0), (ray(0), r, R), (arc(R), 0, turn))


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
            total += coefficient * arb((k - 2 / N) / power) * (arb(R) ** arb(power) - arb(r) ** arb(power))
    return arb(N - 1) * total


def _matrix_by_quadrature(loss, N, r, R, sigma, angle):
    k, d = loss.shape
    N, (r, R, sigma, angle) = int(N.p), map(float, (r, R, sigma, angle))

    def along(block, velocity):
        def integrand(t):
            W = torch.zeros(k, d, dtype=torch.float64, device=_device(loss))
            W[:2, :2] = W.new_tensor(block(t))
            F = preconditioner.apply(W, loss.gradient(W), N)
            return float((F[:2, :2] * W.new_tensor(velocity(t))).sum())
        return integrand

    def ray(phi):
        cos, sin = math.cos(phi), math.sin(phi)
        return along(lambda s: [[s * cos, -sigma * sin], [s * sin, sigma * cos]], lambda s: [[cos, 0], [sin, 0]])

    def arc(s):
        return along(lambda t: [[s * math.cos(t), -sigma * math.sin(t)], [s * math.sin(t), sigma * math.cos(t)]],
                     lambda t: [[-s * math.sin(t), -sigma * math.cos(t)], [s * math.cos(t), -sigma * math.sin(t)]])

    return _quad((ray(0), r, R), (arc(R), 0, angle), (ray(angle), R, r), (arc(r), angle, 0))


def _matrix_in_balls(block, N, r, R, sigma, angle):
    parts = [exact.differentiate(block, i) for i in range(4)]
    N = int(N.p)

    def field(s, cos, sin, analytic):
        """``A_W(G)`` at ``W = Q diag(s, sigma)``: Q times the eigenvalues times Q^T G, entry by entry."""
        W = s * cos, -arb(sigma) * sin, s * sin, arb(sigma) * cos
        a, b, c, d = (exact.at(part, *W) for part in parts)
        rotated = cos * a + sin * c, cos * b + sin * d, cos * c - sin * a, cos * d - sin * b
        powers = [[(v.log(analytic) * arb(fmpq(2 * i, N))).exp() if i else acb(1) for i in range(N)]
                  for v in (s, acb(arb(sigma)))]
        a, b, c, d = (z * sum(p * q for p, q in zip(powers[i], reversed(powers[j])))
                      for z, (i, j) in zip(rotated, ((0, 0), (0, 1), (1, 0), (1, 1))))
        return cos * a - sin * c, cos * b - sin * d, sin * a + cos * c, sin * b + cos * d

    def ray(phi):
        cos, sin = phi.cos(), phi.sin()

        def integrand(s, analytic):
            F = field(s, cos, sin, analytic)
            return F[0] * cos + F[2] * sin
        return integrand

    def arc(s):
        def integrand(t, analytic):
            cos, sin = t.cos(), t.sin()
            F = field(acb(s), cos, sin, analytic)
            return -F[0] * s * sin - F[1] * arb(sigma) * cos + F[2] * s * cos - F[3] * arb(sigma) * sin
        return integrand

    r, R, angle = arb(r), arb(R), arb(angle)
    return (acb.integral(ray(arb(0)), r, R) + acb.integral(arc(R), 0, angle)
            + acb.integral(ray(angle), R, r) + acb.integral(arc(r), angle, 0)).real


def _matrix_by_algebra(block, N, r, R, sigma, angle):
    """lam_12 D at R minus at r, minus N times the integral of s^(2-2/N) D'(s)."""
    cos, sin, sigma = arb(angle).cos(), arb(angle).sin(), arb(sigma)
    D = {}
    for column, sign in (((cos, -sin, sin, cos), 1), ((arb(1), arb(0), arb(0), arb(1)), -1)):
        for (a, b, c, d), coefficient in block.items():
            value = coefficient * column[0]**a * (sigma * column[1])**b * column[2]**c * (sigma * column[3])**d
            D[a + c] = D.get(a + c, arb(0)) + sign * value

    def boundary(s):
        eigenvalue = sum(arb(s) ** arb(2 * j / N) * sigma ** arb(2 - 2 * (j + 1) / N) for j in range(int(N.p)))
        return eigenvalue * sum(coefficient * arb(s)**k for k, coefficient in D.items())

    return boundary(R) - boundary(r) - sum(
        coefficient * arb(N * k / (k + 2 - 2 / N)) * (arb(R) ** arb(k + 2 - 2 / N) - arb(r) ** arb(k + 2 - 2 / N))
        for k, coefficient in D.items())


def _quad(*pieces):
    """The sum of the integrals ``(integrand, start, end)``; the curve's own scale sets the tolerance."""
    values, errors = zip(*(quad(*piece, epsabs=1e-13, epsrel=1e-12, limit=200, full_output=1)[:2] for piece in pieces))
    if max(errors) > 1e-8 * (1 + max(map(abs, values))):
        raise RuntimeError(f"the quadrature did not converge: error estimate {max(errors):.1e}")
    return sum(values)


# ---- the decision


def is_gradient(loss, depth):
    """Whether ``F_N`` is a gradient near 0, for a polynomial loss: a :class:`Decision` with reason and potential.

    Exact: the loss is taken with its coefficients as rational numbers (a float is the number it stands for, so data
    whitened in floating point are not whitened). One output: always decided. Several outputs: decided where depth is 1
    or ``grad L(0) != 0``. :prf:ref:`cor-polynomial`, :prf:ref:`prop-exceptions`, :prf:ref:`thm-matrices`.
    """
    N = _check_depth(depth, loss)
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


def potential(loss, depth):
    """The :class:`Potential` of ``F_N``, zero at 0. Raises ``ValueError`` with the reason where there is none."""
    decision = is_gradient(loss, depth)
    if decision.potential is None:
        raise ValueError(f"F has no potential: {decision.reason}" if decision.gradient is False else decision.reason)
    return decision.potential


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


# ---- curves and arguments


def _device(loss):
    return loss.X.device if isinstance(loss, LpLoss) else "cpu"


def _axes(loss, directions):
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


def _unit(v):
    length = arb(exact.inner(v, v)).sqrt()
    return [arb(x) / length for x in v]


def _angle(u0, first, second):
    """The angle of u0 from the first axis towards the second, in (0, pi]."""
    x, y = exact.inner(u0, first), exact.inner(u0, second)
    if y == 0:
        return arb.pi()
    return arb.atan2(arb(y) / arb(exact.inner(second, second)).sqrt(), arb(x) / arb(exact.inner(first, first)).sqrt())


def _check_depth(depth, loss):
    N = None if isinstance(depth, bool) else exact.number(depth, "depth")
    if N is None or N < 1:
        raise ValueError(f"depth is {depth!r}; expected a number >= 1")
    if min(loss.shape) > 1 and N.q != 1:
        raise ValueError(f"depth is {depth!r}; expected an integer >= 1 for several outputs")
    return N


def _check_curve(loss, depth, r, R, method, matrices=False):
    if method not in ("closed-form", "quadrature", "certified"):
        raise ValueError(f"method is {method!r}; expected 'closed-form', 'quadrature' or 'certified'")
    k, d = loss.shape
    if matrices and min(k, d) < 2:
        raise ValueError(f"the loss has shape {(k, d)}; expected at least 2 outputs and 2 inputs (or line_integral)")
    if not matrices and min(k, d) > 1:
        raise ValueError(f"the loss has shape {(k, d)}; expected one output (for matrices: matrix_line_integral)")
    if k * d == 1:
        raise ValueError("d is 1; expected d >= 2: with one weight every field is a gradient")
    N, r, R = _check_depth(depth, loss), exact.number(r, "r"), exact.number(R, "R")
    if not 0 < r < R:
        raise ValueError(f"r is {r}, R is {R}; expected 0 < r < R")
    if method != "quadrature" and not isinstance(loss, (LpLoss, Polynomial)):
        raise ValueError(f"the loss is a {type(loss).__name__}; expected LpLoss or Polynomial for method {method!r}: "
                         "only 'quadrature' takes a loss that is no polynomial")
    return N, r, R
