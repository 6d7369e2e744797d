"""One test for each claim of chapter 18, on other shapes, seeds and losses than the chapter, each with its control."""

import deeplinear as dl
import numpy as np
import pytest
import torch
from problems import Logistic, half_square, worst
from torch.nn import functional as F

from conftest import generator

PHIS = {"tanh": torch.tanh, "GELU": F.gelu, "SiLU": F.silu, "softplus": F.softplus, "sine": torch.sin,
        "linear": lambda z: 1.7 * z, "cubic": lambda z: z**3}


def convolution(phi, seed, decay=0.0, lr=0.07):
    """A channel's ``Q`` before and after one step of a small convolutional net, and the two parts of its change."""
    g = generator(seed)
    x, y = dl.normal(5, 2, 6, 6, generator=g), dl.normal(5, 3, generator=g)
    P = [dl.normal(*shape, generator=g) for shape in ((4, 2, 3, 3), (4,), (3, 4, 3, 3))]
    P = [(W / W[0].numel() ** 0.5).requires_grad_() for W in P]
    z = F.conv2d(x, *P[:2])
    a = phi(z)
    loss = F.mse_loss(torch.tanh(F.conv2d(a, P[2], padding=1)).mean((2, 3)), y)
    da, *dP = torch.autograd.grad(loss, [a, *P])
    shrink = 1 - lr * decay
    squares = [(W**2).sum((0, 2, 3)) - (K**2).sum((1, 2, 3)) - b**2 for W, K, b in
               ((P[2], P[0], P[1]), (dP[2], dP[0], dP[1]), [shrink * W - lr * G for W, G in zip(P[2:] + P[:2], dP[2:] + dP[:2])])]
    Q, second, after = (part.detach() for part in squares)
    first = -2 * lr * shrink * (da * dl.imbalanced.shortfall(phi, z.detach())).sum((0, 2, 3))
    return after - shrink**2 * Q - lr**2 * second, first, Q


@pytest.mark.parametrize("name", PHIS)
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_thm_activation_drift(name, decay):
    rest, first, _ = convolution(PHIS[name], seed=3, decay=decay)
    assert worst(rest - first) < 1e-14
    assert worst(rest) < 1e-14 if name == "linear" else worst(rest) > 1e-5  # the control, and part 3


def test_thm_activation_drift_of_the_flow():
    """The derivative of Q by differences of ever smaller steps."""
    errors = []
    for lr in (1e-3, 1e-4):
        rest, first, Q = convolution(torch.tanh, seed=5, decay=0.2, lr=lr)
        after = rest + (1 - lr * 0.2) ** 2 * Q
        errors.append(worst((after - Q) / lr - (first / lr - 2 * 0.2 * Q)))
    assert errors[1] < 0.11 * errors[0] and errors[1] < 1e-3


def unit(phi, x, grown, lr=1e-3):
    """The change of ``Q`` of one unit with a bias in small steps, at most 60, as long as every example asks for the same.

    Every goal is ``grown`` times the first output: all examples ask the unit to grow, or if ``grown < 1`` to shrink.
    """
    w, b, a = (torch.tensor(value, dtype=torch.float64) for value in (0.7, 0.1, 1.2))
    y, start = grown * a * phi(w * x + b), a**2 - w**2 - b**2
    for _ in range(60):
        z = w * x + b
        e = a * phi(z) - y
        if not (e * phi(z) * (grown - 1) <= 0).all():
            break
        da, dz = (e * phi(z)).sum(), a * e * torch.func.vmap(torch.func.grad(phi))(z)
        a, w, b = a - lr * da, w - lr * (dz * x).sum(), b - lr * dz.sum()
    return float(a**2 - w**2 - b**2 - start)


def test_cor_activation_sign():
    x = torch.tensor([0.4, 0.9, 1.0, 1.3], dtype=torch.float64)
    up = unit(torch.tanh, x, 3.0)
    for name, sign in (("tanh", 1), ("GELU", -1), ("SiLU", -1), ("cubic", -1)):
        assert sign * unit(PHIS[name], x, 3.0) > 1e-3, name
    assert abs(unit(PHIS["linear"], x, 3.0)) < 0.1 * up  # what finite steps leave
    z = torch.linspace(-6, 6, 1000, dtype=torch.float64)  # without 0
    e = dl.imbalanced.elasticity(torch.tanh, z)
    assert ((e > 0) & (e < 1)).all()
    for phi in (F.gelu, F.silu):
        assert (torch.sign(dl.imbalanced.elasticity(phi, z) - 1) == torch.sign(z)).all()
    assert (dl.imbalanced.shortfall(F.gelu, z) <= 0).all()
    # the control: examples that ask tanh to shrink lower Q
    assert unit(torch.tanh, x, 0.2) < -1e-3


def pairs(slope, a, b, eta, steps):
    """The weights after descent on L(ab), many starts at once."""
    for _ in range(steps):
        e = slope(a * b)
        a, b = a - eta * e * b, b - eta * e * a
    return a, b


@pytest.mark.parametrize("goal, curvature", [(0.7, 1.0), (-1.3, 2.5), (2.0, 0.3)])
def test_thm_large_steps(goal, curvature):
    """A loss that is no square, (w - w*)^2 (1 + tanh(w - w*) / 3) kappa / 2, from many starts, at many steps."""
    def slope(w):
        u = w - goal
        return curvature * (u * (1 + np.tanh(u) / 3) + u**2 / 6 / np.cosh(u) ** 2)

    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(2, 4000)) * 2
    eta = rng.uniform(0.05, 1.2, 4000) / (curvature * abs(goal))
    with np.errstate(all="ignore"):
        x, y = pairs(slope, a, b, eta, 4000)
    arrived = abs(x * y - goal) < 1e-9
    most = 4 * (1 / (eta * curvature) ** 2 - goal**2)
    assert arrived.sum() > 300 and ((x**2 - y**2)[arrived] ** 2 <= most[arrived] + 1e-6).all()
    assert (eta * curvature * abs(goal))[arrived].max() < 1 + 1e-6  # above it none
    moved = arrived & (abs(x**2 - y**2) < 0.5 * abs(a**2 - b**2))
    assert moved.sum() > 20  # the bound is at work
    x, y = pairs(slope, a, b, eta, 1)
    factor = 1 - eta**2 * slope(a * b) ** 2
    assert (abs(x**2 - y**2 - factor * (a**2 - b**2)) < 1e-12 * (1 + factor**2) * (1 + a**4 + b**4)).all()
    # the control: on a minimum the product is exact, and any imbalance stays (goal 0.5 * 4)
    if goal == 2.0:
        x, y = pairs(slope, 4.0, 0.5, 5.0, 10)
        assert (x, y) == (4.0, 0.5) and x**2 - y**2 > 2 * max(1 / (5.0 * curvature) ** 2 - goal**2, 0) ** 0.5


@pytest.mark.parametrize("k, h, d", [(1, 1, 5), (3, 2, 3), (4, 6, 2)])
def test_thm_noise_balance(k, h, d):
    g = generator(k)
    V, U, eta = dl.normal(h, d, generator=g), dl.normal(k, h, generator=g), 0.4
    D = U.T @ U - V @ V.T
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4)
    # uncorrelated entries of mean 0 and variance sigma^2, exactly: one entry at a time, of size sigma sqrt(kd), both signs
    units = torch.eye(k * d, dtype=torch.float64).reshape(-1, k, d) * (k * d) ** 0.5 * 0.3
    G = torch.cat([units, -units])
    v, u = V - eta * U.T @ G, U - eta * G @ V.T
    mean = (u.mT @ u - v @ v.mT).mean(0)
    assert worst(mean - D - eta**2 * 0.09 * (k * V @ V.T - d * U.T @ U)) < 1e-13
    if k != d:  # the control: it is not the balanced layers that rest
        layers = dl.balanced_init((d, h, k), g, std=1.0)
        P, Q = layers[0] @ layers[0].T, layers[1].T @ layers[1]
        assert worst(P - Q) < 1e-12 and worst(k * P - d * Q) > 0.01
    # part 3, every path of signs weighed alike; the noise of variance 0.25
    a, b, eta = 2.0, 0.4, 0.3
    for sign in signs.T:
        pull = torch.as_tensor(a * b - 0.8) + 0.5 * sign
        assert (eta * pull.abs() <= 1).all()
        a, b = a - eta * pull * b, b - eta * pull * a
    assert float((a**2 - b**2).abs().mean()) <= (1 - eta**2 * 0.25) ** 4 * (2.0**2 - 0.4**2)
    assert float((a**2 - b**2).abs().mean()) > (1 - eta**2) ** 4 * (2.0**2 - 0.4**2)  # a larger sigma would be too much


@pytest.mark.parametrize("chi", [-20.0, -0.7, 0.0, 0.4, 15.0])
def test_prop_kernel_movement(chi):
    loss, w0 = Logistic(d=4, seed=2), dl.normal(1, 4, generator=generator(3))
    a = ((chi + (chi**2 + 4 * w0.square().sum()).sqrt()) / 2).sqrt().reshape(1, 1)
    path = dl.flow.layers(loss, [w0 / a, a], [0.05, 0.5, 2.0])
    v, a = path.weights
    M = a**2 * torch.eye(4, dtype=torch.float64) + v.mT @ v
    cos = (M[0] * M).sum((1, 2)) / M.norm(dim=(1, 2)) / M[0].norm()
    w = path.end_to_end
    assert worst(cos - dl.imbalanced.kernel_cosine(chi, w[:1], w)) < 1e-9
    assert worst(cos[1:] - dl.imbalanced.kernel_cosine(chi + 0.5, w[:1], w)[1:]) > 1e-7  # the control
    # part 1: how size and direction move
    c, rho = a[:, 0, 0] ** 2, w.norm(dim=(1, 2))
    unit, G = w / rho[:, None, None], loss.gradient(w)
    velocity = dl.chain.product_velocity(path.weights, [-g for g in dl.layer_gradients(path.weights, G)])
    along = (G * unit).sum((1, 2))
    assert worst((velocity * unit).sum((1, 2)) + (2 * c - chi) * along) < 1e-9
    across = velocity - (velocity * unit).sum((1, 2))[:, None, None] * unit
    assert worst(across + c[:, None, None] * (G - along[:, None, None] * unit)) < 1e-9


def test_prop_kernel_movement_in_the_limits():
    w0, w1 = dl.normal(2, 1, 5, generator=generator(1))
    along = F.cosine_similarity(w0, w1)[0] ** 2
    for chi, limit in ((1e7, 1.0), (-1e7, along), (0.0, (5 + 2 + along) / (5 + 3))):
        assert abs(dl.imbalanced.kernel_cosine(chi, w0, w1) - limit) < 1e-6


def off_balance(k, h, d, lam, seed):
    g = generator(seed)
    left, right = torch.linalg.qr(dl.normal(k, h, generator=g)).Q, torch.linalg.qr(dl.normal(d, h, generator=g)).Q
    turn, s = torch.linalg.qr(dl.normal(h, h, generator=g)).Q, dl.normal(h, generator=g).square() + 0.2
    return [turn @ torch.diag(s.sqrt()) @ right.T, left @ torch.diag((s + lam).sqrt()) @ turn.T]


@pytest.mark.parametrize("k, h, d, lam", [(3, 3, 3, 0.0), (5, 2, 4, 1.1), (2, 2, 6, -0.15), (4, 1, 3, 0.6)])
def test_thm_riccati(k, h, d, lam):
    Phi, times = dl.normal(k, d, generator=generator(7)), torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    layers = off_balance(k, h, d, lam, seed=h)
    path = dl.flow.layers(half_square(Phi), layers, times).end_to_end
    assert worst(dl.imbalanced.closed_form(Phi, layers, times) - path) < 1e-8
    if h > 1:  # the control: an imbalance that is no multiple of the identity
        spread = [layers[0], layers[1] @ torch.diag(torch.linspace(1, 1.4, h, dtype=torch.float64))]
        path = dl.flow.layers(half_square(Phi), spread, times).end_to_end
        with pytest.raises(ValueError, match="multiple of the identity"):
            dl.imbalanced.closed_form(Phi, spread, times)
        assert worst(dl.imbalanced.closed_form(Phi, spread, times, require_multiple=False) - path) > 1e-3


def test_thm_saddles():
    g = generator(11)
    left, right = torch.linalg.qr(dl.normal(5, 2, generator=g)).Q, torch.linalg.qr(dl.normal(3, 2, generator=g)).Q
    sigma = torch.tensor([2.0, 0.9], dtype=torch.float64)
    Phi, Z = left @ torch.diag(sigma) @ right.T, off_balance(5, 3, 3, 0.0, seed=4)  # rank 2, three hidden units
    for tau, rank in ((0.3, 0), (0.75, 1), (1.6, 2)):
        goal, errors = left[:, :rank] @ torch.diag(sigma[:rank]) @ right[:, :rank].T, []
        for eps in (1e-2, 1e-4, 1e-6):
            time = tau * np.log(1 / eps)
            path = dl.flow.layers(half_square(Phi), [eps * W for W in Z], [time])
            errors.append(worst(path.end_to_end[0] - goal))
        assert errors[2] < 0.2 * errors[1] < 0.04 * errors[0] + 1e-6 and errors[2] < 0.02
    # the control: one hidden unit has rows that depend on each other, and never reaches rank 2
    path = dl.flow.layers(half_square(Phi), [1e-4 * W for W in off_balance(5, 1, 3, 0.0, seed=4)], [1.6 * np.log(1e4)])
    assert worst(path.end_to_end[0] - Phi) > 0.1


@pytest.mark.parametrize("r, h", [(2, 2), (3, 3), (3, 5)])
def test_thm_saddles_asks_for_the_sign_of_the_goal(r, h):
    """For a square goal of full rank the rows of Z are independent for starts of its sign, and for none of the other."""
    seen = set()
    for seed in range(12):
        g = generator(seed)
        u, v = (torch.linalg.qr(dl.normal(r, r, generator=g)).Q for _ in range(2))
        W1, W2 = dl.balanced_init((r, h, r), g, std=1.0)
        rows = v.T @ W1.T + u.T @ W2
        alike = bool(torch.linalg.det(W2 @ W1) * torch.linalg.det(u @ v.T) > 0)
        least = torch.linalg.svdvals(rows)[-1]
        assert least > 1e-4 if alike else least < 1e-7, (seed, least)
        seen.add(alike)
    assert seen == {True, False}
