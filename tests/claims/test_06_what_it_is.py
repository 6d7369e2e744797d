"""One test for each claim of chapter 6, on other shapes, seeds and losses than the chapter, each with its control."""

import deeplinear as dl
import numpy as np
import sympy as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import Logistic, any_loss, quick, seeds, w, worst
from scipy.integrate import solve_ivp

from conftest import generator


@quick
@given(k=st.integers(1, 3), d=st.integers(1, 3), r=st.integers(1, 3), depth=st.integers(2, 5), seed=seeds)
def test_thm_riemannian(k, d, r, depth, seed):
    r = min(r, k, d)
    left, right, Y, Z = (dl.normal(*shape, generator=generator(seed + i))
                         for i, shape in enumerate([(k, r), (r, d), (k, d), (k, d)]))
    W = left @ right
    tangent = left @ Z[:r] + Y[:, :r] @ right  # velocities of curves of matrices of rank r
    G = any_loss(k, d, seed).gradient(W)
    F, covector = (dl.preconditioner.apply(W, G, depth, r), dl.preconditioner.solve(W, tangent, depth, r))
    scale = (1 + worst(G)) * (1 + worst(covector))
    assert worst(dl.preconditioner.apply(W, covector, depth, r) - tangent) < 1e-8 * (1 + worst(tangent))
    assert abs(float((covector * F).sum() - (G * tangent).sum())) < 1e-8 * scale
    assert (covector * tangent).sum() > 0 and (G * F).sum() >= -1e-12 * scale
    if r < min(k, d):  # control: a direction that changes the rank is not in the image
        across = dl.preconditioner.apply(W, dl.preconditioner.solve(W, Z, depth, r), depth, r)
        assert worst(across - Z) > 1e-6


def test_thm_riemannian_descent():
    loss = Logistic(k=2, d=3)
    path = dl.flow.end_to_end(loss, dl.normal(2, 3, generator=generator(1)), 3, torch.linspace(0, 3, 60).double()[1:])
    W, h = path.end_to_end, 3 / 59
    assert (loss.value(W).diff() < 0).all()
    G = loss.gradient(W)
    rate = -(G * dl.preconditioner.apply(W, G, 3)).sum((-2, -1))
    slope = (loss.value(W)[2:] - loss.value(W)[:-2]) / (2 * h)
    assert worst(slope / rate[1:-1] - 1) < 0.05


@quick
@given(d=st.integers(2, 5), depth=st.integers(2, 8), seed=seeds)
def test_prop_cone(d, depth, seed):
    w0, move = (dl.normal(d, generator=generator(seed + i)) for i in (0, 1))
    r, u = w0.norm(), w0 / w0.norm()
    turn = (move - (move @ u) * u) / r
    rho, rate = depth**0.5 * r ** (1 / depth), (move @ u) * r ** (1 / depth - 1) / depth**0.5
    length = dl.preconditioner.solve(w0[None], move[None], depth)[0] @ move
    assert abs(float((rate**2 + rho**2 / depth * turn @ turn) / length - 1)) < 1e-10
    layers = dl.balanced_init((d,) + (2,) * (depth - 1) + (1,), generator(seed), W=w0[None])
    assert abs(float(sum((W**2).sum() for W in layers) / rho**2 - 1)) < 1e-10
    assert abs(float((rate**2 + rho**2 * turn @ turn) / length - 1)) > 1e-6  # control: a plane instead of the cone


@quick
@given(seed=seeds, steps=st.integers(1, 30), m=st.integers(1, 4))
def test_prop_one_run(seed, steps, m):
    points = dl.normal(steps, m, generator=generator(seed))
    forces = dl.normal(steps, m, generator=generator(seed + 1))
    nearest = torch.pdist(points).min() if steps > 1 else torch.tensor(1.0)
    for width, small in ((nearest, True), (100 * nearest, False)):
        v = points.clone().requires_grad_()
        away = v[:, None] - points[None]
        bump = (1 - (away**2).sum(-1) ** 2 / width**4).clamp(min=0) ** 4
        found, = torch.autograd.grad((bump * (forces[None] * away).sum(-1)).sum(), v)
        assert (worst(found - forces) < 1e-10) == small or steps == 1


@quick
@given(seed=seeds, d=st.integers(3, 5), N=st.sampled_from([2, 3, 4.5]))
def test_thm_factor(seed, d, N):
    """omega and its curl: the part that no factor can mend is (N - 1) times the obstruction, for any loss."""
    loss = Logistic(d=d, seed=seed)
    x = dl.normal(1, d, generator=generator(seed + 3)).requires_grad_()

    def omega(x):
        g, r = loss.gradient(x), x.norm()
        return (g + (N - 1) * (g * x).sum() / r**2 * x)[0]

    J = torch.autograd.functional.jacobian(omega, x)[:, 0]
    H = torch.autograd.functional.hessian(lambda v: loss.value(v).sum(), x)[0, :, 0]
    form, C = omega(x).detach(), J - J.T
    three = torch.einsum("i,jk->ijk", form, C)
    three = three + three.permute(1, 2, 0) + three.permute(2, 0, 1)  # omega wedge d omega
    v = x.detach()[0]
    size = (three**2).sum().div(6).sqrt()
    loss.shape, loss.hessian_product = (1, d), lambda W, V: V @ H
    assert abs(float(size / ((N - 1) * dl.field.obstruction(loss, v[None])) - 1)) < 1e-7
    radial = dl.Polynomial(sum(y**2 for y in w[:2]) ** 2 - w[0], w[:2])  # control: nothing obstructs two weights
    assert dl.field.obstruction(radial, x.detach()[:, :2]) == 0


@settings(max_examples=5)
@given(seed=seeds, N=st.sampled_from([2, 3, 4.5]))
def test_thm_factor_where_the_gradient_is_along_w(seed, N):
    """A walk perpendicular to the field, above a closed loop through a point where g and w are parallel, closes or not."""
    rng = np.random.default_rng(seed)
    c, gamma = rng.uniform(0.5, 2, 2)
    start = 2 / (c + gamma)  # the first component of the gradient is 1 there
    size = 0.1 * start
    for more, closes in ((0, True), (1, False)):
        S = c * np.eye(3) + gamma * np.diag([1.0, 0, 0]) + more * np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]])

        def slope(t, x, S=S):
            u, v = size * (np.cos(t) - 1), size * np.sin(t)
            at = np.array([x[0], u, v])
            g = S @ at - [1, 0, 0]
            F = g + (N - 1) * (g @ at) / (at @ at) * at
            return [(F[1] * v - F[2] * (u + size)) / F[0]]

        walk = solve_ivp(slope, (0, 2 * np.pi), [start], rtol=1e-11, atol=1e-13).y[0, -1] - start
        assert abs(walk) < 1e-9 if closes else abs(walk) > 1e-6, walk  # the second is the control


@settings(max_examples=5)
@given(seed=seeds, N=st.sampled_from([1.5, 2, 3, 4]))
def test_prop_minimum(seed, N):
    """Least squares with a quartic on top: the turn of the perpendicular curves against its formula, on either side."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(2, 2)))[0]
    S = basis @ np.diag([1, rng.uniform(1.5, 4)]) @ basis.T
    generic, quartic = rng.normal(size=2), rng.uniform(-1, 1)

    def field(v, least, depth, quartic):
        away = v - least
        g = S @ away + quartic * (away @ away) * away
        return g + (depth - 1) * (g @ v) / (v @ v) * v

    def turn(least, depth, quartic, start):
        def slope(angle, log):
            e = np.array([np.cos(angle), np.sin(angle)])
            F = field(least + np.exp(log[0]) * e, least, depth, quartic)
            return [(F[0] * e[1] - F[1] * e[0]) / (F @ e)]
        return np.exp(solve_ivp(slope, (0, 2 * np.pi), [np.log(start)], rtol=1e-11, atol=1e-13).y[0, -1]) / start

    def spiral(least, depth):
        u = least / np.linalg.norm(least)
        tau = (depth - 1) * (u[0] * (S @ u)[1] - u[1] * (S @ u)[0])
        return np.exp(2 * np.pi * tau / np.sqrt(4 * depth * np.linalg.det(S) - tau**2))

    for least in (generic, generic * [1, -1]):
        small = 1e-4 * np.linalg.norm(least)
        assert abs(np.log(turn(least, N, quartic, small) / spiral(least, N))) < 1e-2
        assert abs(turn(least, 1, quartic, small) - 1) < 1e-8  # control: depth 1 has its loss
        h, A = 1e-6, np.eye(2) + (N - 1) * np.outer(least, least) / (least @ least)
        J = np.stack([(field(least + h * e, least, N, quartic) - field(least - h * e, least, N, quartic)) / (2 * h)
                      for e in np.eye(2)], 1)
        assert np.abs(J - A @ S).max() < 1e-6 * np.abs(J).max()
    along = basis[:, seed % 2] * rng.uniform(0.5, 2)  # an eigenvector of S: the curves close, at any distance
    assert abs(turn(along, N, 0, 0.05) - 1) < 1e-7 and abs(turn(along, N, quartic, 0.05) - 1) < 1e-7


@settings(max_examples=6)
@given(seed=seeds, shape=st.sampled_from([(1, 2), (1, 4), (2, 2), (2, 3), (3, 2)]), depth=st.integers(2, 4))
def test_thm_clock(seed, shape, depth):
    """The third derivatives of a potential would be symmetric: with the clock left free, in least squares."""
    k, d = shape
    W, unit = dl.normal(k, d, generator=generator(seed)), torch.eye(k * d, dtype=torch.float64)
    while torch.linalg.cond(W) > 5 or torch.linalg.svdvals(W).diff().abs().lt(0.2).any():
        W = dl.normal(k, d, generator=generator(seed := seed + 1))

    def metric(V):
        A = torch.stack([dl.preconditioner.apply(V, E.view(k, d), depth).flatten() for E in unit])
        return torch.linalg.inv(A)

    def asymmetry(T):
        return (T - T.transpose(0, 1)).flatten(0, 2)

    h = 1e-5 * W.norm()
    own = asymmetry(torch.stack([(metric(W + h * E.view(k, d)) - metric(W - h * E.view(k, d))) / (2 * h) for E in unit]))
    clock = asymmetry(torch.einsum("xc,yz->xyzc", unit, metric(W)))
    gain = torch.linalg.lstsq(clock, -own[:, None]).solution[:, 0]
    left = ((clock @ gain + own).norm() / own.norm()).item()
    assert own.norm() > 1e-3 * metric(W).norm()  # control: without a clock it is no Hessian
    if k == 1:
        w0 = W.flatten()
        assert left < 1e-6 and worst(gain - (1 - 1 / depth) * w0 / (w0 @ w0)) < 1e-5 * (1 + worst(gain))
    else:
        assert left > 0.02


@quick
@given(seed=seeds, N=st.sampled_from([2, 3, 5]), degree=st.integers(1, 4))
def test_cor_factor(seed, N, degree):
    rng = np.random.default_rng(seed)
    at = dl.normal(4, 1, 3, generator=generator(seed))
    r = at.norm(dim=-1, keepdim=True)
    monomials = [sp.prod(x**e for x, e in zip(w, key)) for key in np.ndindex(*(5,) * 3) if sum(key) == degree]
    L = sum(int(c) * m for c, m in zip(rng.integers(1, 5, len(monomials)), monomials))
    b = [int(i) for i in rng.integers(1, 4, 3)]
    dot, square = sum(x * y for x, y in zip(b, w)), sum(x**2 for x in w[:3])
    q = (N - 1) * degree
    if q % 2 == 0:  # r^q is a polynomial
        Phi = dl.Polynomial(sp.expand(square ** (q // 2) * L), w[:3])
        F = dl.field.vector_field(dl.Polynomial(L, w[:3]), at, N)
        assert worst(F - r ** (2 - 2 / N - q) * Phi.gradient(at)) < 1e-10 * (1 + worst(F))
    if N % 2:
        Phi = dl.Polynomial(sp.expand(sp.Rational(3 * N, N + 1) * square ** ((N + 1) // 2) - square ** ((N - 1) // 2) * dot),
                            w[:3])
        F = dl.field.vector_field(dl.Polynomial(3 * square / 2 - dot, w[:3]), at, N)
        assert worst(F - r ** (3 - 2 / N - N) * Phi.gradient(at)) < 1e-10 * (1 + worst(F))
    for extra, allowed in ((int(rng.integers(-3, 4)) * dot**2, True), (w[0] * w[1] + w[2] ** 2 / 5, False)):
        found = dl.field.obstruction(dl.Polynomial(sp.expand(2 * square + extra - dot), w[:3]), at)
        assert (worst(found) < 1e-10) == allowed  # the second is the control


@quick
@given(seed=seeds, d=st.integers(2, 5), N=st.sampled_from([1, 1.5, 2, 3, 6]))
def test_thm_mirror(seed, d, N):
    loss = Logistic(d=d, seed=seed)
    x = dl.normal(d, generator=generator(seed))
    g, r = loss.gradient(x[None])[0], x.norm()
    F = r ** (2 - 2 / N) * (g + (N - 1) * (g @ x) / r**2 * x)
    J = torch.autograd.functional.jacobian(lambda v: v / v.norm() ** (1 - 1 / N), x)
    assert worst(J @ F - r ** (1 - 1 / N) * g) < 1e-10 * (1 + worst(F))
    Q = torch.autograd.functional.jacobian(lambda v: N / (N + 1) * v.norm() ** (1 + 1 / N), x)
    assert worst(Q - x / r ** (1 - 1 / N)) < 1e-12 * (1 + r)
    if N == 3:  # control: the map of another depth
        J = torch.autograd.functional.jacobian(lambda v: v / v.norm() ** 0.5, x)
        assert worst(J @ F - r**0.5 * g) > 1e-8


@settings(max_examples=10)
@given(seed=seeds, depth=st.sampled_from([1, 2, 3, 4]), size=st.floats(0.05, 2))
def test_cor_destination(seed, depth, size):
    X = torch.linalg.qr(dl.normal(5, 2, generator=generator(seed))).Q.T * torch.tensor([[1.0], [1.3]]).double()
    y = torch.tensor([1.0, -0.7], dtype=torch.float64)
    loss, start = dl.LpLoss(X, y, 2), size * dl.normal(1, 5, generator=generator(seed + 1))
    end = dl.flow.end_to_end(loss, start, depth, [60.0]).end_to_end[0]
    claim = dl.flow.destination(X, y, start, depth)
    if loss.value(end) < 1e-18:  # it has arrived
        assert worst(end - claim) < 1e-7
    least = (torch.linalg.pinv(X) @ y)[None]
    # the second claim: no other solution has a smaller Bregman divergence
    kernel = torch.eye(5).double() - torch.linalg.pinv(X) @ X

    def objective(v):
        return depth / (depth + 1) * v.norm() ** (1 + 1 / depth) - (v * start).sum() / start.norm() ** (1 - 1 / depth)

    for i in range(20):
        other = claim + 0.1 * dl.normal(1, 5, generator=generator(seed + i)) @ kernel
        assert objective(claim) <= objective(other) + 1e-14
    # the third: the exponent 1/N
    distances = [float((dl.flow.destination(X, y, s * start, depth) - least).norm()) for s in (1e-9, 1e-12)]
    assert abs(np.log10(distances[0] / distances[1]) / 3 - 1 / depth) < 0.01
    assert worst(claim - least) > 1e-4  # control: the minimum norm itself is not the end
