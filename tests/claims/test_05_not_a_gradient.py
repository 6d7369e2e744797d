"""One test for each claim of chapter 5, on other shapes, seeds and losses than the chapter, each with its control."""

import deeplinear as dl
import numpy as np
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Logistic, quick, regression, seeds, w, worst

from conftest import generator


def random_cubic(rng, d):
    """A polynomial of degree 3 in d weights with a gradient at 0."""
    monomials = [sp.prod(x**e for x, e in zip(w, exponents)) for exponents in np.ndindex(*(4,) * d)
                 if 1 <= sum(exponents) <= 3]
    return dl.Polynomial(sum(int(c) * m for c, m in zip(rng.integers(-4, 5, len(monomials)), monomials)) + 5 * w[0], w[:d])


def symmetric_field(loss, d, N):
    """The end-to-end field of a SymPy loss of d weights, from its definition."""
    x = sp.Matrix(w[:d])
    g, norm = sp.Matrix([loss]).jacobian(list(w[:d])).T, sp.sqrt(x.dot(x))
    return norm ** (2 - 2 / sp.sympify(N)) * (g + (N - 1) * g.dot(x) / norm**2 * x)


@quick
@given(d=st.integers(2, 5), depth=st.sampled_from([1, 1.5, 2, 3, 5, 8]), seed=seeds, r=st.floats(0.1, 0.9))
def test_lem_contour(d, depth, seed, r):
    b = dl.normal(d, generator=generator(seed)).tolist()
    loss = dl.Polynomial(sum(c * x for c, x in zip(b, sp.symbols(f"v1:{d + 1}"))), sp.symbols(f"v1:{d + 1}"))
    a, c = 3 - 2 / depth, 2 * (depth - 1) * (depth - 2) / (3 * depth - 2)
    claim = np.linalg.norm(b) * c * (1 - r**a)
    for method in ("closed-form", "quadrature", "certified"):
        assert abs(float(dl.field.line_integral(loss, depth, r, 1, method)) - claim) < 1e-10 * (1 + abs(claim))
    if depth > 2:  # control: the sign of N - 2
        assert claim > 0 and abs(float(dl.field.line_integral(loss, depth, r, 1)) + claim) > 1e-6 * claim


@quick
@given(d=st.integers(2, 4), depth=st.sampled_from([2.5, 3, 4, 8]), seed=seeds)
def test_thm_no_regulariser(d, depth, seed):
    loss = regression(1, d, 4, seed)
    zero = torch.zeros(1, d, dtype=torch.float64)
    g = loss.gradient(zero)
    a, c = 3 - 2 / depth, 2 * (depth - 1) * (depth - 2) / (3 * depth - 2)
    size, residual = loss.X.norm(dim=1, keepdim=True), loss.Yt.mT.abs()
    R, integral = 1.0, -1.0
    while integral <= 0 or R == 1:  # small enough, the curve gives a positive number
        R /= 4
        r = R / 100
        hessian = 12 * loss.X.mT @ ((R * size + residual) ** 2 * loss.X) / len(loss.X)  # no smaller anywhere in the ball
        epsilon = R * torch.linalg.matrix_norm(hessian, 2)
        inside = dl.normal(500, 1, d, generator=generator(seed))
        inside = R * inside / inside.norm(dim=-1, keepdim=True) * torch.linspace(0, 1, 500).double()[:, None, None]
        assert (loss.gradient(inside) - g).norm(dim=-1).max() <= epsilon
        integral = dl.field.line_integral(loss, depth, r, R)
        bound = epsilon * (2 * depth / a * (R**a - r**a) + np.pi * (R**a + r**a))
        assert abs(integral - g.norm() * c * (R**a - r**a)) <= bound * (1 + 1e-9)
    assert R > 1e-6
    assert abs(dl.field.line_integral(loss, 1, r, R)) < 1e-12  # control: depth 1 has a potential


@quick
@given(d=st.integers(1, 4), seed=seeds)
def test_prop_exceptions(d, seed):
    rng = np.random.default_rng(seed)
    radius2, b = sum(x**2 for x in w[:d]), [int(i) for i in rng.integers(1, 6, d)]
    expression = sum(c * x for c, x in zip(b, w)) + int(rng.integers(-3, 4)) * radius2 / 2 - radius2**2
    loss, at = dl.Polynomial(expression, w[:d]), dl.normal(6, 1, d, generator=generator(seed)).requires_grad_()
    for depth in (1, 2, 5):
        decision = dl.field.is_gradient(loss, depth)
        assert decision.gradient == (depth <= 2 or d == 1)  # control: three layers and two weights
        if decision.gradient:
            slopes = sp.Matrix([decision.potential.expression]).jacobian(list(decision.potential.symbols))
            point = dict(zip(decision.potential.symbols, at[0, 0].tolist()))
            found = [float(slope.subs(point)) for slope in slopes]
            F = dl.field.vector_field(loss, at[0].detach(), depth)[0]
            assert np.abs(np.array(found) - F.numpy()).max() < 1e-9 * (1 + F.abs().max())


@quick
@given(seed=seeds, N=st.floats(0.3, 9), d=st.integers(2, 4))
def test_thm_iff(seed, N, d):
    """Sufficiency by autograd for random B, phi and real N; necessity: any other power of r leaves the form."""
    if abs(N - 1) < 0.05:
        N = 1.5
    C, at = dl.normal(d, d, d, generator=generator(seed)), dl.normal(5, d, generator=generator(seed + 1))

    def parts(x):
        r = x.norm(dim=-1)
        u = x / r[:, None]
        return r, torch.einsum("ijk,ni,nj,nk->n", C, u, u, u) + torch.sin(3 * u[:, 0])

    def gap(power):
        x = at.clone().requires_grad_()
        r, B = parts(x)
        loss = r**power * B + torch.log(1 + r**2)
        g, = torch.autograd.grad(loss.sum(), x, create_graph=True)
        u = x / r[:, None]
        F = r[:, None] ** (2 - 2 / N) * (g + (N - 1) * (g * u).sum(-1, keepdim=True) * u)
        rows = [torch.autograd.grad(F[:, i].sum(), x, retain_graph=True)[0] for i in range(d)]
        J = torch.stack(rows, -2)
        return ((J - J.mT).abs().amax((1, 2)) / (1 + J.abs().amax((1, 2)))).max()  # each point by its own measure

    assert gap(2 / N) < 1e-10
    assert gap(2 / N + 0.5) > 1e-4  # control


@settings(max_examples=3)
@given(seed=seeds, d=st.integers(2, 3))
def test_cor_depths(seed, d):
    rng = np.random.default_rng(seed)
    x, at = sp.Matrix(w[:d]), (0.6, -1.25, 0.3, -0.7)[:d]
    norm, b = sp.sqrt(x.dot(x)), rng.integers(1, 5, 2)
    radial, linear = norm**3 / 3 - int(b[0]) * norm**2, int(b[0]) * w[0] - int(b[1]) * w[1]
    odd = w[0] ** 3 / norm ** sp.Rational(5, 3)

    def turn(loss, N):
        F = symmetric_field(loss, d, sp.sympify(N))
        turns = [F[j].diff(w[i]) - F[i].diff(w[j]) for i in range(d) for j in range(i)]
        return max(map(abs, sp.lambdify(w[:d], turns)(*at)))

    for N in (3, 4, sp.Rational(9, 2)):
        assert turn(radial, N) < 1e-12 and turn(radial + linear, N) > 1e-6
    assert turn(radial + linear, 2) < 1e-12 and turn(radial + linear + w[0] * w[1], 2) > 1e-6
    assert turn(odd, sp.Rational(3, 2)) < 1e-12 and turn(odd, 2) > 1e-6 and turn(linear, sp.Rational(3, 2)) > 1e-6
    for N in (sp.Rational(1, 3), sp.Rational(5, 7), sp.Rational(7, 4)):
        exception = norm ** (2 / N) * (w[0] ** 3 / norm**3 + w[1] / norm)
        assert turn(exception, N) < 1e-11 and turn(exception, N + 1) > 1e-6 and turn(linear, N) > 1e-6


@quick
@given(seed=seeds, d=st.integers(2, 3), depth=st.sampled_from([2, 3, 6]))
def test_cor_polynomial(seed, d, depth):
    rng = np.random.default_rng(seed)
    # least squares on rational data, white or not
    Q = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1]])[:d].T * int(rng.integers(1, 4))
    y = rng.integers(-3, 4, 4) if seed % 2 else np.array([1, -1, -1, 1])  # the latter is orthogonal to all columns
    white = dl.LpLoss(dl.checks.rational(Q, 3), dl.checks.rational(y, 2), 2)
    zero = not (Q.T @ y).any()
    assert dl.field.is_gradient(white, depth).gradient == (depth == 2 or zero)
    Q[0, 0] += 1
    assert dl.field.is_gradient(dl.LpLoss(dl.checks.rational(Q, 3), dl.checks.rational(y, 2), 2), depth).gradient is False
    square, free = sum(x**2 for x in w[:d]), int(rng.integers(3, 7))
    for N in (sp.Rational(2, free), sp.Rational(2, 7)):  # below depth 1 one part is free
        part = square + square**2 + int(rng.integers(1, 4)) * w[0] ** free - w[1] ** free
        assert dl.field.is_gradient(dl.Polynomial(part, w[:d]), N).gradient == (N == sp.Rational(2, free))
    # a gradient on no small ball either: the curl of a random cubic vanishes nowhere near any of these points
    loss = random_cubic(rng, d)
    if dl.field.is_gradient(loss, depth).gradient is False:
        for centre in dl.normal(3, 1, d, generator=generator(seed)):
            near = centre + 1e-3 * dl.normal(20, 1, d, generator=generator(seed + 1))
            assert dl.field.curl(loss, near, depth).abs().max() > 1e-9


@quick
@given(seed=seeds, d=st.integers(2, 5), p=st.sampled_from([2, 4, 6]), depth=st.sampled_from([0.5, 1, 1.5, 2, 3, 7]))
def test_thm_polar(seed, d, p, depth):
    loss = regression(1, d, p, seed)
    u0, u1 = dl.normal(2, d, generator=generator(seed + 5))
    r, R = 0.4, 1.1
    s = np.polynomial.legendre.leggauss(40)
    nodes, weights = (R - r) / 2 * s[0] + (R + r) / 2, (R - r) / 2 * s[1]
    x, y = (u / u.norm() for u in (u1, u0))
    D = np.array([float(loss.value(t * x[None]) - loss.value(t * y[None])) for t in nodes])
    slope = np.array([float((loss.gradient(t * x[None])[0] * x).sum() - (loss.gradient(t * y[None])[0] * y).sum())
                      for t in nodes])
    claim = (depth - 1) * (weights * nodes ** (2 - 2 / depth) * (slope - 2 / depth * D / nodes)).sum()
    found = dl.field.line_integral(loss, depth, r, R, "quadrature", (u0, u1))
    assert abs(found - claim) < 1e-9 * (1 + abs(claim))
    # the symmetric curve is blind to an even change of the loss, others are not
    even = dl.LpLoss(torch.cat([loss.X, loss.X]), torch.cat([loss.Yt[0], -loss.Yt[0]]), p)
    opposite = (-u1, u1)
    assert abs(dl.field.line_integral(even, depth, r, R, directions=opposite)) < 1e-10 * (1 + abs(claim))
    if depth > 1.5:
        assert abs(dl.field.line_integral(even, depth, r, R, directions=(u0, u1))) > 1e-8  # control


def test_prop_certified():
    """Other radii, more bits, and the data that the chapter does not use: they agree, and exclude 0."""
    data = dl.data.load("diabetes")
    for p in (2, 4):
        loss = dl.LpLoss(data.X, data.y, p)
        for depth in (3, 5):
            ball = dl.field.line_integral(loss, depth, 0.1, 0.5, "certified", bits=128)
            assert ball.decided and ball.overlaps(dl.field.green(loss, depth, 0.1, 0.5))
            assert abs(float(ball) - dl.field.line_integral(loss, depth, 0.1, 0.5, "quadrature")) < 1e-10 * float(ball)
    blind = dl.field.line_integral(dl.LpLoss(data.X, data.y, 2), 2, 0.1, 0.5, "certified")
    assert not blind.decided  # control


@quick
@given(seed=seeds, d=st.integers(2, 4), N=st.sampled_from([0.4, 1, 2, 3, 5.5]))
def test_lem_curl(seed, d, N):
    loss = Logistic(d=d, seed=seed)
    x = dl.normal(1, d, generator=generator(seed + 3)).requires_grad_()

    def F(x):
        r = x.norm()
        g = loss.gradient(x)
        return (r ** (2 - 2 / N) * (g + (N - 1) * (g * x).sum() / r**2 * x))[0]

    J = torch.autograd.functional.jacobian(F, x)[:, 0]
    H = torch.autograd.functional.hessian(lambda v: loss.value(v).sum(), x)[0, :, 0]
    v, g = x.detach()[0], loss.gradient(x).detach()[0]
    claim = v.norm() ** (-2 / N) * (N - 1) * (
        (N - 2) / N * (torch.outer(v, g) - torch.outer(g, v)) + torch.outer(v, H @ v) - torch.outer(H @ v, v))
    assert worst((J - J.T) - claim) < 1e-10 * (1 + worst(J))
    if N == 3:  # control: the other sign of the second term
        other = claim - 2 * v.norm() ** (-2 / N) * (N - 1) * (torch.outer(v, H @ v) - torch.outer(H @ v, v))
        assert worst((J - J.T) - other) > 1e-6


@quick
@given(seed=seeds, k=st.integers(2, 3), d=st.integers(2, 3), depth=st.integers(2, 5))
def test_thm_matrices(seed, k, d, depth):
    """Certified closed curves for random linear losses, in both frames of the proof; at depth 2 with their formula."""
    M = sp.Matrix(k, d, sp.symbols(f"m1:{k * d + 1}"))
    C = dl.normal(k, d, generator=generator(seed))
    best = 0
    for flip in (1, -1):  # the second frame of the proof
        entries = C.clone()
        entries[1] *= flip
        loss = dl.Polynomial(sum(float(c) * m for c, m in zip(entries.flatten(), M)), M)
        for angle in (0.8, 2.0):
            ball = dl.field.matrix_line_integral(loss, depth, 0.3, 1.4, 0.2, angle, "certified")
            alpha = (np.cos(angle) - 1) * entries[0, 0] + np.sin(angle) * entries[1, 0]
            beta = (np.cos(angle) - 1) * entries[1, 1] - np.sin(angle) * entries[0, 1]
            if depth == 2:
                assert abs(float(ball) - float(alpha + beta) * 0.2 * 1.1) < 1e-10
            best = max(best, abs(float(ball)) if ball.decided else 0)
    assert best > 0
    row = dl.Polynomial(float(C[0, 0]) * M[0] + M[1], [M[0], M[1]])
    assert dl.field.is_gradient(row, 2).gradient  # control: one output


@settings(max_examples=8)
@given(seed=seeds, k=st.integers(2, 3), d=st.integers(2, 4), depth=st.integers(2, 5))
def test_thm_spectral(seed, k, d, depth):
    """A sum that is no polynomial and its potential; no other loss; the difference of two singular values between."""
    rng, W = np.random.default_rng(seed), dl.normal(k, d, generator=generator(seed))
    scale = float(rng.uniform(0.5, 2))

    def field(loss, W):
        W = W.clone().requires_grad_()
        return dl.preconditioner.apply(W.detach(), torch.autograd.grad(loss(W), W)[0], depth)

    def turn(loss, h=1e-5):
        steps = h * torch.eye(k * d, dtype=torch.float64).view(-1, k, d)
        J = torch.stack([(field(loss, W + e) - field(loss, W - e)).flatten() / (2 * h) for e in steps])
        return float((J - J.T).abs().max() / J.abs().max())

    def cosh(W):
        return torch.cosh(scale * torch.linalg.svdvals(W)).sum()

    assert turn(cosh) < 1e-6
    others = (lambda W: cosh(W) ** 2, lambda W: cosh(W) + W[0, 0] * W[1, 1] - W[0, 1] * W[1, 0],
              lambda W: cosh(W) + scale * W[1, 1] ** 3)
    assert all(turn(loss) > 1e-4 for loss in others)  # controls
    nodes, weights = (torch.as_tensor(part) for part in np.polynomial.legendre.leggauss(30))
    v = W.clone().requires_grad_()
    s = torch.linalg.svdvals(v)
    t = s[:, None] ** (1 / 3) * (1 + nodes) / 2  # t^3 is the variable: the integrand is then smooth enough at 0
    slope = depth * (t**3) ** (2 - 2 / depth) * scale * torch.sinh(scale * t**3) * 3 * t**2
    Phi = (slope * weights).sum(-1) @ s ** (1 / 3) / 2
    F = field(cosh, W)
    assert worst(torch.autograd.grad(Phi, v)[0] - F) < 1e-6 * (1 + worst(F))
    matrix = sp.Matrix(k, d, sp.symbols(f"m1:{k * d + 1}"))
    square = matrix * matrix.T
    for other, gradient in ((0, True), (matrix[0, 1] ** 3, False), (matrix[1, 1] ** 2, False)):
        assert dl.field.is_gradient(dl.Polynomial(sp.expand(square.trace() + other), matrix), depth).gradient == gradient
