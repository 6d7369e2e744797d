"""Closed line integrals in the space of matrices, in the same three ways."""

import math
from typing import Any

import torch
from flint import acb, arb, fmpq

from .. import exact, preconditioner
from ..annotations import Method, Number, Shaped
from .curves import check_curve, device_of, quadrature
from .line_integrals import Enclosure


def matrix_line_integral(loss: Shaped, depth: int, r: Number, R: Number, sigma: Number = 0.5, angle: Number = 1,
                         method: Method = "closed-form", bits: int = 64) -> float | Enclosure:
    """The integral of F around a closed curve of matrices, for ``min(k, d) >= 2``.

    The curve is ``Q(phi) diag(s, sigma)`` in the first two rows and columns, Q a rotation: outwards in s from ``r`` to
    ``R`` at phi = 0, to phi = ``angle``, inwards, back. ``sigma > 0`` and ``angle`` are numbers; methods, types and the
    other errors as for :func:`line_integral`. :prf:ref:`thm-matrices`.
    """
    N, r, R = check_curve(loss, depth, r, R, method, matrices=True)
    sigma, angle = exact.number(sigma, "sigma"), exact.number(angle, "angle")
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}; expected a positive number")
    if method == "quadrature":
        return _matrix_by_quadrature(loss, N, r, R, sigma, angle)
    polynomial: Any = loss  # check_curve has seen that it is one
    k, d = loss.shape
    with exact.precision(bits):
        block = exact.restrict(polynomial, [[arb(int((a, b) == (i, j))) for a in range(k) for b in range(d)]
                                 for i in (0, 1) for j in (0, 1)])
        if method == "certified":
            return Enclosure(_matrix_in_balls(block, N, r, R, sigma, angle))
        return float(_matrix_by_algebra(block, N, r, R, sigma, angle))


def _matrix_by_quadrature(loss, N, r, R, sigma, angle):
    k, d = loss.shape
    N, (r, R, sigma, angle) = int(N.p), map(float, (r, R, sigma, angle))

    def along(block, velocity):
        def integrand(t):
            W = torch.zeros(k, d, dtype=torch.float64, device=device_of(loss))
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

    return quadrature((ray(0), r, R), (arc(R), 0, angle), (ray(angle), R, r), (arc(r), angle, 0))


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
        for k, coefficient in D.items() if k)
